"""Looking at the synthetic sky: every object in every exposure, and who is bright enough for an alert."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import LIMIT_SIGMA, mag_to_njy
from broker.astro.sky import ARCSEC_PER_DEGREE
from broker.simulate.cadence import Exposure, Survey, exposures
from broker.simulate.like import BAND_NAMES, Like, detected
from broker.simulate.objects import KINDS, Kind, SkyObject, make_object

F64 = npt.NDArray[np.float64]

FEWEST_OBJECTS, MOST_OBJECTS = 300, 4000
ALERTS_PER_OBJECT = 16
CALIBRATION_ERROR = 0.012
"""Error that does not shrink with more light, as a share of the difference flux."""
REAL_FORCED_DAYS = 18.0
"""ZTF's packets of schema 4.01 hold forced points of so many days, beside detections and limits of 30."""
LOST_SHARE = 0.02
"""Detections that vanish in bad pixels and chip gaps."""


@dataclass(slots=True, eq=False)
class Measurement:
    """One object in one exposure, with noise.

    ra, dec   : measured place (true place where not detected) [deg]
    detector  : which detector of the field;  x, y : place on it [pixel]
    flux, flux_err : measured difference [signed nJy]
    detected  : whether it made an alert;  rank : its number among the detector's detections
    n_earlier, first_jd : earlier detections under the same id, and the first one's start (this one's if none)
    chance    : (16,) standard normal numbers for what has no physics here; empty if not detected
    rows      : its encoded form in later packets' histories, filled in by the packet writer
    """

    exposure: Exposure
    ra: float
    dec: float
    detector: int
    x: float
    y: float
    flux: float
    flux_err: float
    detected: bool
    rank: int = 0
    n_earlier: int = 0
    first_jd: float = 0.0
    chance: F64 = field(default_factory=lambda: np.empty(0))
    rows: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Detection:
    """What one alert is made from: object_number keys the survey's id; past is in order of time."""

    sky_object: SkyObject
    object_number: int
    now: Measurement
    past: tuple[Measurement, ...]
    forced_days: float = math.inf
    """How far back forced photometry reaches; older exposures have none."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A place in the population: the object in it now and what was measured of it."""

    sky_object: SkyObject
    object_number: int
    past: deque[Measurement]
    n_detections: int = 0
    first_jd: float = 0.0


class Observer:
    """A population of objects under a survey; state moves on with each exposure.

    Objects that end are replaced, so the mix stays the same however long one looks.
    """

    def __init__(self, survey: Survey, n_objects: int, rng: np.random.Generator, start_mjd: float) -> None:
        self._survey = survey
        self._rng = rng
        self._serial = 0
        self._forced_days = math.inf if survey.like is None else REAL_FORCED_DAYS
        self._recent: deque[Exposure] = deque()
        self._slots = [self._newcomer(kind, start_mjd, settled=True) for kind in _population(n_objects)]

    def look(self, exposure: Exposure) -> list[Detection]:
        """All detections of one exposure, in no particular order."""
        self._forget_before(exposure.midpoint_mjd_tai - self._survey.history_days)
        found = []
        self._replace_ended(exposure.midpoint_mjd_tai)
        for slot in self._slots:
            measured = measure(slot.sky_object, exposure, self._survey, self._rng)
            if measured is not None and measured.detected:
                found.append(self._detection(slot, measured))
            if measured is not None and not slot.sky_object.moves:
                slot.past.append(measured)
        self._recent.append(exposure)
        self._rng.shuffle(found)
        counts: Counter[int] = Counter()
        for detection in found:
            detection.now.rank = counts[detection.now.detector]
            counts[detection.now.detector] += 1
        return found

    def _replace_ended(self, mjd: float) -> None:
        for index, slot in enumerate(self._slots):
            if slot.sky_object.ends < mjd:
                self._slots[index] = self._newcomer(slot.sky_object.kind, mjd, settled=False)

    def _forget_before(self, mjd: float) -> None:
        while self._recent and self._recent[0].midpoint_mjd_tai < mjd:
            self._recent.popleft()
        for slot in self._slots:
            while slot.past and slot.past[0].exposure.midpoint_mjd_tai < mjd:
                slot.past.popleft()

    def _newcomer(self, kind: Kind, mjd: float, settled: bool) -> _Slot:
        """A new object of a kind; a settled one entered the field some time within its life before `mjd`."""
        number = self._next()
        sky_object = make_object(
            self._rng, kind, number, mjd, self._survey.footprint, self._survey.fainter_by
        )
        if settled and "before" in sky_object.p:
            life = sky_object.ends - sky_object.begins
            sky_object = make_object(
                self._rng,
                kind,
                number,
                mjd - life * self._rng.random(),
                self._survey.footprint,
                self._survey.fainter_by,
            )
        return _Slot(sky_object, number, self._blank_past(sky_object.ra, sky_object.dec))

    def _blank_past(self, ra: float, dec: float) -> deque[Measurement]:
        """Recent exposures of an empty place: noise only."""
        placed = _pixel(ra, dec, self._survey)
        if placed is None:
            return deque()
        noise = self._rng.standard_normal(len(self._recent))
        return deque(
            Measurement(e, ra, dec, *placed, float(e.sky_err * z), e.sky_err, detected=False)
            for e, z in zip(self._recent, noise, strict=True)
        )

    def _detection(self, slot: _Slot, measured: Measurement) -> Detection:
        """The alert's ingredients; a moving object is a new object of the survey wherever it is seen."""
        measured.chance = self._rng.standard_normal(16)
        if slot.sky_object.moves:
            measured.first_jd = measured.exposure.jd_utc_start
            past = self._blank_past(measured.ra, measured.dec)
            return Detection(slot.sky_object, self._next(), measured, tuple(past), self._forced_days)
        measured.n_earlier = slot.n_detections
        slot.first_jd = slot.first_jd or measured.exposure.jd_utc_start
        measured.first_jd = slot.first_jd
        slot.n_detections += 1
        return Detection(slot.sky_object, slot.object_number, measured, tuple(slot.past), self._forced_days)

    def _next(self) -> int:
        self._serial += 1
        return self._serial


