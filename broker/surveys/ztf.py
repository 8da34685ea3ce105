"""ZTF alert packets, schema 1.8 to 4.02.

What needs care, and is done here once: `jd` is UTC at the start of the exposure; magnitudes are of the
absolute difference flux with the sign beside them; the history's non-detections have only a limit; forced
photometry is in DN with a zero point an epoch; unknown numbers are -999 or -99999.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from broker.astro.bands import ZTF_FID_BAND
from broker.astro.photometry import (
    MAG_PER_LN_FLUX,
    limit_to_njy_err,
    mag_err_to_njy_err,
    mag_to_njy,
    njy_to_mag,
)
from broker.astro.times import SECONDS_PER_DAY, jd_utc_start_to_mjd_tai
from broker.batch import SS_ASSOCIATED, SS_NEARBY, SS_NONE, SS_UNKNOWN, AlertBatch
from broker.lightcurves import (
    DETECTION,
    FLAG_OWN,
    FLAG_PRIVATE,
    FLAG_TIME_ASSUMED,
    FLAG_UNUSED,
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
    finite,
    flag,
    join_rows,
    make_points,
    not_negative,
    numbered_bands,
    packet_columns,
    position_scatter_arcsec,
    positive,
    without,
)
from broker.surveys.columns import Child, ChildTable, Field, Layout, RawColumns

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

REFERENCE_REACH_ARCSEC = 1.4
"""A reference source this near is the object itself: its flux adds to the difference."""
ASSOCIATED_ARCSEC = 5.0
"""A known solar-system object this near is taken to be the detection; up to 30 arcsec it is nearby."""
PIXEL_SCALE_ARCSEC = 1.012
"""Size of a pixel: the packet's fwhm is in pixels (Dekany et al. 2020, PASP 132, 038001)."""
_NO_FLUX_DN = -90_000.0
"""Forced photometry at or below this is the sentinel -99999, not a flux."""
_LONGEST_EXPOSURE_S = 3600.0

PS1_SOURCES = 3
"""Nearest Pan-STARRS 1 sources that a packet names, the nearest first."""
GALAXY_LIKE = 0.5
"""Star/galaxy score (1 star, 0 galaxy) below which a source is taken for a galaxy; at just this it is unknown
(Tachibana & Miller 2018, PASP 130, 128001)."""
PS1_FIELDS = (
    *(Field(f"s{band}mag1", "float", (f"candidate.s{band}mag1",)) for band in "giz"),
    *(
        Field(f"{name}{number}", "float", (f"candidate.{name}{number}",))
        for number in range(1, PS1_SOURCES + 1)
        for name in ("srmag", "sgscore", "distpsnr")
    ),
)
"""What of the Pan-STARRS sources is read."""

LAYOUT = Layout(
    alert=(
        Field("dia_source_id", "int", ("candid",)),
        Field("object_name", "text", ("objectId",)),
        Field("schema_version", "text", ("schemavsn",)),
        Field("jd", "float", ("candidate.jd",)),
        Field("exptime", "float", ("candidate.exptime",)),
        Field("fid", "int", ("candidate.fid",)),
        Field("programid", "int", ("candidate.programid",)),
        Field("ra", "float", ("candidate.ra",)),
        Field("dec", "float", ("candidate.dec",)),
        Field("magpsf", "float", ("candidate.magpsf",)),
        Field("sigmapsf", "float", ("candidate.sigmapsf",)),
        Field("isdiffpos", "text", ("candidate.isdiffpos",)),
        Field("diffmaglim", "float", ("candidate.diffmaglim",)),
        Field("reliability", "float", ("candidate.drb", "candidate.rb")),
        Field("magnr", "float", ("candidate.magnr",)),
        Field("distnr", "float", ("candidate.distnr",)),
        *PS1_FIELDS,
        Field("neargaia", "float", ("candidate.neargaia",)),
        Field("maggaia", "float", ("candidate.maggaia",)),
        Field("neargaiabright", "float", ("candidate.neargaiabright",)),
        Field("ssdistnr", "float", ("candidate.ssdistnr",)),
        Field("ssmagnr", "float", ("candidate.ssmagnr",)),
        Field("ssnamenr", "text", ("candidate.ssnamenr",)),
        Field("fwhm", "float", ("candidate.fwhm",)),
    ),
    children=(
        ChildTable(
            "history",
            "prv_candidates",
            (
                Field("candid", "int", ("candid",)),
                Field("pid", "int", ("pid",)),
                Field("jd", "float", ("jd",)),
                Field("exptime", "float", ("exptime",)),
                Field("fid", "int", ("fid",)),
                Field("programid", "int", ("programid",)),
                Field("ra", "float", ("ra",)),
                Field("dec", "float", ("dec",)),
                Field("magpsf", "float", ("magpsf",)),
                Field("sigmapsf", "float", ("sigmapsf",)),
                Field("isdiffpos", "text", ("isdiffpos",)),
                Field("diffmaglim", "float", ("diffmaglim",)),
            ),
        ),
        ChildTable(
            "forced",
            "fp_hists",
            (
                Field("pid", "int", ("pid",)),
                Field("jd", "float", ("jd",)),
                Field("exptime", "float", ("exptime",)),
                Field("fid", "int", ("fid",)),
                Field("programid", "int", ("programid",)),
                Field("flux_dn", "float", ("forcediffimflux",)),
                Field("flux_err_dn", "float", ("forcediffimfluxunc",)),
                Field("magzpsci", "float", ("magzpsci",)),
                Field("magzpsciunc", "float", ("magzpsciunc",)),
                Field("procstatus", "text", ("procstatus",)),
            ),
        ),
    ),
    cutouts=(("cutoutScience.stampData",), ("cutoutTemplate.stampData",), ("cutoutDifference.stampData",)),
)
"""Our raw columns and where ZTF's packets keep them."""


