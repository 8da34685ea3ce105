"""The simulated streams: labelled alerts in order of time, one by one or as a folder of files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from broker.astro.photometry import njy_to_mag
from broker.errors import BrokerError
from broker.simulate import packets, rubin
from broker.simulate.cadence import LSST, ZTF, Survey
from broker.simulate.like import Like
from broker.simulate.observe import Detection, detections

START_MJD = 61000.0
"""Default first night [MJD, TAI]: 2025-11-21."""
TRUTH_FILE = "truth.csv"
TRUTH_COLUMNS = (
    "objectId",
    "label",
    "ra",
    "dec",
    "n_alerts",
    "first_mjd_tai",
    "last_mjd_tai",
    "mag_r",
    "period_days",
    "t0_mjd_tai",
    "redshift",
    "solar_system_number",
)


@dataclass(frozen=True, slots=True)
class SimulatedAlert:
    """One alert and what it really is.

    candid    : the survey's number of the detection (ZTF candid, Rubin diaSourceId)
    object_id : what astronomers would call it (ZTF objectId; Rubin diaObjectId or a designation)
    label     : class name of the truth;  value : the bytes a Kafka record would hold
    """

    candid: int
    object_id: str
    label: str
    midpoint_mjd_tai: float
    value: bytes


@dataclass(frozen=True)
class _Format:
    survey: Survey
    number: Callable[[Any], int]
    object_id: Callable[[Detection, int], str]
    packet: Callable[[Detection, int], bytes]


FORMATS = (
    _Format(ZTF, packets.candid, packets.object_id, packets.packet),
    _Format(LSST, rubin.source_id, rubin.object_id, rubin.packet),
)


def simulate_ztf(
    n_alerts: int, seed: int, start_mjd: float = START_MJD, like: Like | None = None
) -> Iterator[SimulatedAlert]:
    """Exactly n_alerts ZTF packets (object containers, schema 4.02) from start_mjd [MJD, TAI] on, by time.

    The same arguments give the same bytes. Beyond 4,800 alerts there are more objects in the field, so that a
    shorter run is then not the beginning of a longer one. Raises ValueError if n_alerts or seed is negative.
    like : real histories whose rhythm, depth and errors the survey takes over
    """
    return _alerts(_observing(FORMATS[0], like), n_alerts, seed, start_mjd)


def simulate_lsst(n_alerts: int, seed: int, start_mjd: float = START_MJD) -> Iterator[SimulatedAlert]:
    """As `simulate_ztf`, but Rubin packets (schema 11.0, Confluent framing) of the like, fainter sky."""
    return _alerts(FORMATS[1], n_alerts, seed, start_mjd)


def write_folder(
    out: Path,
    n_alerts: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
    survey: str = "ztf",
    start_mjd: float = START_MJD,
    like: Like | None = None,
) -> Path:
    """Write n_alerts packets as `<candid>.avro` and every object's truth as `truth.csv`; returns its path.

    progress is told the number written so far after each file;  like : as for `simulate_ztf`. Raises
    BrokerError if the folder holds files already, or the survey is not one of FORMATS.
    """
    form = _observing(_format(survey), like)
    if out.is_dir() and any(out.iterdir()):
        raise BrokerError(f"{out} is not empty: simulated and other alerts must not mix; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    truth: dict[str, dict[str, Any]] = {}
    for count, detection in enumerate(detections(form.survey, n_alerts, seed, start_mjd), start=1):
        alert = _alert(form, detection, seed)
        (out / f"{alert.candid}.avro").write_bytes(alert.value)
        _note(truth, alert, detection)
        if progress is not None:
            progress(count)
    return _write_truth(out / TRUTH_FILE, truth)


def _format(survey: str) -> _Format:
    for form in FORMATS:
        if form.survey.name == survey:
            return form
    known = ", ".join(form.survey.name for form in FORMATS)
    raise BrokerError(f"cannot simulate survey {survey!r}; choose one of: {known}")


def _observing(form: _Format, like: Like | None) -> _Format:
    """The format with a survey that observes as real histories say."""
    if like is None:
        return form
    if form.survey.name != ZTF.name:
        raise BrokerError(f"real histories are known of ztf only: leave --like away for {form.survey.name}")
    return replace(form, survey=replace(form.survey, like=like))


def _alerts(form: _Format, n_alerts: int, seed: int, start_mjd: float) -> Iterator[SimulatedAlert]:
    return (_alert(form, found, seed) for found in detections(form.survey, n_alerts, seed, start_mjd))


def _alert(form: _Format, detection: Detection, seed: int) -> SimulatedAlert:
    return SimulatedAlert(
        form.number(detection.now),
        form.object_id(detection, seed),
        detection.sky_object.kind.label,
        detection.now.exposure.midpoint_mjd_tai,
        form.packet(detection, seed),
    )


def _note(truth: dict[str, dict[str, Any]], alert: SimulatedAlert, detection: Detection) -> None:
    """Add an alert to its object's row; the place is where the object was at its first alert."""
    p = detection.sky_object.p
    ra, dec = detection.sky_object.position(alert.midpoint_mjd_tai)
    first = {
        "objectId": alert.object_id,
        "label": alert.label,
        "ra": round(ra, 7),
        "dec": round(dec, 7),
        "n_alerts": 0,
        "first_mjd_tai": alert.midpoint_mjd_tai,
        "mag_r": round(float(njy_to_mag(detection.sky_object.level["r"])), 3),
        "period_days": p.get("period", ""),
        "t0_mjd_tai": p["t0"] if "before" in p else "",
        "redshift": p.get("redshift", ""),
        "solar_system_number": int(p["number"]) if "number" in p else "",
    }
    row = truth.setdefault(alert.object_id, first)
    row["n_alerts"] += 1
    row["last_mjd_tai"] = alert.midpoint_mjd_tai


def _write_truth(path: Path, truth: dict[str, dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, TRUTH_COLUMNS)
        writer.writeheader()
        writer.writerows(truth.values())
    return path
