"""What a packet says, worked out one record at a time from the formats' description.

Independent of the package: records by fastavro, times by astropy.time, magnitudes by astropy.units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.time import Time

NAN = math.nan
DETECTION, FORCED, LIMIT = 0, 1, 2
OWN, ASSUMED, PRIVATE, WITHDRAWN, UNUSED = 1, 2, 4, 8, 16
BANDS = {"u": 0, "g": 1, "r": 2, "i": 3, "z": 4, "y": 5, "Y": 5, "J": 6, "H": 7, "c": 8, "o": 9, None: 255}
ZERO_JY = {"J": 1594.0, "H": 1024.0}
"""Flux of Vega magnitude 0 in 2MASS's bands."""


@dataclass
class Expected:
    """One point: time is MJD TAI, mid-exposure; fluxes in nJy."""

    kind: int
    source_id: int
    band: int
    time: float
    flux: float
    error: float
    flags: int


def njy(mag: float) -> float:
    return float((mag * u.ABmag).to_value(u.nJy))


def times(jd_starts: list[float], exposures: list[float]) -> np.ndarray:
    """Mid-exposure MJD TAI of UTC starts."""
    start = Time(np.array(jd_starts), np.zeros(len(jd_starts)), format="jd", scale="utc")
    return (start.tai + np.array(exposures) / 2 * u.s).mjd if jd_starts else np.zeros(0)


def _mag_flux(point: dict[str, Any]) -> tuple[float, float]:
    sign = {"t": 1, "1": 1, "f": -1, "0": -1}[point["isdiffpos"]]
    flux = sign * njy(point["magpsf"])
    return flux, abs(flux) * math.log(10) / 2.5 * point["sigmapsf"]


def ztf_points(record: dict[str, Any]) -> list[Expected]:
    """The own point, then detections, limits and forced points in the packet's order."""
    candidate = record["candidate"]
    exposure = candidate.get("exptime")
    own = _ztf_point(DETECTION, record["candid"], candidate, *_mag_flux(candidate), OWN)
    history = record["prv_candidates"] or []
    found = [
        _ztf_point(DETECTION, p["candid"], p, *_mag_flux(p), 0) for p in history if p["candid"] is not None
    ]
    limits = [
        _ztf_point(LIMIT, p["pid"], p, NAN, njy(p["diffmaglim"]) / 5, 0)
        for p in history
        if p["candid"] is None and p["diffmaglim"] is not None and p["diffmaglim"] >= 0
    ]
    given = [p for p in record.get("fp_hists") or [] if (p["forcediffimflux"] or -99999) > -99998]
    forced = [_ztf_forced(p) for p in given]
    exposures = [exposure or 30.0] + [30.0] * (len(found) + len(limits)) + [p["exptime"] for p in given]
    points = [own, *found, *limits, *forced]
    for point, time in zip(points, times([p.time for p in points], exposures), strict=True):
        point.time = float(time)
    own.flags |= 0 if exposure else ASSUMED
    for point in found + limits:
        point.flags |= ASSUMED
    return points


def _ztf_point(
    kind: int, source_id: int, point: dict[str, Any], flux: float, error: float, flags: int
) -> Expected:
    band = {1: 1, 2: 2, 3: 3}[point["fid"]]
    private = PRIVATE if point["programid"] in (2, 3) else 0
    return Expected(kind, source_id, band, point["jd"], flux, error, flags | private)


def _ztf_forced(p: dict[str, Any]) -> Expected:
    scale = njy(p["magzpsci"])
    flux = p["forcediffimflux"] * scale
    systematic = math.log(10) / 2.5 * flux * p["magzpsciunc"]
    error = math.sqrt((p["forcediffimfluxunc"] * scale) ** 2 + systematic**2)
    return _ztf_point(FORCED, p["pid"], p, flux, error, 0 if p["procstatus"] == "0" else UNUSED)


