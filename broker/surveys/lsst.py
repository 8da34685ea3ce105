"""Rubin alert packets, schema 3.0 to 11.1, and packets of brokers that add fields to them.

Fluxes are difference fluxes in nJy with their sign (isNegative is not read: it disagrees for dipoles);
times are MJD, TAI, mid-exposure. Nearly everything may be null.

Nothing is said of a host or of a counterpart: nearbyObj* (up to 7.4) held ids and distances of objects of any
kind, without brightness, and is in no real packet seen; extendedness is the detection's own.
"""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import njy_err_to_limit, njy_to_mag
from broker.astro.sky import ARCSEC_PER_DEGREE
from broker.batch import SS_ASSOCIATED, SS_NONE, SS_UNKNOWN, AlertBatch
from broker.lightcurves import (
    DETECTION,
    FLAG_OWN,
    FLAG_UNUSED,
    FLAG_WITHDRAWN,
    FORCED,
    LIMIT,
    LightCurves,
    Points,
)
from broker.surveys.base import (
    STANDARD_EXPOSURE_S,
    Source,
    Survey,
    ascii_names,
    band_indices,
    finite,
    flag,
    join_rows,
    make_points,
    not_negative,
    packet_columns,
    position_scatter_arcsec,
    positive,
    without,
)
from broker.surveys.columns import Child, ChildTable, Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DETECTORS_A_VISIT = 256
"""More than the camera's detectors (205): visit * 256 + detector is one number for an image."""
_FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))

_HISTORY = (
    Field("dia_source_id", "int", ("diaSourceId",)),
    Field("time", "float", ("midpointMjdTai", "midPointTai")),
    Field("ra", "float", ("ra",)),
    Field("dec", "float", ("dec", "decl")),
    Field("band", "text", ("band", "filterName")),
    Field("psf_flux", "float", ("psfFlux", "psFlux")),
    Field("psf_flux_err", "float", ("psfFluxErr", "psFluxErr")),
    Field("psf_flux_flag", "float", ("psfFlux_flag",)),
    Field("time_withdrawn", "float", ("timeWithdrawnMjdTai",)),
)
_FORCED = (
    Field("visit", "int", ("visit",)),
    Field("detector", "int", ("detector",)),
    Field("image_id", "int", ("ccdVisitId", "diaForcedSourceId")),
    Field("time", "float", ("midpointMjdTai", "midPointTai")),
    Field("band", "text", ("band", "filterName")),
    Field("psf_flux", "float", ("psfFlux", "psFlux")),
    Field("psf_flux_err", "float", ("psfFluxErr", "psFluxErr")),
    Field("time_withdrawn", "float", ("timeWithdrawnMjdTai",)),
)
_LIMITS = (
    Field("image_id", "int", ("ccdVisitId",)),
    Field("time", "float", ("midpointMjdTai", "midPointTai")),
    Field("band", "text", ("band", "filterName")),
    Field("noise", "float", ("diaNoise",)),
)