def normalise(raw: RawColumns, source: Source) -> AlertBatch:
    """ZTF's columns in everybody's words and units."""
    time, assumed = midpoint(raw["jd"], raw["exptime"])
    psf_flux, psf_flux_err = difference_flux(raw["magpsf"], raw["sigmapsf"], sign(raw["isdiffpos"]))
    status = solar_system_status(raw["ssdistnr"])
    band = fid_to_band(raw["fid"])
    own = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=raw["dia_source_id"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=source.known_at,
        band=band,
        flags=assumed | private(raw["programid"]) | np.uint16(FLAG_OWN),
    )
    return AlertBatch(
        survey="ztf",
        dia_source_id=raw["dia_source_id"],
        dia_object_id=object_id_to_int(raw["object_name"]),
        ss_object_id=solar_system_ids(raw["ssnamenr"], status),
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
        packet=_packet(raw, psf_flux, psf_flux_err, status),
        points=_points(raw, own, source),
        schema_version=_versions(raw, source),
        **source.provenance(),
    )


def _versions(raw: RawColumns, source: Source) -> npt.NDArray[np.bytes_]:
    """The packet's own version; the writer schema's where the packet has none (before 3.0)."""
    written = [schema.version for schema in source.schemas]
    return ascii_names([own or other for own, other in zip(raw["schema_version"], written, strict=True)])


def _packet(raw: RawColumns, psf_flux: F64, psf_flux_err: F64, status: U8) -> dict[str, F64]:
    near = (raw["distnr"] >= 0.0) & (raw["distnr"] < REFERENCE_REACH_ARCSEC) & (raw["magnr"] > 0.0)
    reference = without(mag_to_njy(raw["magnr"]), ~near)
    unknown = raw["sgscore1"] == 0.5
    moving = (status == SS_ASSOCIATED) | (status == SS_NEARBY)
    exposure = raw["exptime"]
    return packet_columns(
        raw.length,
        {
            "snr": np.abs(psf_flux) / positive(psf_flux_err),
            "mag_total": njy_to_mag(reference + psf_flux),
            "reference_flux": reference,
            "limiting_mag": not_negative(raw["diffmaglim"]),
            "exposure_time_s": np.where(exposure_known(exposure), exposure, STANDARD_EXPOSURE_S),
            "star_score": without(not_negative(raw["sgscore1"]), unknown),
            "star_sep_arcsec": not_negative(raw["distpsnr1"]),
            "neargaia_arcsec": not_negative(raw["neargaia"]),
            "bright_star_sep_arcsec": not_negative(raw["neargaiabright"]),
            "solar_system.sep_arcsec": without(raw["ssdistnr"], ~moving),
            "solar_system.v_mag_predicted": without(positive(raw["ssmagnr"]), ~moving),
            "fwhm_arcsec": positive(raw["fwhm"]) * PIXEL_SCALE_ARCSEC,
            "programid": raw["programid"].astype(np.float64),
            "nucleus_offset_arcsec": not_negative(raw["distnr"]),
            "neargaia_mag": positive(raw["maggaia"]),
            "position_scatter_arcsec": detections_scatter(raw),
            **ps1_columns(raw),
        },
    )


