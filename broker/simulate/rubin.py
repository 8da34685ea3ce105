"""Rubin alert packets (schema 11.0, Confluent framing) from the same detections."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple

import erfa
import numpy as np

from broker import schemas
from broker.astro.sky import ARCSEC_PER_DEGREE
from broker.astro.times import SECONDS_PER_DAY
from broker.errors import SchemaError
from broker.simulate import avro
from broker.simulate.cadence import LSST, Exposure
from broker.simulate.objects import COLOUR_STEP, SkyObject
from broker.simulate.observe import Detection, Measurement
from broker.simulate.stamps import ARTEFACT_DIPOLE, fits, triplet

Encoder = Callable[[avro.Row], bytes]

SCHEMA_ID = 1100
STAMP_SIDE = 30
MJD_ZERO = date(1858, 11, 17)
PROCESSING_DAYS = 100.0 / SECONDS_PER_DAY
FORCED_BEFORE_DAYS = 30.0
"""Forced photometry reaches this far back from an object's first detection."""
OBJECT_BASE, OBJECT_ROOM = 170_000_000_000_000_000, 10**15
SOLAR_SYSTEM_BASE = 20_000_000_000_000_000
SPREAD = 2_345_678_917
"""Without a factor in common with 10: multiplying by it keeps object numbers apart."""


class _Encoders(NamedTuple):
    source: Encoder
    forced: Encoder
    dia_object: Encoder
    ss_source: Encoder
    flags: dict[str, bool]


@cache
def _encoders() -> _Encoders:
    """Encoders of the schema's records, and all its flags, none of them raised."""
    schema = schemas.lsst_schema(SCHEMA_ID)
    if schema is None:
        raise SchemaError(
            f"Rubin schema {SCHEMA_ID} is missing from {schemas.schemas_dir()}; reinstall the package"
        )
    records = [
        avro.record_in(schema, name) for name in ("diaSource", "prvDiaForcedSources", "diaObject", "ssSource")
    ]
    flags = {f["name"]: False for f in records[0]["fields"] if f["type"] == ["null", "boolean"]}
    source, forced, dia_object, ss_source = (avro.row_encoder(record) for record in records)
    return _Encoders(source, forced, dia_object, ss_source, flags)


def packet(detection: Detection, seed: int) -> bytes:
    """The alert as a Kafka value: magic byte, schema id, datum."""
    sky_object, now = detection.sky_object, detection.now
    dia_object_id = 0 if sky_object.moves else object_number(detection, seed)
    old = _rows([m for m in detection.past if m.detected], sky_object, dia_object_id, 0)
    points = _forced_points(detection)
    forced = _rows(points, sky_object, dia_object_id, 1)
    body = [struct.pack(">bi", 0, SCHEMA_ID), avro.long(source_id(now)), avro.NULL, avro.NULL]
    body += [_encoders().source(source(sky_object, now, dia_object_id))]
    body += [avro.SECOND + avro.array(old) if old else avro.NULL]
    body += [avro.SECOND + avro.array(forced) if forced else avro.NULL]
    body += [_summary(detection, dia_object_id, points), _solar_system(detection), avro.NULL]
    science, template, difference = triplet(detection, STAMP_SIDE, LSST.pixel_arcsec, 1.0)
    body += [avro.SECOND + avro.blob(fits(image, "nJy")) for image in (difference, science, template)]
    return b"".join(body)


def object_id(detection: Detection, seed: int) -> str:
    """What the alert is about: the decimal diaObjectId, or a moving object's designation."""
    if detection.sky_object.moves:
        return designation(detection.sky_object)
    return str(object_number(detection, seed))


def object_number(detection: Detection, seed: int) -> int:
    """The diaObjectId; not meaningful for moving objects."""
    return OBJECT_BASE + (detection.object_number * SPREAD + seed * 1_000_003) % OBJECT_ROOM


def designation(sky_object: SkyObject) -> str:
    """Name of a moving object: its number."""
    return str(int(sky_object.p["number"]))


def source_id(m: Measurement) -> int:
    """The diaSourceId: visit, detector, number on the detector."""
    return visit_id(m.exposure) * 1_000_000 + m.detector * 1000 + m.rank


@lru_cache(maxsize=16384)
def visit_id(exposure: Exposure) -> int:
    """Rubin's `visit`: date and a number in the night."""
    day = MJD_ZERO + timedelta(days=exposure.night)
    return int(day.strftime("%Y%m%d")) * 100_000 + 200 + exposure.visit


def source(sky_object: SkyObject, m: Measurement, dia_object_id: int) -> dict[str, Any]:
    """A diaSource; what is left out is null."""
    return {
        **_encoders().flags,
        **_place(m),
        **_fluxes(sky_object, m),
        **_form(sky_object, m),
        "diaSourceId": source_id(m),
        "diaObjectId": dia_object_id or None,
        "ssObjectId": solar_system_id(sky_object) if sky_object.moves else 0,
        "parentDiaSourceId": 0,
        "timeProcessedMjdTai": m.exposure.midpoint_mjd_tai + PROCESSING_DAYS,
        "bboxSize": 10,
        "psfNdata": 1681,
        "trailNdata": 0,
        "dipoleNdata": 0,
    }