LAYOUT = Layout(
    alert=(
        Field("dia_source_id", "int", ("diaSource.diaSourceId",)),
        Field("dia_object_id", "int", ("diaSource.diaObjectId", "diaObject.diaObjectId")),
        Field("ss_object_id", "int", ("diaSource.ssObjectId", "ssSource.ssObjectId", "ssObject.ssObjectId")),
        Field(
            "designation",
            "text",
            ("mpc_orbits.designation", "ssSource.designation", "MPCORB.mpcDesignation"),
        ),
        Field("schema_version", "text", ("lsst_schema_version",)),
        Field("time", "float", ("diaSource.midpointMjdTai", "diaSource.midPointTai")),
        Field("exposure_time", "float", ("diaSource.exposureTime",)),
        Field("ra", "float", ("diaSource.ra",)),
        Field("dec", "float", ("diaSource.dec", "diaSource.decl")),
        Field("band", "text", ("diaSource.band", "diaSource.filterName")),
        Field("psf_flux", "float", ("diaSource.psfFlux", "diaSource.psFlux")),
        Field("psf_flux_err", "float", ("diaSource.psfFluxErr", "diaSource.psFluxErr")),
        Field("psf_flux_flag", "float", ("diaSource.psfFlux_flag",)),
        Field("time_withdrawn", "float", ("diaSource.timeWithdrawnMjdTai",)),
        Field("reliability", "float", ("diaSource.reliability",)),
        Field("science_flux", "float", ("diaSource.scienceFlux", "diaSource.totFlux")),
        Field("template_flux", "float", ("diaSource.templateFlux",)),
        Field("is_dipole", "float", ("diaSource.isDipole",)),
        Field("trail_length", "float", ("diaSource.trailLength",)),
        Field("ixx", "float", ("diaSource.ixx",)),
        Field("iyy", "float", ("diaSource.iyy",)),
        Field("ss_offset", "float", ("ssSource.ephOffset",)),
        Field("ss_residual_ra", "float", ("ssSource.residualRa",)),
        Field("ss_residual_dec", "float", ("ssSource.residualDec",)),
        Field("ss_v_mag", "float", ("ssSource.ephVmag", "ssSource.predictedVMagnitude")),
        Field("ss_rate", "float", ("ssSource.ephRate",)),
    ),
    children=(
        ChildTable("history", "prvDiaSources", _HISTORY),
        ChildTable("forced", "prvDiaForcedSources", _FORCED),
        ChildTable("limits", "prvDiaNondetectionLimits", _LIMITS),
    ),
    cutouts=(
        ("cutoutScience.stampData", "cutoutScience"),
        ("cutoutTemplate.stampData", "cutoutTemplate"),
        ("cutoutDifference.stampData", "cutoutDifference"),
    ),
)
"""Our raw columns and where Rubin's packets keep them, the newest name first."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """Rubin's columns in everybody's words and units."""
    return normalise_as("lsst", raw, source, flux_unit_njy=1.0, solar_system=True)


def normalise_as(
    survey: str, raw: RawColumns, source: Source, *, flux_unit_njy: float, solar_system: bool
) -> AlertBatch:
    """A batch of packets shaped like Rubin's.

    flux_unit_njy : what one unit of the packet's fluxes is [nJy];  solar_system : whether a missing
    ssObjectId means that no solar-system object is there (else it is not known)
    """
    psf_flux, psf_flux_err = _fluxes(raw["psf_flux"], raw["psf_flux_err"], flux_unit_njy)
    associated = raw["ss_object_id"] != 0
    absent = SS_NONE if solar_system else SS_UNKNOWN
    band = band_indices(raw["band"])
    own = make_points(
        DETECTION,
        midpoint_mjd_tai=raw["time"],
        source_id=raw["dia_source_id"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=source.known_at,
        band=band,
        flags=_doubt(raw["psf_flux_flag"]) | _withdrawn(raw["time_withdrawn"]) | np.uint16(FLAG_OWN),
    )
    return AlertBatch(
        survey=survey,
        dia_source_id=raw["dia_source_id"],
        dia_object_id=raw["dia_object_id"],
        ss_object_id=raw["ss_object_id"],
        object_name=_names(raw),
        midpoint_mjd_tai=raw["time"],
        ra=raw["ra"],
        dec=raw["dec"],
        band=band,
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        reliability=not_negative(raw["reliability"]),
        solar_system_status=np.where(associated, SS_ASSOCIATED, absent).astype(np.uint8),
        flags=own["flags"],
        packet=_packet(raw, psf_flux, psf_flux_err, flux_unit_njy),
        points=_points(raw, own, source, flux_unit_njy),
        schema_version=_versions(raw, source),
        **source.provenance(),
    )


def _fluxes(flux: F64, error: F64, unit_njy: float) -> tuple[F64, F64]:
    """Flux and error in nJy; a negative error means nothing.  All (n,)."""
    return finite(flux * unit_njy), not_negative(finite(error * unit_njy))


def _doubt(psf_flux_flag: F64) -> npt.NDArray[np.uint16]:
    """(n,) FLAG_UNUSED where the survey says that its flux measurement failed."""
    return flag(FLAG_UNUSED, psf_flux_flag == 1.0)


def _withdrawn(time_withdrawn: F64) -> npt.NDArray[np.uint16]:
    """(n,) FLAG_WITHDRAWN where a time of withdrawal is given."""
    return flag(FLAG_WITHDRAWN, time_withdrawn > 0.0)


def _names(raw: RawColumns) -> npt.NDArray[np.bytes_]:
    """The decimal diaObjectId, else the designation, else the decimal ssObjectId, else ''."""
    columns = (raw["dia_object_id"], raw["designation"], raw["ss_object_id"])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return ascii_names([str(dia or designation or ss or "") for dia, designation, ss in rows])


def _versions(raw: RawColumns, source: Source) -> npt.NDArray[np.bytes_]:
    """The version in names such as 'lsst.v10_0.alert', of a field of the packet or of its writer schema."""
    given = zip(raw["schema_version"], source.schemas, strict=True)
    return ascii_names([version_in(str(own)) or version_in(schema.name) for own, schema in given])


def version_in(name: str) -> str:
    """The version in a schema's full name; '' if there is none.

    >>> version_in("lsst.v10_0.alert"), version_in("topLevelRecord")
    ('10.0', '')
    """
    match = re.search(r"\bv(\d+(?:_\d+)+)", name)
    return match.group(1).replace("_", ".") if match else ""


def _packet(raw: RawColumns, psf_flux: F64, psf_flux_err: F64, unit_njy: float) -> dict[str, F64]:
    exposure = raw["exposure_time"]
    return packet_columns(
        raw.length,
        {
            "snr": np.abs(psf_flux) / positive(psf_flux_err),
            "mag_total": njy_to_mag(raw["science_flux"] * unit_njy),
            "reference_flux": raw["template_flux"] * unit_njy,
            # of the detection's own error, so a little bright where the source itself adds noise
            "limiting_mag": njy_err_to_limit(psf_flux_err),
            "exposure_time_s": np.where(exposure > 0.0, exposure, STANDARD_EXPOSURE_S),
            "solar_system.sep_arcsec": _separation_arcsec(raw),
            "solar_system.v_mag_predicted": positive(raw["ss_v_mag"]),
            "is_dipole": raw["is_dipole"],
            "trail_length_arcsec": not_negative(raw["trail_length"]),
            "ss_rate": positive(raw["ss_rate"]),
            "fwhm_arcsec": _fwhm_arcsec(raw["ixx"], raw["iyy"]),
            "position_scatter_arcsec": _detections_scatter(raw),
        },
    )


def _detections_scatter(raw: RawColumns) -> F64:
    """Scatter of the place of the alert's detections; withdrawn ones do not count.  Returns (n,) [arcsec]."""
    history = raw.children["history"]
    row = history.row
    repeated = history["dia_source_id"] == raw["dia_source_id"][row]
    ra = without(history["ra"], repeated | (_withdrawn(history["time_withdrawn"]) != 0))
    return position_scatter_arcsec(raw["ra"], raw["dec"], ra, history["dec"], row)


