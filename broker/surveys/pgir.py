"""Palomar Gattini-IR alert packets, schema 0.1: one band, J, in a packet much like ZTF's.

Known: magnitudes are Vega's, calibrated on 2MASS (De et al. 2020, PASP 132, 025001); `jd` is UTC at the
start of the exposure. Assumed: `exptime` is the whole of its dithers (the gaps between them are not given,
so that mid-exposure is some seconds early), and an exposure in the history is as long. Unlike ZTF's, the
history can hold the alert itself. -99 and 'NONE' mean nothing known within 60 arcsec; a limit or a score of
-1 is missing. `fluxpsf` does not follow from `magpsf` and `magzpsci`, and the history has magnitudes only:
these are read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from broker.astro.bands import band_index
from broker.astro.photometry import limit_to_njy_err, vega_to_ab
from broker.batch import SS_ASSOCIATED, SS_NEARBY, AlertBatch
from broker.lightcurves import DETECTION, FLAG_OWN, LIMIT, LightCurves, Points
from broker.surveys import ztf
from broker.surveys.base import (
    Source,
    Survey,
    ascii_names,
    join_rows,
    make_points,
    name_ids,
    not_negative,
    packet_columns,
    positive,
    without,
)
from broker.surveys.columns import Child, ChildTable, Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

STANDARD_EXPOSURE_S = 71.26
"""Exposure time of every packet seen [s]; the history gives none."""
CATALOGUE_REACH_ARCSEC = 60.0
"""Distance that stands for no 2MASS star."""

LAYOUT = Layout(
    alert=(
        Field("dia_source_id", "int", ("candid",)),
        Field("object_name", "text", ("objectId",)),
        Field("schema_version", "text", ("schemavsn",)),
        Field("jd", "float", ("candidate.jd",)),
        Field("exptime", "float", ("candidate.exptime",)),
        Field("ra", "float", ("candidate.ra",)),
        Field("dec", "float", ("candidate.dec",)),
        Field("magpsf", "float", ("candidate.magpsf",)),
        Field("sigmapsf", "float", ("candidate.sigmapsf",)),
        Field("isdiffpos", "text", ("candidate.isdiffpos",)),
        Field("diffmaglim", "float", ("candidate.diffmaglim",)),
        Field("reliability", "float", ("candidate.drb",)),
        Field("tmdist1", "float", ("candidate.tmdist1",)),
        Field("ssdistnr", "float", ("candidate.ssdistnr",)),
        Field("ssmagnr", "float", ("candidate.ssmagnr",)),
        Field("ssnamenr", "text", ("candidate.ssnamenr",)),
    ),
    children=(
        ChildTable(
            "history",
            "prv_candidates",
            (
                Field("candid", "int", ("candid",)),
                Field("stackquadid", "int", ("stackquadid",)),
                Field("jd", "float", ("jd",)),
                Field("ra", "float", ("ra",)),
                Field("dec", "float", ("dec",)),
                Field("magpsf", "float", ("magpsf",)),
                Field("sigmapsf", "float", ("sigmapsf",)),
                Field("isdiffpos", "text", ("isdiffpos",)),
                Field("diffmaglim", "float", ("diffmaglim",)),
            ),
        ),
    ),
    cutouts=(("cutoutScience",), ("cutoutTemplate",), ("cutoutDifference",)),
)
"""Our raw columns and where PGIR's packets keep them."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """PGIR's columns in everybody's words and units."""
    time, assumed = ztf.midpoint(raw["jd"], raw["exptime"], STANDARD_EXPOSURE_S)
    psf_flux, psf_flux_err = _flux(raw["magpsf"], raw["sigmapsf"], raw["isdiffpos"])
    status = ztf.solar_system_status(raw["ssdistnr"])
    own = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=raw["dia_source_id"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=source.known_at,
        band=_j_band(raw.length),
        flags=assumed | np.uint16(FLAG_OWN),
    )
    return AlertBatch(
        survey="pgir",
        dia_source_id=raw["dia_source_id"],
        dia_object_id=name_ids(raw["object_name"].tolist()),
        ss_object_id=ztf.solar_system_ids(raw["ssnamenr"], status),
        object_name=ascii_names(raw["object_name"].tolist()),
        midpoint_mjd_tai=time,
        ra=raw["ra"],
        dec=raw["dec"],
        band=_j_band(raw.length),
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        reliability=not_negative(raw["reliability"]),
        solar_system_status=status,
        flags=own["flags"],
        packet=_packet(raw, psf_flux, psf_flux_err, status),
        points=_points(raw, own, source.known_at),
        schema_version=ascii_names(raw["schema_version"].tolist()),
        **source.provenance(),
    )