def ps1_columns(raw: RawColumns, bands: str = "griz") -> dict[str, F64]:
    """Host and counterpart (in some bands), from the three nearest Pan-STARRS sources; below 0 is unknown."""
    host_sep, host_mag = nearest_galaxy(
        *(
            np.stack([raw[f"{name}{number}"] for number in range(1, PS1_SOURCES + 1)])
            for name in ("sgscore", "distpsnr", "srmag")
        )
    )
    counterpart = {f"counterpart_mag_{band}": positive(raw[f"s{band}mag1"]) for band in bands}
    return {"host_sep_arcsec": host_sep, "host_mag": host_mag, **counterpart}


def nearest_galaxy(score: F64, separation: F64, mag: F64) -> tuple[F64, F64]:
    """Distance and magnitude of the nearest galaxy-like of some sources.

    score : (k, n) 1 star .. 0 galaxy;  separation : (k, n) [arcsec];  mag : (k, n); below 0 is unknown
    Returns (n,) [arcsec] and (n,) [mag]; NaN where none is like a galaxy, or its magnitude is not known.
    """
    likely = (score >= 0.0) & (score < GALAXY_LIKE) & (separation >= 0.0)
    reach = np.where(likely, separation, np.inf)
    nearest = reach.argmin(axis=0)[None]
    found = np.take_along_axis(reach, nearest, axis=0)[0]
    host_mag = positive(np.take_along_axis(mag, nearest, axis=0)[0])
    return finite(found), without(host_mag, np.isinf(found))


def detections_scatter(raw: RawColumns) -> F64:
    """Scatter of the place of the alert's detections.  Returns (n,) [arcsec].

    Limits do not count, nor the alert itself where its history repeats it.
    """
    history = raw.children["history"]
    row, candid = history.row, history["candid"]
    other = (candid != 0) & (candid != raw["dia_source_id"][row])
    return position_scatter_arcsec(raw["ra"], raw["dec"], without(history["ra"], ~other), history["dec"], row)


def _points(raw: RawColumns, own: Points, source: Source) -> LightCurves:
    """The own points, then the history's detections, its limits and the forced points."""
    history, forced = raw.children["history"], raw.children["forced"]
    known_at = source.known_at
    groups = [
        _detections(history, known_at),
        _limits(history, known_at),
        _forced(forced, known_at),
    ]
    return join_rows(own, groups)


def _detections(history: Child, known_at: npt.NDArray[np.uint32]) -> tuple[Points, I64]:
    time, assumed = midpoint(history["jd"], history["exptime"])
    psf_flux, psf_flux_err = difference_flux(
        history["magpsf"], history["sigmapsf"], sign(history["isdiffpos"])
    )
    points = make_points(
        DETECTION,
        midpoint_mjd_tai=time,
        source_id=history["candid"],
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[history.row],
        band=fid_to_band(history["fid"]),
        flags=assumed | private(history["programid"]),
    )
    keep = (history["candid"] != 0) & np.isfinite(time)
    return points[keep], history.row[keep]


def _limits(history: Child, known_at: npt.NDArray[np.uint32]) -> tuple[Points, I64]:
    """Non-detections; one whose limit is missing or negative says nothing and is left out."""
    time, assumed = midpoint(history["jd"], history["exptime"])
    error = limit_to_njy_err(history["diffmaglim"])
    points = make_points(
        LIMIT,
        midpoint_mjd_tai=time,
        source_id=exposure_id(history["pid"], history["jd"]),
        psf_flux=np.full(len(time), np.nan),
        psf_flux_err=error,
        known_at=known_at[history.row],
        band=fid_to_band(history["fid"]),
        flags=assumed | private(history["programid"]),
    )
    keep = (history["candid"] == 0) & np.isfinite(time) & np.isfinite(error)
    return points[keep], history.row[keep]