def _separation_arcsec(raw: RawColumns) -> F64:
    """Observed minus predicted place: given as such since 10.0, as two residuals in degrees before."""
    residual = np.hypot(raw["ss_residual_ra"], raw["ss_residual_dec"]) * ARCSEC_PER_DEGREE
    return np.where(np.isnan(raw["ss_offset"]), residual, raw["ss_offset"])


def _fwhm_arcsec(ixx: F64, iyy: F64) -> F64:
    """Width of the detection as a Gaussian's.  ixx, iyy : (n,) [arcsec^2];  NaN where not positive."""
    return _FWHM_PER_SIGMA * np.sqrt(positive(0.5 * (ixx + iyy)))


def _points(raw: RawColumns, own: Points, source: Source, unit_njy: float) -> LightCurves:
    """The own points, then the history's detections, the limits (up to 7.4) and the forced points."""
    known_at = source.known_at
    groups = [
        _detections(raw.children["history"], known_at, unit_njy),
        _limits(raw.children["limits"], known_at, unit_njy),
        _forced(raw.children["forced"], known_at, unit_njy),
    ]
    return join_rows(own, groups)


def _detections(history: Child, known_at: npt.NDArray[np.uint32], unit_njy: float) -> tuple[Points, I64]:
    psf_flux, psf_flux_err = _fluxes(history["psf_flux"], history["psf_flux_err"], unit_njy)
    points = make_points(
        DETECTION,
        midpoint_mjd_tai=history["time"],
        source_id=history["dia_source_id"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[history.row],
        band=band_indices(history["band"]),
        flags=_doubt(history["psf_flux_flag"]) | _withdrawn(history["time_withdrawn"]),
    )
    keep = (history["dia_source_id"] != 0) & np.isfinite(history["time"])
    return points[keep], history.row[keep]


def _limits(limits: Child, known_at: npt.NDArray[np.uint32], unit_njy: float) -> tuple[Points, I64]:
    """Non-detections with the noise of their image; one without it says nothing and is left out."""
    nothing = np.full(len(limits["time"]), np.nan)
    _, noise = _fluxes(nothing, limits["noise"], unit_njy)
    points = make_points(
        LIMIT,
        midpoint_mjd_tai=limits["time"],
        source_id=limits["image_id"],
        psf_flux=nothing,
        psf_flux_err=noise,
        known_at=known_at[limits.row],
        band=band_indices(limits["band"]),
        flags=np.zeros(len(nothing), dtype=np.uint16),
    )
    keep = np.isfinite(noise) & np.isfinite(limits["time"])
    return points[keep], limits.row[keep]


def _forced(forced: Child, known_at: npt.NDArray[np.uint32], unit_njy: float) -> tuple[Points, I64]:
    """Forced photometry; one without a flux is left out unless it withdraws what was said before."""
    psf_flux, psf_flux_err = _fluxes(forced["psf_flux"], forced["psf_flux_err"], unit_njy)
    withdrawn = _withdrawn(forced["time_withdrawn"])
    image = forced["visit"] * DETECTORS_A_VISIT + forced["detector"]
    points = make_points(
        FORCED,
        midpoint_mjd_tai=forced["time"],
        source_id=np.where(forced["visit"] != 0, image, forced["image_id"]),
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[forced.row],
        band=band_indices(forced["band"]),
        flags=withdrawn,
    )
    keep = (np.isfinite(psf_flux) | (withdrawn != 0)) & np.isfinite(forced["time"])
    return points[keep], forced.row[keep]


REQUIRED = (
    ("diaSource.diaSourceId",),
    ("diaSource.midpointMjdTai", "diaSource.midPointTai"),
    ("diaSource.ra",),
    ("diaSource.dec", "diaSource.decl"),
    ("diaSource.band", "diaSource.filterName"),
    ("diaSource.psfFlux", "diaSource.psFlux"),
)
"""Paths that every packet shaped like Rubin's has, under one of its names."""

SURVEY = Survey(
    name="lsst",
    required=REQUIRED,
    layout=LAYOUT,
    normalise=normalise,
    bands=("u", "g", "r", "i", "z", "y"),
    topics=("^lsst-alerts-v.*", "^lsst_replay$"),
)