def _j_band(count: int) -> U8:
    return np.full(count, band_index("J"), dtype=np.uint8)


def _flux(magpsf: F64, sigmapsf: F64, isdiffpos: npt.NDArray[np.str_]) -> tuple[F64, F64]:
    """Signed difference flux and its error [nJy], of Vega magnitudes.  All (n,)."""
    return ztf.difference_flux(vega_to_ab(magpsf, _j_band(len(magpsf))), sigmapsf, ztf.sign(isdiffpos))


def _limit(diffmaglim: F64) -> F64:
    """AB limiting magnitudes of Vega ones; NaN for negative ones.  (n,);  returns (n,)."""
    return vega_to_ab(not_negative(diffmaglim), _j_band(len(diffmaglim)))


def _packet(raw: RawColumns, psf_flux: F64, psf_flux_err: F64, status: U8) -> dict[str, F64]:
    moving = (status == SS_ASSOCIATED) | (status == SS_NEARBY)
    none_near = ~(raw["tmdist1"] < CATALOGUE_REACH_ARCSEC)
    known = ztf.exposure_known(raw["exptime"])
    return packet_columns(
        raw.length,
        {
            "snr": np.abs(psf_flux) / positive(psf_flux_err),
            "limiting_mag": _limit(raw["diffmaglim"]),
            "exposure_time_s": np.where(known, raw["exptime"], STANDARD_EXPOSURE_S),
            "star_sep_arcsec": without(not_negative(raw["tmdist1"]), none_near),
            "solar_system.sep_arcsec": without(raw["ssdistnr"], ~moving),
            "solar_system.v_mag_predicted": without(positive(raw["ssmagnr"]), ~moving),
            "position_scatter_arcsec": ztf.detections_scatter(raw),
        },
    )


def _points(raw: RawColumns, own: Points, known_at: U32) -> LightCurves:
    """The own points, then the history's detections and its limits."""
    history = raw.children["history"]
    return join_rows(own, [_detections(history, known_at), _limits(history, known_at)])


def _detections(history: Child, known_at: U32) -> tuple[Points, I64]:
    time, assumed = _history_times(history)
    psf_flux, psf_flux_err = _flux(history["magpsf"], history["sigmapsf"], history["isdiffpos"])
    points = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=history["candid"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[history.row],
        band=_j_band(len(time)),
        flags=assumed,
    )
    keep = (history["candid"] != 0) & np.isfinite(time)
    return points[keep], history.row[keep]


def _limits(history: Child, known_at: U32) -> tuple[Points, I64]:
    """Non-detections; one whose limit is missing or negative says nothing and is left out."""
    time, assumed = _history_times(history)
    error = limit_to_njy_err(_limit(history["diffmaglim"]))
    points = make_points(
        LIMIT,
        midpoint_mjd_tai=time,
        source_id=ztf.exposure_id(history["stackquadid"], history["jd"]),
        psf_flux=np.full(len(time), np.nan),
        psf_flux_err=error,
        known_at=known_at[history.row],
        band=_j_band(len(time)),
        flags=assumed,
    )
    keep = (history["candid"] == 0) & np.isfinite(time) & np.isfinite(error)
    return points[keep], history.row[keep]


def _history_times(history: Child) -> tuple[F64, npt.NDArray[np.uint16]]:
    return ztf.midpoint(history["jd"], np.full(len(history["jd"]), np.nan), STANDARD_EXPOSURE_S)


SURVEY = Survey(
    name="pgir",
    required=(
        ("objectId",),
        ("candid",),
        ("candidate.jd",),
        ("candidate.stackquadid",),
        ("candidate.ra",),
        ("candidate.dec",),
        ("candidate.magpsf",),
        ("candidate.sigmapsf",),
        ("candidate.isdiffpos",),
    ),
    layout=LAYOUT,
    normalise=normalise,
    bands=("J",),
    topics=("^pgir_replay$",),
    needs_object=True,
)