def solar_system_id(sky_object: SkyObject) -> int:
    """The ssObjectId of a moving object."""
    return SOLAR_SYSTEM_BASE + int(sky_object.p["number"])


def _place(m: Measurement) -> dict[str, Any]:
    """Where and when."""
    error = m.exposure.seeing_arcsec / 2.355 * m.flux_err / abs(m.flux)
    return {
        "visit": visit_id(m.exposure),
        "detector": m.detector,
        "midpointMjdTai": m.exposure.midpoint_mjd_tai,
        "band": m.exposure.band,
        "ra": m.ra,
        "dec": m.dec,
        "raErr": error / ARCSEC_PER_DEGREE,
        "decErr": error / ARCSEC_PER_DEGREE,
        "ra_dec_Cov": 0.0,
        "x": m.x,
        "y": m.y,
        "xErr": error / LSST.pixel_arcsec,
        "yErr": error / LSST.pixel_arcsec,
    }


def _fluxes(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """Difference, total and template fluxes [nJy]."""
    reference = sky_object.reference_flux(m.exposure.band)
    return {
        "psfFlux": m.flux,
        "psfFluxErr": m.flux_err,
        "psfChi2": 1681.0 + 60.0 * m.chance[0],
        "apFlux": m.flux + 0.8 * m.flux_err * m.chance[1],
        "apFluxErr": 1.6 * m.flux_err,
        "scienceFlux": m.flux + reference,
        "scienceFluxErr": 0.95 * m.flux_err,
        "templateFlux": reference,
        "templateFluxErr": 0.3 * m.flux_err,
        "snr": abs(m.flux) / m.flux_err,
        "isNegative": m.flux < 0.0,
    }


def _form(sky_object: SkyObject, m: Measurement) -> dict[str, Any]:
    """Shape, trail, dipole, and how believable the detection is."""
    real, doubt = not sky_object.is_artefact, abs(m.chance[4])
    moment = (m.exposure.seeing_arcsec / 2.355) ** 2
    score = 1.0 - 0.35 * doubt * 4.0 * m.flux_err / abs(m.flux) if real else 0.12 * doubt
    dipole = sky_object.is_artefact and int(sky_object.p["form"]) == ARTEFACT_DIPOLE
    length = _rate_deg_day(sky_object) * ARCSEC_PER_DEGREE * m.exposure.exposure_time_s / SECONDS_PER_DAY
    return {
        "ixx": moment * (1.0 + 0.05 * m.chance[5]),
        "iyy": moment * (1.0 + 0.05 * m.chance[6]),
        "ixy": 0.02 * moment * m.chance[7],
        "ixxPSF": moment,
        "iyyPSF": moment,
        "ixyPSF": 0.0,
        "extendedness": 0.0 if real else 1.0,
        "reliability": float(np.clip(score, 0.0, 1.0)),
        "isDipole": dipole,
        "dipoleFitAttempted": dipole,
        "dipoleMeanFlux": 2.0 * abs(m.flux) if dipole else None,
        "dipoleFluxDiff": 0.3 * m.flux if dipole else None,
        "dipoleLength": 0.6 * m.exposure.seeing_arcsec if dipole else None,
        "trailFlux": m.flux if sky_object.moves else None,
        "trailLength": length if sky_object.moves else None,
    }


def _rate_deg_day(sky_object: SkyObject) -> float:
    """Motion on the sky [deg / day]; 0 for what stands still."""
    return float(np.hypot(sky_object.p.get("rate_ra", 0.0), sky_object.p.get("rate_dec", 0.0)))


def _forced_points(detection: Detection) -> list[Measurement]:
    """Earlier measurements that carry forced photometry: none until the object's second alert."""
    if detection.now.n_earlier == 0:
        return []
    earliest = detection.now.first_jd - FORCED_BEFORE_DAYS
    return [m for m in detection.past if m.exposure.jd_utc_start >= earliest]


def _rows(past: Sequence[Measurement], sky_object: SkyObject, dia_object_id: int, which: int) -> list[bytes]:
    """Encoded rows of earlier measurements: diaSources (which = 0) or forced sources (1)."""
    return [_history_rows(sky_object, m, dia_object_id)[which] for m in past]


def _history_rows(sky_object: SkyObject, m: Measurement, dia_object_id: int) -> tuple[bytes, ...]:
    """One earlier measurement as a diaSource (empty if not detected) and a forced source; encoded once."""
    if not m.rows:
        old = _encoders().source(source(sky_object, m, dia_object_id)) if m.detected else b""
        m.rows = (old, _encoders().forced(forced(sky_object, m, dia_object_id)))
    return m.rows


def forced(sky_object: SkyObject, m: Measurement, dia_object_id: int) -> dict[str, Any]:
    """A diaForcedSource."""
    return {
        "diaForcedSourceId": visit_id(m.exposure) * 1_000_000 + sky_object.serial % 1_000_000,
        "diaObjectId": dia_object_id,
        "ra": sky_object.ra,
        "dec": sky_object.dec,
        "visit": visit_id(m.exposure),
        "detector": m.detector,
        "psfFlux": m.flux,
        "psfFluxErr": m.flux_err,
        "midpointMjdTai": m.exposure.midpoint_mjd_tai,
        "scienceFlux": m.flux + sky_object.reference_flux(m.exposure.band),
        "scienceFluxErr": 0.95 * m.flux_err,
        "band": m.exposure.band,
        "timeProcessedMjdTai": m.exposure.midpoint_mjd_tai + PROCESSING_DAYS,
    }


def _summary(detection: Detection, dia_object_id: int, points: Sequence[Measurement]) -> bytes:
    """The diaObject: means over the object's detections so far; null for a moving object."""
    sky_object, now = detection.sky_object, detection.now
    if sky_object.moves:
        return avro.NULL
    seen = [m for m in detection.past if m.detected] + [now]
    row: dict[str, Any] = {
        "diaObjectId": dia_object_id,
        "validityStartMjdTai": now.exposure.midpoint_mjd_tai + PROCESSING_DAYS,
        "ra": float(np.mean([m.ra for m in seen])),
        "dec": float(np.mean([m.dec for m in seen])),
        "firstDiaSourceMjdTai": seen[0].exposure.midpoint_mjd_tai,
        "lastDiaSourceMjdTai": now.exposure.midpoint_mjd_tai,
        "nDiaSources": len(seen),
    }
    for band in COLOUR_STEP:
        row |= _band_summary(band, seen, points, sky_object.reference_flux(band))
    return avro.SECOND + _encoders().dia_object(row)


def _band_summary(
    band: str, seen: Sequence[Measurement], points: Sequence[Measurement], reference: float
) -> dict[str, Any]:
    """Statistics of one band; null, and a count of 0, where nothing was seen in it."""
    flux = np.array([m.flux for m in seen if m.exposure.band == band])
    n = flux.size
    row: dict[str, Any] = {f"{band}_psfFluxNdata": n}
    forced_flux = np.array([m.flux for m in points if m.exposure.band == band])
    if forced_flux.size:
        row[f"{band}_fpFluxMean"] = float(forced_flux.mean())
    if n == 0:
        return row
    err = float(np.mean([m.flux_err for m in seen if m.exposure.band == band]))
    statistics = {
        "psfFluxMean": flux.mean(),
        "psfFluxMeanErr": err / np.sqrt(n),
        "psfFluxErrMean": err,
        "psfFluxMin": flux.min(),
        "psfFluxMax": flux.max(),
        "scienceFluxMean": flux.mean() + reference,
        "scienceFluxMeanErr": err / np.sqrt(n),
    }
    row |= {f"{band}_{name}": float(value) for name, value in statistics.items()}
    return row | {f"{band}_psfFluxSigma": float(flux.std(ddof=1)) if n > 1 else None}


def _solar_system(detection: Detection) -> bytes:
    """The ssSource of a moving object; null for anything else."""
    sky_object, now = detection.sky_object, detection.now
    if not sky_object.moves:
        return avro.NULL
    place = np.radians([now.ra, now.dec])
    # J2000 as a two-part Julian date: the epoch whose ecliptic the coordinates refer to.
    ecliptic = np.degrees(erfa.eqec06(erfa.DJ00, 0.0, *place))
    galactic = np.degrees(erfa.icrs2g(*place))
    ra, dec = sky_object.position(now.exposure.midpoint_mjd_tai)
    row = {
        "diaSourceId": source_id(now),
        "ssObjectId": solar_system_id(sky_object),
        "designation": designation(sky_object),
        "eclLambda": float(ecliptic[0]),
        "eclBeta": float(ecliptic[1]),
        "galLon": float(galactic[0]),
        "galLat": float(galactic[1]),
        "elongation": 150.0,
        "phaseAngle": 9.0,
        "topoRange": 1.7,
        "helioRange": 2.6,
        "ephRa": ra,
        "ephDec": dec,
        "ephVmag": sky_object.p["mag_r"] + LSST.fainter_by + 0.2,
        "ephRate": _rate_deg_day(sky_object),
        "ephRateRa": sky_object.p["rate_ra"],
        "ephRateDec": sky_object.p["rate_dec"],
        "ephOffset": float(np.hypot(now.ra - ra, now.dec - dec)) * ARCSEC_PER_DEGREE,
        "diaDistanceRank": 1,
    }
    return avro.SECOND + _encoders().ss_source(row)