def _forced(forced: Child, known_at: npt.NDArray[np.uint32]) -> tuple[Points, I64]:
    """Forced photometry; status other than "0" is kept but not used, the sentinel -99999 is left out."""
    time, assumed = midpoint(forced["jd"], forced["exptime"])
    psf_flux, psf_flux_err = forced_flux(
        forced["flux_dn"], forced["flux_err_dn"], forced["magzpsci"], forced["magzpsciunc"]
    )
    doubtful = flag(FLAG_UNUSED, forced["procstatus"] != "0")
    points = make_points(
        FORCED,
        midpoint_mjd_tai=time,
        source_id=exposure_id(forced["pid"], forced["jd"]),
        psf_flux=psf_flux,
        psf_flux_err=psf_flux_err,
        known_at=known_at[forced.row],
        band=fid_to_band(forced["fid"]),
        flags=assumed | private(forced["programid"]) | doubtful,
    )
    keep = np.isfinite(psf_flux) & np.isfinite(psf_flux_err) & np.isfinite(time)
    return points[keep], forced.row[keep]


def midpoint(
    jd: F64, exptime: F64, standard_s: float = STANDARD_EXPOSURE_S
) -> tuple[F64, npt.NDArray[np.uint16]]:
    """Mid-exposure time, and FLAG_TIME_ASSUMED where the exposure time is not given.

    jd : (n,) [day, UTC, start of exposure];  exptime : (n,) [s], NaN if not given (then `standard_s`)
    Returns (n,) [MJD, TAI] and (n,) flags.
    """
    known = exposure_known(exptime)
    time = jd_utc_start_to_mjd_tai(jd, np.where(known, exptime, standard_s))
    return time, flag(FLAG_TIME_ASSUMED, ~known)


def exposure_known(exptime: F64) -> Mask:
    """Whether an exposure time is given and can be one.  exptime : (n,) [s]."""
    return (exptime > 0.0) & (exptime <= _LONGEST_EXPOSURE_S)


def difference_flux(magpsf: F64, sigmapsf: F64, signs: F64) -> tuple[F64, F64]:
    """Signed difference flux and its error.

    magpsf : (n,) [AB mag] of the absolute flux;  sigmapsf : (n,) [mag];  signs : (n,) 1, -1 or NaN
    Returns (n,) and (n,) [nJy]; NaN where the magnitude is missing or the sign is not known.
    """
    flux = finite(signs * mag_to_njy(magpsf))
    error = finite(mag_err_to_njy_err(flux, sigmapsf))
    return flux, without(error, error < 0.0)


def sign(isdiffpos: npt.NDArray[np.str_]) -> F64:
    """+1 or -1 for the spellings of isdiffpos that ZTF has used; NaN for anything else.

    >>> sign(np.array(["t", "1", "f", "0", ""])).tolist()
    [1.0, 1.0, -1.0, -1.0, nan]
    """
    positive = np.isin(isdiffpos, ("t", "1", "T", "true", "True"))
    negative = np.isin(isdiffpos, ("f", "0", "F", "false", "False"))
    return np.where(positive, 1.0, np.where(negative, -1.0, np.nan))


def forced_flux(flux_dn: F64, flux_err_dn: F64, zero_point: F64, zero_point_err: F64) -> tuple[F64, F64]:
    """Forced difference flux and its error.

    flux_dn, flux_err_dn : (n,) [DN];  zero_point, zero_point_err : (n,) [AB mag of 1 DN]
    Returns (n,) and (n,) [nJy]; NaN for the sentinel -99999 or a missing value. The zero point's error
    (taken as 0 where not given) adds in quadrature.
    """
    missing = (flux_dn <= _NO_FLUX_DN) | ~(flux_err_dn >= 0.0) | ~(zero_point > 0.0)
    scale = mag_to_njy(without(zero_point, missing))
    flux = finite(flux_dn * scale)
    systematic = np.nan_to_num(zero_point_err, posinf=0.0, neginf=0.0) / MAG_PER_LN_FLUX * flux
    return flux, finite(np.hypot(flux_err_dn * scale, systematic))


def fid_to_band(fid: I64) -> U8:
    """(n,) ZTF filter numbers to indices into BANDS."""
    return numbered_bands(fid, ZTF_FID_BAND)


def private(programid: I64) -> npt.NDArray[np.uint16]:
    """(n,) FLAG_PRIVATE for the partnership's (2) and Caltech's (3) programmes."""
    return flag(FLAG_PRIVATE, (programid == 2) | (programid == 3))


def exposure_id(pid: I64, jd: F64) -> I64:
    """What tells an exposure from others: its processing id, else its start in ms (never so small a pid)."""
    start_ms = np.round(np.nan_to_num(jd, posinf=0.0, neginf=0.0) * SECONDS_PER_DAY * 1000.0)
    return np.where(pid != 0, pid, np.clip(start_ms, -(2.0**62), 2.0**62).astype(np.int64))


