"""DECam alert packets of the DESIRT survey, schema 0.1.

Known from the one packet seen: psfFlux is in nJy (its AB magnitude is beside it); the exposure's name in
objectId shows that `mjd` is UTC at the start of the exposure; fp_hists holds forced photometry, of the
alert's own exposure too. Assumed: psfFlux has a sign, as Rubin's has; 30 s of exposure, which the packet
does not give, so that every time is flagged as assumed. There is no word about the solar system.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from broker.astro.times import SECONDS_PER_DAY, mjd_utc_to_mjd_tai
from broker.batch import SS_UNKNOWN, AlertBatch
from broker.lightcurves import DETECTION, FLAG_OWN, FLAG_TIME_ASSUMED, FORCED, Points
from broker.surveys import ztf
from broker.surveys.base import (
    STANDARD_EXPOSURE_S,
    Source,
    Survey,
    ascii_names,
    band_indices,
    finite,
    join_rows,
    make_points,
    name_ids,
    not_negative,
    packet_columns,
    positive,
)
from broker.surveys.columns import Child, ChildTable, Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

LAYOUT = Layout(
    alert=(
        Field("dia_source_id", "int", ("candid",)),
        Field("object_name", "text", ("objectId",)),
        Field("mjd", "float", ("candidate.mjd",)),
        Field("band", "text", ("candidate.band",)),
        Field("ra", "float", ("candidate.ra",)),
        Field("dec", "float", ("candidate.dec",)),
        Field("psf_flux", "float", ("candidate.psfFlux",)),
        Field("psf_flux_err", "float", ("candidate.psfFluxErr",)),
        Field("diffmaglim", "float", ("candidate.diffmaglim",)),
        Field("reliability", "float", ("candidate.reliability",)),
    ),
    children=(
        ChildTable(
            "forced",
            "fp_hists",
            (
                Field("mjd", "float", ("mjd",)),
                Field("band", "text", ("band",)),
                Field("psf_flux", "float", ("psfFlux",)),
                Field("psf_flux_err", "float", ("psfFluxErr",)),
            ),
        ),
    ),
    cutouts=(("cutoutScience",), ("cutoutTemplate",), ("cutoutDifference",)),
)
"""Our raw columns and where DESIRT's packets keep them."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """DESIRT's columns in everybody's words and units."""
    time, band = _midpoint(raw["mjd"]), band_indices(raw["band"])
    psf_flux, psf_flux_err = finite(raw["psf_flux"]), not_negative(finite(raw["psf_flux_err"]))
    own = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=raw["dia_source_id"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=source.known_at,
        band=band,
        flags=np.full(raw.length, FLAG_OWN | FLAG_TIME_ASSUMED, dtype=np.uint16),
    )
    return AlertBatch(
        survey="decam",
        dia_source_id=raw["dia_source_id"],
        dia_object_id=name_ids(raw["object_name"].tolist()),
        ss_object_id=np.zeros(raw.length, dtype=np.int64),
        object_name=ascii_names(raw["object_name"].tolist()),
        midpoint_mjd_tai=time,
        ra=raw["ra"],
        dec=raw["dec"],
        band=band,
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        reliability=not_negative(raw["reliability"]),
        solar_system_status=np.full(raw.length, SS_UNKNOWN, dtype=np.uint8),
        flags=own["flags"],
        packet=packet_columns(
            raw.length,
            {
                "snr": np.abs(psf_flux) / positive(psf_flux_err),
                "limiting_mag": not_negative(raw["diffmaglim"]),
            },
        ),
        points=join_rows(own, [_forced(raw.children["forced"], source.known_at)]),
        schema_version=ascii_names([schema.version for schema in source.schemas]),
        **source.provenance(),
    )


def _midpoint(mjd: F64) -> F64:
    """Mid-exposure [MJD, TAI] of a start [MJD, UTC].  (n,);  returns (n,)."""
    return mjd_utc_to_mjd_tai(mjd) + STANDARD_EXPOSURE_S / 2.0 / SECONDS_PER_DAY


def _forced(forced: Child, known_at: U32) -> tuple[Points, I64]:
    """Forced photometry; a point without a flux is left out. The start of the exposure tells it."""
    time = _midpoint(forced["mjd"])
    psf_flux, psf_flux_err = finite(forced["psf_flux"]), not_negative(finite(forced["psf_flux_err"]))
    points = make_points(
        FORCED,
        midpoint_mjd_tai=time,
        source_id=ztf.exposure_id(np.zeros(len(time), dtype=np.int64), forced["mjd"]),
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[forced.row],
        band=band_indices(forced["band"]),
        flags=np.full(len(time), FLAG_TIME_ASSUMED, dtype=np.uint16),
    )
    keep = np.isfinite(psf_flux) & np.isfinite(psf_flux_err) & np.isfinite(time)
    return points[keep], forced.row[keep]


SURVEY = Survey(
    name="decam",
    required=(
        ("objectId",),
        ("candid",),
        ("candidate.mjd",),
        ("candidate.band",),
        ("candidate.ra",),
        ("candidate.dec",),
        ("candidate.psfFlux",),
        ("candidate.psfFluxErr",),
    ),
    layout=LAYOUT,
    normalise=normalise,
    bands=("u", "g", "r", "i", "z", "y"),
    topics=("^decam_replay$",),
    needs_object=True,
)
