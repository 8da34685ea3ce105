"""Simulated explosions as a real survey would have seen them: flat light curves with noise and selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import mag_to_njy
from broker.simulate.like import BAND_NAMES, Like, detected
from broker.simulate.populations import POPULATIONS, Population, magnitude_limited

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FAINTEST = 20.0
"""Peak r magnitude [AB] of the faintest explosions: near the median depth nothing fainter makes alerts."""
BEFORE_DAYS, AFTER_DAYS = 60.0, 130.0
"""A place is watched around the peak at most so long; a season begins or ends at random within."""
SEASON_DAYS = 30.0
"""The peak may lie so far outside the season."""
FIRST_DAY = 58500.0
"""MJD at which the simulated seasons begin; only differences of times are ever looked at."""


@dataclass(frozen=True)
class Watched:
    """Detections of n objects as flat columns, ordered by object and time.

    time [MJD, TAI], flux, err [signed nJy], band (index into BAND_NAMES) : (m,);  starts : (n+1,)
    label, redshift, mag_r, peak : (n,) the truth: class, redshift (NaN: none), r magnitude at the peak, and
    its time [MJD, TAI]
    """

    time: F64
    flux: F64
    err: F64
    band: I64
    starts: I64
    label: npt.NDArray[np.str_]
    redshift: F64
    mag_r: F64
    peak: F64


def watch(
    like: Like,
    counts: Mapping[str, int],
    seed: int,
    faintest: float = FAINTEST,
    populations: Sequence[Population] = POPULATIONS,
) -> Watched:
    """Explosions that peak brighter than `faintest` [r mag], each in a season of its own of a real rhythm.

    counts : how many of each label are made; those that are never detected stay, without a detection
    """
    parts, truth = [], []
    for number, population in enumerate(populations):
        count = counts.get(population.label, 0)
        if not count:
            continue
        rng = np.random.default_rng([seed, number])
        columns, _ = magnitude_limited(population, faintest, count, rng)
        for row in range(count):
            p = {name: float(values[row]) for name, values in columns.items()}
            peak, seen = _season(like, population, p, rng)
            parts.append(seen)
            truth.append((population.label, p["redshift"], p["mag_r"], peak))
    return joined_seasons(parts, truth)


def joined_seasons(
    parts: Sequence[tuple[F64, F64, F64, I64]], truth: Sequence[tuple[str, float, float, float]]
) -> Watched:
    """One table of (time, flux, err, band) of each object and its (label, redshift, mag_r, peak)."""
    time, flux, err, band = (np.concatenate([part[k] for part in parts]) for k in range(4))
    starts = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])]).astype(np.int64)
    label, redshift, mag_r, peak = zip(*truth, strict=True)
    return Watched(
        time, flux, err, np.asarray(band, dtype=np.int64), starts,
        np.array(label, dtype=np.str_), np.array(redshift), np.array(mag_r), np.array(peak),
    )  # fmt: skip


def _season(
    like: Like, population: Population, p: Mapping[str, float], rng: np.random.Generator
) -> tuple[float, tuple[F64, F64, F64, I64]]:
    """(peak [MJD], detections) of one object in a season that may miss its beginning or its end."""
    slow = 1.0 + p["redshift"]
    length = (BEFORE_DAYS + AFTER_DAYS) * slow
    peak = rng.uniform(-SEASON_DAYS, length)
    day, band, sky_err = like.schedule(length, rng)
    mag = np.empty(len(day))
    for number, name in enumerate(BAND_NAMES):
        own = band == number
        level = p["mag_r"] + (p["gr"] if name == "g" else 0.0)
        mag[own] = level + population.fading((day[own] - peak) / slow, name, p)
    return FIRST_DAY + peak, observe(FIRST_DAY + day, mag_to_njy(mag), band, sky_err, like, rng)


def observe(
    time: F64, difference: F64, band: I64, sky_err: F64, like: Like, rng: np.random.Generator
) -> tuple[F64, F64, F64, I64]:
    """Detections (time, flux, err, band) of a true difference flux [signed nJy] in some exposures."""
    flux, err = like.measure(difference, band, sky_err, float(rng.standard_normal()), rng)
    keep = detected(flux, sky_err) & (rng.random(len(flux)) < like.found)
    return time[keep], flux[keep], err[keep], band[keep]
