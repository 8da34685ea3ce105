"""WINTER alert packets, schema 0.1: the near infrared, in a packet with ZTF's words.

Known: `jd` is UTC at the start of the exposure. Known from the survey's pipeline (mirar), against the text
in the packets' schema (0 to 3 for Y, J, H, K, as another camera has them): `fid` is 1 for Y, 2 for J, 3 for
H and 4 for dark; J and H are calibrated on 2MASS (Vega), Y on Pan-STARRS y (AB). Assumed: `exptime` is the
whole of a stack (gaps between dithers are not given, so that mid-exposure may be early), an exposure in the
history is as long, and nothing is proprietary (every packet seen has programid 1; what its values mean is
not said). A candidate marked deprecated is kept but not used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from broker.astro.bands import band_index
from broker.astro.photometry import vega_to_ab
from broker.batch import SS_ASSOCIATED, SS_NEARBY, AlertBatch
from broker.lightcurves import DETECTION, FLAG_OWN, FLAG_UNUSED, Points
from broker.surveys import ztf
from broker.surveys.base import (
    Source,
    Survey,
    ascii_names,
    flag,
    join_rows,
    make_points,
    name_ids,
    not_negative,
    numbered_bands,
    packet_columns,
    positive,
    without,
)
from broker.surveys.columns import Child, ChildTable, Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

STANDARD_EXPOSURE_S = 120.0
"""Exposure time of every packet seen [s]; the history gives none."""
FID_BAND = {1: "y", 2: "J", 3: "H"}
AB_BAND = "y"
"""The band whose magnitudes are AB; the others' are Vega's."""

TWICE = "sgmag1"
"""A field that the packets' schema has twice: not read, for it is nowhere said which is meant."""

LAYOUT = Layout(
    alert=(
        Field("dia_source_id", "int", ("candid",)),
        Field("object_name", "text", ("objectid",)),
        Field("schema_version", "text", ("schemavsn",)),
        Field("deprecated", "float", ("candidate.deprecated",)),
        Field("jd", "float", ("candidate.jd",)),
        Field("exptime", "float", ("candidate.exptime",)),
        Field("fid", "int", ("candidate.fid",)),
        Field("ra", "float", ("candidate.ra",)),
        Field("dec", "float", ("candidate.dec",)),
        Field("magpsf", "float", ("candidate.magpsf",)),
        Field("sigmapsf", "float", ("candidate.sigmapsf",)),
        Field("isdiffpos", "float", ("candidate.isdiffpos",)),
        Field("diffmaglim", "float", ("candidate.diffmaglim",)),
        Field("reliability", "float", ("candidate.rb",)),
        Field("distnr", "float", ("candidate.distnr",)),
        *(item for item in ztf.PS1_FIELDS if item.name != TWICE),
        Field("neargaia", "float", ("candidate.neargaia",)),
        Field("maggaia", "float", ("candidate.maggaia",)),
        Field("neargaiabright", "float", ("candidate.neargaiabright",)),
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
                Field("jd", "float", ("jd",)),
                Field("fid", "int", ("fid",)),
                Field("ra", "float", ("ra",)),
                Field("dec", "float", ("dec",)),
                Field("magpsf", "float", ("magpsf",)),
                Field("sigmapsf", "float", ("sigmapsf",)),
                Field("isdiffpos", "float", ("isdiffpos",)),
            ),
        ),
    ),
    cutouts=(("cutout_science",), ("cutout_template",), ("cutout_difference",)),
)
"""Our raw columns and where WINTER's packets keep them."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """WINTER's columns in everybody's words and units."""
    time, assumed = ztf.midpoint(raw["jd"], raw["exptime"], STANDARD_EXPOSURE_S)
    band = numbered_bands(raw["fid"], FID_BAND)
    psf_flux, psf_flux_err = _flux(raw["magpsf"], raw["sigmapsf"], raw["isdiffpos"], band)
    status = ztf.solar_system_status(raw["ssdistnr"])
    own = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=raw["dia_source_id"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=source.known_at,
        band=band,
        flags=assumed | flag(FLAG_UNUSED, raw["deprecated"] == 1.0) | np.uint16(FLAG_OWN),
    )
    return AlertBatch(
        survey="winter",
        dia_source_id=raw["dia_source_id"],
        dia_object_id=name_ids(raw["object_name"].tolist()),
        ss_object_id=ztf.solar_system_ids(raw["ssnamenr"], status),
        object_name=ascii_names(raw["object_name"].tolist()),
        midpoint_mjd_tai=time,
        ra=raw["ra"],
        dec=raw["dec"],
        band=band,
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        reliability=not_negative(raw["reliability"]),
        solar_system_status=status,
        flags=own["flags"],
        packet=_packet(raw, psf_flux, psf_flux_err, status, band),
        points=join_rows(own, [_detections(raw.children["history"], source.known_at)]),
        schema_version=ascii_names(raw["schema_version"].tolist()),
        **source.provenance(),
    )


def to_ab(mag: F64, band: U8) -> F64:
    """AB magnitudes of WINTER's.  mag : (n,);  band : (n,) index into BANDS;  NaN in any other band."""
    return np.where(band == band_index(AB_BAND), mag, vega_to_ab(mag, band))