def detections(survey: Survey, n_alerts: int, seed: int, start_mjd: float) -> Iterator[Detection]:
    """Exactly n_alerts detections from start_mjd [MJD, TAI] on, by time; the same for the same arguments.

    The survey begins earlier than start_mjd by its history (at most 60 days), so that the first alerts have a
    past. Raises ValueError if n_alerts or seed is negative.
    """
    if n_alerts < 0 or seed < 0:
        raise ValueError(f"alerts and seed must not be negative, got {n_alerts} alerts and seed {seed}")
    n_objects = min(max(n_alerts // ALERTS_PER_OBJECT, FEWEST_OBJECTS), MOST_OBJECTS)
    begin = start_mjd - min(survey.history_days, 60.0)
    observer = Observer(survey, n_objects, np.random.default_rng([seed, 1]), begin)
    left = n_alerts
    for exposure in exposures(survey, begin, np.random.default_rng([seed, 2])):
        if left <= 0:
            return
        found = observer.look(exposure)
        if exposure.midpoint_mjd_tai >= start_mjd:
            yield from found[:left]
            left -= len(found)


def measure(
    sky_object: SkyObject, exposure: Exposure, survey: Survey, rng: np.random.Generator
) -> Measurement | None:
    """One object in one exposure; None outside the field. Detected means beyond 5 sigma, either sign."""
    ra, dec = sky_object.position(exposure.midpoint_mjd_tai)
    placed = _pixel(ra, dec, survey)
    if placed is None:
        return None
    truth = float(sky_object.difference_flux(exposure.midpoint_mjd_tai, exposure.band))
    if survey.like is not None:
        flux, err, found = _measured_like(survey.like, truth, exposure, float(sky_object.looks[-1]), rng)
    else:
        err = _flux_err(truth, sky_object.reference_flux(exposure.band), exposure, survey)
        flux = truth + err * rng.standard_normal()
        found = abs(flux) > LIMIT_SIGMA * err and rng.random() > LOST_SHARE
    if found:
        scatter = max(0.06, exposure.seeing_arcsec / 2.35 * err / abs(flux)) * (
            4.0 if sky_object.is_artefact else 1.0
        )
        dra, ddec = scatter / ARCSEC_PER_DEGREE * rng.standard_normal(2)
        ra, dec = ra + float(dra) / math.cos(math.radians(dec)), dec + float(ddec)
    return Measurement(exposure, ra, dec, *placed, flux, err, found)


def _measured_like(
    like: Like, truth: float, exposure: Exposure, place: float, rng: np.random.Generator
) -> tuple[float, float, bool]:
    """(flux [nJy], error [nJy], whether it made an alert) with the noise and losses of real histories."""
    sky_err, band = np.array([exposure.sky_err]), np.array([BAND_NAMES.index(exposure.band)])
    flux, err = like.measure(np.array([truth]), band, sky_err, place, rng)
    found = bool(detected(flux, sky_err)[0]) and rng.random() < like.found
    return float(flux[0]), float(err[0]), found


def _flux_err(difference: float, reference: float, exposure: Exposure, survey: Survey) -> float:
    """Error of a difference flux [nJy]: sky, photons of object and host, calibration."""
    electron = float(mag_to_njy(exposure.zero_point)) / survey.gain
    photons = max(difference + reference, 0.0) * electron
    return math.sqrt(exposure.sky_err**2 + photons + (CALIBRATION_ERROR * difference) ** 2)


def _pixel(ra: float, dec: float, survey: Survey) -> tuple[int, float, float] | None:
    """Detector and pixel of a place; None outside the field."""
    ra0, dec0, width = survey.footprint
    u = (ra - ra0) * math.cos(math.radians(dec0)) / width + 0.5
    v = (dec - dec0) / width + 0.5
    if not (0.0 <= u < 1.0 and 0.0 <= v < 1.0):
        return None
    column, row = int(u * survey.quadrants), int(v * survey.quadrants)
    pixels = width * ARCSEC_PER_DEGREE / survey.quadrants / survey.pixel_arcsec
    x, y = (u * survey.quadrants - column) * pixels, (v * survey.quadrants - row) * pixels
    return row * survey.quadrants + column, x, y


def _population(n_objects: int) -> list[Kind]:
    """The kinds of n objects by their shares, at least two of each."""
    return [kind for kind in KINDS for _ in range(max(2, round(n_objects * kind.per_mille / 1000)))]
