"""When and how deep the synthetic survey looks: one field, pairs of exposures, moon, seeing and weather."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np

from broker.astro.photometry import AB_ZERO_POINT_NJY, limit_to_njy_err, njy_err_to_limit
from broker.astro.times import jd_utc_start_to_mjd_tai, mjd_tai_to_jd_utc_start
from broker.simulate.like import BAND_NAMES, Like

SYNODIC_MONTH_DAYS = 29.530589
NEW_MOON_MJD = 60674.9
"""The new moon of 2024-12-30."""


@dataclass(frozen=True)
class Survey:
    """What a survey's exposures are like.

    pairs         : the two bands of a visit; visits take them in turn
    dark_limit    : 5-sigma limiting magnitude of a dark, sharp exposure, by band [AB mag]
    zero_point    : magnitude of one count in an exposure [AB mag];  gain : electrons a count
    footprint     : centre ra, dec and full width of the field [deg]
    history_days  : how far back a packet's history reaches
    fainter_by    : how much fainter than for ZTF the objects are [mag], so that a like share of them is seen
    pixel_arcsec, quadrants : detector scale; the field is quadrants x quadrants detectors
    like          : real histories that give times, bands, depth and errors instead, None for invented ones
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    dark_limit: Mapping[str, float]
    seeing_arcsec: float
    exposure_time_s: float
    zero_point: float
    gain: float
    footprint: tuple[float, float, float]
    history_days: float
    fainter_by: float
    pixel_arcsec: float
    quadrants: int
    like: Like | None = None


ZTF = Survey(
    name="ztf",
    pairs=(("g", "r"), ("r", "g")),
    dark_limit={"g": 21.1, "r": 20.9},
    seeing_arcsec=2.0,
    exposure_time_s=30.0,
    zero_point=26.2,
    gain=6.2,
    footprint=(207.3, 31.2, 6.9),
    history_days=30.0,
    fainter_by=0.0,
    pixel_arcsec=1.012,
    quadrants=8,
)
LSST = Survey(
    name="lsst",
    pairs=(("g", "r"), ("i", "z"), ("r", "i"), ("u", "g"), ("z", "y")),
    dark_limit={"u": 23.7, "g": 24.6, "r": 24.3, "i": 23.8, "z": 23.2, "y": 22.3},
    seeing_arcsec=0.85,
    exposure_time_s=30.0,
    zero_point=AB_ZERO_POINT_NJY,
    gain=1.0,
    footprint=(53.1, -28.1, 3.5),
    history_days=365.0,
    fainter_by=3.2,
    pixel_arcsec=0.2,
    quadrants=14,
)


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure of the field. `number` counts from the first one, `visit` within the night."""

    number: int
    night: int
    visit: int
    jd_utc_start: float
    midpoint_mjd_tai: float
    exposure_time_s: float
    band: str
    limit_mag: float
    seeing_arcsec: float
    zero_point: float
    sky_err: float
    """Error that the sky alone gives a difference flux [nJy]."""


def exposures(survey: Survey, start_mjd: float, rng: np.random.Generator) -> Iterator[Exposure]:
    """Endless exposures from `start_mjd` [MJD, TAI] on: a pair of bands every two or three clear nights.

    With `survey.like` they come when, in the band and as deep as they came in real histories.
    """
    if survey.like is not None:
        yield from _real_exposures(survey, survey.like, start_mjd, rng)
    number, visits, night = 0, 0, math.floor(start_mjd)
    while True:
        if rng.random() < 0.22:  # clouds: try again tomorrow
            night += 1
            continue
        first = night + rng.uniform(0.12, 0.42)
        pair = survey.pairs[visits % len(survey.pairs)]
        for visit, (band, mjd) in enumerate(zip(pair, (first, first + rng.uniform(0.02, 0.06)), strict=True)):
            if mjd >= start_mjd:
                yield _exposure(survey, number, night, visit, mjd, band, rng)
                number += 1
        visits += 1
        night += int(rng.integers(2, 4))


def _real_exposures(
    survey: Survey, like: Like, start_mjd: float, rng: np.random.Generator
) -> Iterator[Exposure]:
    """Endless exposures that follow real histories, the first ones within the day of `start_mjd`."""
    first, number, night, visit = math.floor(start_mjd), count(), 0, 0
    for days, bands, sky_errs in like.exposures(rng):
        for day, band, sky_err in zip(days.tolist(), bands.tolist(), sky_errs.tolist(), strict=True):
            mjd = first + day
            visit = visit + 1 if math.floor(mjd) == night else 0
            night = math.floor(mjd)
            if mjd >= start_mjd:
                limit = float(njy_err_to_limit(np.asarray(sky_err)))
                blur = float(np.clip(rng.lognormal(0.0, 0.18), 0.8, 1.8))
                yield _taken(survey, next(number), night, visit, mjd, BAND_NAMES[band], limit, blur, 0.0)


def _exposure(
    survey: Survey, number: int, night: int, visit: int, mjd: float, band: str, rng: np.random.Generator
) -> Exposure:
    """One exposure with the depth that moon, seeing and haze leave it."""
    moon = 0.5 - 0.5 * math.cos(2.0 * math.pi * (mjd - NEW_MOON_MJD) / SYNODIC_MONTH_DAYS)
    blur = float(np.clip(rng.lognormal(0.0, 0.18), 0.8, 1.8))
    haze = abs(rng.normal(0.0, 0.15))
    limit = survey.dark_limit[band] - 0.9 * moon**2 - 2.0 * math.log10(blur) - haze
    return _taken(survey, number, night, visit, mjd, band, limit, blur, haze)


def _taken(
    survey: Survey,
    number: int,
    night: int,
    visit: int,
    mjd: float,
    band: str,
    limit: float,
    blur: float,
    haze: float,
) -> Exposure:
    """An exposure of some depth [mag]; blur widens stars, haze [mag] dims them."""
    jd = round(float(mjd_tai_to_jd_utc_start(np.asarray(mjd), survey.exposure_time_s)), 7)
    midpoint = float(jd_utc_start_to_mjd_tai(np.asarray(jd), survey.exposure_time_s))
    return Exposure(
        number,
        night,
        visit,
        jd,
        midpoint,
        survey.exposure_time_s,
        band,
        limit,
        survey.seeing_arcsec * blur,
        survey.zero_point - haze,
        float(limit_to_njy_err(np.asarray(limit))),
    )