def _get(record: dict[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _number(value: Any) -> float:
    return NAN if value is None else float(value)


def lsst_points(record: dict[str, Any], unit: float = 1.0, forced_name: str = "ccdVisitId") -> list[Expected]:
    """The own point, then detections, limits and forced points in the packet's order."""
    own = _lsst_point(DETECTION, record["diaSource"]["diaSourceId"], record["diaSource"], unit)
    own.flags |= OWN
    points = [own]
    points += [_lsst_point(DETECTION, p["diaSourceId"], p, unit) for p in record.get("prvDiaSources") or []]
    for p in record.get("prvDiaNondetectionLimits") or []:
        limit = _lsst_point(LIMIT, p["ccdVisitId"], p, unit)
        limit.error = p["diaNoise"] * unit
        points.append(limit)
    for p in record.get("prvDiaForcedSources") or []:
        image = p["visit"] * 256 + p["detector"] if "visit" in p else p[forced_name]
        points.append(_lsst_point(FORCED, image, p, unit))
    return points


def _lsst_point(kind: int, source_id: int, p: dict[str, Any], unit: float) -> Expected:
    time = _number(_get(p, "midpointMjdTai", "midPointTai"))
    flux = _number(_get(p, "psfFlux", "psFlux")) * unit
    error = _number(_get(p, "psfFluxErr", "psFluxErr")) * unit
    doubtful = p.get("psfFlux_flag") is True or time > 90_000 or (kind != LIMIT and math.isnan(flux))
    withdrawn = (p.get("timeWithdrawnMjdTai") or 0.0) > 0.0  # some write NaN or 0 for null
    flags = (UNUSED if doubtful else 0) | (WITHDRAWN if withdrawn else 0)
    if time > 1e9:  # some official samples hold seconds
        time = float(Time(time, format="unix").tai.mjd)
    return Expected(kind, source_id, BANDS[_get(p, "band", "filterName")], time, flux, error, flags)


def vega_njy(mag: float, band: str) -> float:
    """Flux of a Vega magnitude in one of 2MASS's bands."""
    return float((ZERO_JY[band] * 10 ** (-0.4 * mag) * u.Jy).to_value(u.nJy))


def _relative(flux: float, mag_error: float) -> float:
    return abs(flux) * math.log(10) / 2.5 * mag_error


def atlas_points(record: dict[str, Any]) -> list[Expected]:
    """The own point; the identity is the name's digits."""
    c = record["candidate"]
    flux, error = (float((c[name] * u.uJy).to_value(u.nJy)) for name in ("flux", "Dflux"))
    identity = int("".join(letter for letter in record["candid"] if letter.isdigit()))
    time = float(Time(c["mjd"], format="mjd", scale="utc").tai.mjd)
    return [Expected(DETECTION, identity, BANDS[c["filter"]], time, flux, abs(error), OWN)]


def decam_points(record: dict[str, Any]) -> list[Expected]:
    """The own point, then the forced points; an exposure is told by its start in ms."""
    own = record["candidate"]
    rows = [(DETECTION, record["candid"], own, OWN | ASSUMED)]
    rows += [(FORCED, round(p["mjd"] * 86_400_000), p, ASSUMED) for p in record["fp_hists"]]
    starts = Time([p["mjd"] for _, _, p, _ in rows], format="mjd", scale="utc").tai
    found = (starts + 15 * u.s).mjd
    return [
        Expected(kind, identity, BANDS[p["band"]], float(time), p["psfFlux"], p["psfFluxErr"], flags)
        for (kind, identity, p, flags), time in zip(rows, found, strict=True)
    ]


def pgir_points(record: dict[str, Any]) -> list[Expected]:
    """The own point, then the history's detections, then its limits."""
    own, history = record["candidate"], record["prv_candidates"] or []
    seen = [p for p in history if p["candid"] is not None]
    limits = [p for p in history if p["candid"] is None and (p["diffmaglim"] or -1) >= 0]
    rows = [(DETECTION, own["candid"], own, OWN)]
    rows += [(DETECTION, p["candid"], p, ASSUMED) for p in seen]
    rows += [(LIMIT, p["stackquadid"], p, ASSUMED) for p in limits]
    found = times([p["jd"] for _, _, p, _ in rows], [own["exptime"]] + [71.26] * (len(rows) - 1))
    points = []
    for (kind, identity, p, flags), time in zip(rows, found, strict=True):
        flux = NAN if kind == LIMIT else vega_njy(p["magpsf"], "J") * (1 if p["isdiffpos"] == "1" else -1)
        error = vega_njy(p["diffmaglim"], "J") / 5 if kind == LIMIT else _relative(flux, p["sigmapsf"])
        points.append(Expected(kind, identity, BANDS["J"], float(time), flux, error, flags))
    return points


def winter_points(record: dict[str, Any]) -> list[Expected]:
    """The own point, then the history's detections."""
    own = record["candidate"]
    flags = OWN | (UNUSED if own["deprecated"] else 0)
    rows = [(own, flags), *((p, ASSUMED) for p in record["prv_candidates"] or [])]
    found = times([p["jd"] for p, _ in rows], [own["exptime"]] + [120.0] * (len(rows) - 1))
    points = []
    for (p, flags), time in zip(rows, found, strict=True):
        band = {1: "y", 2: "J", 3: "H"}[p["fid"]]
        bright = njy(p["magpsf"]) if band == "y" else vega_njy(p["magpsf"], band)
        flux = bright * (1 if p["isdiffpos"] else -1)
        error = _relative(flux, p["sigmapsf"])
        points.append(Expected(DETECTION, p["candid"], BANDS[band], float(time), flux, error, flags))
    return points