def solar_system_status(ssdistnr: F64) -> U8:
    """Whether a known solar-system object is at the place, from its distance.

    ssdistnr : (n,) [arcsec], negative for none within 30 arcsec, NaN if not given;  returns (n,) SS_*.
    """
    status = np.where(ssdistnr <= 30.0, SS_NEARBY, SS_NONE)
    status = np.where(ssdistnr <= ASSOCIATED_ARCSEC, SS_ASSOCIATED, status)
    status = np.where(ssdistnr < 0.0, SS_NONE, status)
    return np.where(np.isnan(ssdistnr), SS_UNKNOWN, status).astype(np.uint8)


def solar_system_ids(names: npt.NDArray[np.str_], status: U8) -> I64:
    """The id of the associated solar-system object; 0 if there is none.

    names : (n,) text: a number, or a designation such as '2010 EQ133' or '2020XV4';  status : (n,) SS_*
    Returns (n,): the number itself, else 63 bits of the BLAKE2b hash of the designation without blanks in
    upper case. Both are stable across nights and machines, and no hash is as small as a number.
    """
    associated = status == SS_ASSOCIATED
    ids = [_solar_system_id(name) if near else 0 for name, near in zip(names, associated, strict=True)]
    return np.array(ids, dtype=np.int64)


def _solar_system_id(name: str) -> int:
    text = "".join(name.split()).upper()
    if text in ("", "NULL", "NONE"):
        return 0
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & (2**63 - 1) | 2**32


_LETTERS = 7
_NAMES_A_YEAR = 26**_LETTERS


def object_id_to_int(names: npt.ArrayLike) -> I64:
    """ZTF object names as numbers of 40 bits: 'ZTF', two digits, seven letters; 0 for anything else.

    names : (n,) text or ASCII bytes;  returns (n,): 1 + digits * 26^7 + the letters in base 26.

    >>> object_id_to_int(["ZTF00aaaaaaa", "ZTF21abiuvdk", "nonsense"]).tolist()
    [1, 168683916685, 0]
    """
    texts = np.asarray(names)
    if texts.dtype.kind == "U":
        texts = ascii_names(texts.tolist())
    codes = texts.astype("S13").view(np.uint8).reshape(-1, 13).astype(np.int64)
    digits, letters = codes[:, 3:5] - ord("0"), codes[:, 5:12] - ord("a")
    good = (codes[:, :3] == np.frombuffer(b"ZTF", dtype=np.uint8)).all(axis=1) & (codes[:, 12] == 0)
    good &= ((digits >= 0) & (digits <= 9)).all(axis=1) & ((letters >= 0) & (letters < 26)).all(axis=1)
    number = digits @ np.array([10, 1]) * _NAMES_A_YEAR + letters @ 26 ** np.arange(_LETTERS)[::-1]
    return np.where(good, 1 + number, 0)


def int_to_object_id(ids: npt.ArrayLike) -> npt.NDArray[np.bytes_]:
    """Inverse of `object_id_to_int`; b'' for a number that is no name.

    >>> int_to_object_id([1, 0]).tolist()
    [b'ZTF00aaaaaaa', b'']
    """
    numbers = np.asarray(ids, dtype=np.int64)
    good = (numbers >= 1) & (numbers <= 100 * _NAMES_A_YEAR)
    year, rest = np.divmod(np.where(good, numbers - 1, 0), _NAMES_A_YEAR)
    codes = np.empty((len(numbers), 12), dtype=np.uint8)
    codes[:, :3] = np.frombuffer(b"ZTF", dtype=np.uint8)
    codes[:, 3], codes[:, 4] = year // 10 + ord("0"), year % 10 + ord("0")
    codes[:, 5:] = rest[:, None] // 26 ** np.arange(_LETTERS)[::-1] % 26 + ord("a")
    return np.where(good, codes.reshape(-1).view("S12"), b"")


SURVEY = Survey(
    name="ztf",
    required=(
        ("objectId",),
        ("candid",),
        ("candidate.jd",),
        ("candidate.fid",),
        ("candidate.pid",),
        ("candidate.programid",),
        ("candidate.ra",),
        ("candidate.dec",),
        ("candidate.magpsf",),
        ("candidate.sigmapsf",),
        ("candidate.isdiffpos",),
    ),
    layout=LAYOUT,
    normalise=normalise,
    bands=("g", "r", "i"),
    topics=("^ztf_[0-9]{8}_programid1$", "^ztf_replay$"),
    needs_object=True,
)