def _flux(magpsf: F64, sigmapsf: F64, isdiffpos: F64, band: U8) -> tuple[F64, F64]:
    """Signed difference flux and its error [nJy].  isdiffpos : (n,) 1 for positive, 0 for negative."""
    signs = np.where(isdiffpos == 1.0, 1.0, np.where(isdiffpos == 0.0, -1.0, np.nan))
    return ztf.difference_flux(to_ab(magpsf, band), sigmapsf, signs)


def _packet(raw: RawColumns, psf_flux: F64, psf_flux_err: F64, status: U8, band: U8) -> dict[str, F64]:
    moving = (status == SS_ASSOCIATED) | (status == SS_NEARBY)
    known = ztf.exposure_known(raw["exptime"])
    return packet_columns(
        raw.length,
        {
            "snr": np.abs(psf_flux) / positive(psf_flux_err),
            "limiting_mag": to_ab(not_negative(raw["diffmaglim"]), band),
            "exposure_time_s": np.where(known, raw["exptime"], STANDARD_EXPOSURE_S),
            "star_score": not_negative(raw["sgscore1"]),
            "star_sep_arcsec": not_negative(raw["distpsnr1"]),
            "neargaia_arcsec": not_negative(raw["neargaia"]),
            "bright_star_sep_arcsec": not_negative(raw["neargaiabright"]),
            "solar_system.sep_arcsec": without(raw["ssdistnr"], ~moving),
            "solar_system.v_mag_predicted": without(positive(raw["ssmagnr"]), ~moving),
            "nucleus_offset_arcsec": not_negative(raw["distnr"]),
            "neargaia_mag": positive(raw["maggaia"]),
            "position_scatter_arcsec": ztf.detections_scatter(raw),
            **ztf.ps1_columns(raw, "riz"),
        },
    )


def _detections(history: Child, known_at: U32) -> tuple[Points, I64]:
    """The history; it has no non-detections."""
    time, assumed = ztf.midpoint(history["jd"], np.full(len(history["jd"]), np.nan), STANDARD_EXPOSURE_S)
    band = numbered_bands(history["fid"], FID_BAND)
    psf_flux, psf_flux_err = _flux(history["magpsf"], history["sigmapsf"], history["isdiffpos"], band)
    points = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=history["candid"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[history.row],
        band=band,
        flags=assumed,
    )
    keep = (history["candid"] != 0) & np.isfinite(time)
    return points[keep], history.row[keep]


SURVEY = Survey(
    name="winter",
    required=(
        ("objectid",),
        ("candid",),
        ("candidate.jd",),
        ("candidate.fid",),
        ("candidate.ra",),
        ("candidate.dec",),
        ("candidate.magpsf",),
        ("candidate.sigmapsf",),
        ("candidate.isdiffpos",),
    ),
    layout=LAYOUT,
    normalise=normalise,
    bands=("y", "J", "H"),
    topics=("^winter_replay$",),
    needs_object=True,
)
