"""Can simulated supernovae be told from real ones? If they can, by what?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from broker.astro.bands import BAND_INDEX
from broker.astro.photometry import mag_to_njy
from broker.simulate.like import read_like
from broker.training.evaluate import INTERVAL, Figure
from broker.training.explosions import Explosions, load, states
from broker.training.kinds import KINDS, Boosted
from broker.training.sample import F64, I64, Sample, Strings, joined
from broker.training.selection import folds, held_out_answers
from broker.training.simulated import simulated_like

BAR = 0.75
"""What the AUC must not exceed."""
REAL = "ztf_bts_snia"
LEAST_DETECTIONS, WINDOWS, WINDOW_DAYS = 5, 2, 30.0
MADE = 5000
FAINTEST_MADE, FAINTEST_PEAK = 19.05, 19.0
"""Peak magnitudes: of what is simulated, and what both samples are cut to (as the real list was)."""
LEAST_IN_BAND, COVERED_DAYS, DENSITY_DAYS = 3, 2.0, 15.0
SETTINGS = {"trees": 120, "learning_rate": 0.06, "num_leaves": 8, "min_data_in_leaf": 20}
RESAMPLES = 200


@dataclass(frozen=True)
class Guilty:
    """A feature that tells simulated from real: its share of the gain, and what it alone would reach.

    alone : AUC of the feature by itself, 0.5 or more, over the rows where it is known
    """

    name: str
    gain: float
    alone: float


@dataclass(frozen=True)
class Realism:
    """How well boosted trees tell simulated from real SNe Ia on what a stage looks at.

    matched : AUC where the objects have as many detections about their peak;  unmatched : all
    guilty : the features by importance, the worst first;  real, simulated : the matched states
    """

    matched: Figure
    unmatched: Figure
    guilty: list[Guilty]
    real: Sample
    simulated: Sample


def realism(data: Path, inputs: Sequence[str], seed: int) -> Realism:
    """Compare simulated with real SNe Ia, each in random 30-day windows, by grouped 5-fold cross-validation.

    Both are cut as the real list was: a bright, covered peak and some detections in each band. Cadence is
    taken from histories of the years of the real ones. BrokerError for a folder without them.
    """
    rng, real = np.random.default_rng(seed), load(data, (REAL,))
    like = read_like(data).before(float(np.quantile(real.time, 0.99)))
    made = simulated_like(like, {"SNIa": MADE}, seed, FAINTEST_MADE)
    own, other = well_observed(real), rng.permutation(well_observed(made))
    unmatched = _told(_windows(real, own, rng), _windows(made, other[: len(own)], rng), inputs, seed)[0]
    own, other = same_density(real, own, made, other, rng)
    first, second = _windows(real, own, rng), _windows(made, other, rng)
    matched, guilty = _told(first, second, inputs, seed)
    return Realism(matched, unmatched, guilty, first, second)


def well_observed(known: Explosions) -> I64:
    """Objects with a bright peak, detections before and after it, and some in each band."""
    kept = []
    bright = float(mag_to_njy(FAINTEST_PEAK))
    for number, (first, end) in enumerate(zip(known.starts[:-1], known.starts[1:], strict=True)):
        if end - first < LEAST_DETECTIONS:
            continue
        flux, time, band = known.flux[first:end], known.time[first:end], known.band[first:end]
        away = time - time[flux.argmax()]
        in_each = min(int((band == BAND_INDEX[name]).sum()) for name in "gr")
        covered = (away < -COVERED_DAYS).any() and (away > COVERED_DAYS).any()
        if flux.max() > bright and covered and in_each >= LEAST_IN_BAND:
            kept.append(number)
    return np.array(kept, dtype=np.int64)


def same_density(
    real: Explosions, own: I64, made: Explosions, other: I64, rng: np.random.Generator
) -> tuple[I64, I64]:
    """As many objects of each, with like numbers of nights and of detections in g and r about the peak.

    How often a survey looks is no input of a stage, and changes from year to year.
    """
    ours, theirs = _density(real, own), _density(made, other)
    pairs = []
    for value in np.unique(ours):
        mine, yours = rng.permutation(own[ours == value]), rng.permutation(other[theirs == value])
        count = min(len(mine), len(yours))
        pairs.append((mine[:count], yours[:count]))
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _density(known: Explosions, objects: I64) -> I64:
    """A number for each object that says how densely it was observed about its peak, in steps of two."""
    found = np.empty(len(objects), dtype=np.int64)
    for place, number in enumerate(objects.tolist()):
        own = slice(known.starts[number], known.starts[number + 1])
        time, band = known.time[own], known.band[own]
        near = np.abs(time - time[known.flux[own].argmax()]) < DENSITY_DAYS
        counts = [len(np.unique(np.floor(time[near])))]
        counts += [int((near & (band == BAND_INDEX[name])).sum()) for name in "gr"]
        steps = [min(count, 14) // 2 for count in counts]
        found[place] = (steps[0] * 8 + steps[1]) * 8 + steps[2]
    return found


def _windows(known: Explosions, objects: I64, rng: np.random.Generator) -> Sample:
    """Each object at WINDOWS random detections from LEAST_DETECTIONS on, with the days before."""
    last = [np.unique(rng.integers(LEAST_DETECTIONS, n + 1, WINDOWS)) for n in known.counts()[objects]]
    owner = np.repeat(objects, [len(each) for each in last])
    return states(known, owner, np.concatenate([*last, np.empty(0, np.int64)]), WINDOW_DAYS)


def _told(real: Sample, made: Sample, inputs: Sequence[str], seed: int) -> tuple[Figure, list[Guilty]]:
    """(AUC of telling real from made, the features that do it)."""
    both = joined([real, made])
    x = both.columns(inputs)
    y = (np.arange(len(both)) < len(real)).astype(np.int64)
    even = np.where(y == 1, 1.0 / len(real), 1.0 / len(made)) * len(both) / 2.0
    fold = folds(both.group, y.astype(np.str_), seed)
    raw = held_out_answers(KINDS[0], SETTINGS, x, y, even, fold, 2, seed)
    model = KINDS[0].fit(x, y, even, 2, SETTINGS, seed)
    assert isinstance(model, Boosted)
    gains = model.gains() / model.gains().sum()
    worst = np.argsort(-gains, kind="stable")
    guilty = [Guilty(inputs[k], float(gains[k]), alone(x[:, k], y)) for k in worst]
    return area(raw[:, 1] - raw[:, 0], y, both.group, np.random.default_rng(seed)), guilty


def alone(column: F64, truth: I64) -> float:
    """AUC of one feature by itself where it is known, 0.5 or more; 0.5 where it is known of one kind only.

    >>> alone(np.array([1.0, 2.0, np.nan, 3.0]), np.array([1, 1, 1, 0]))
    1.0
    """
    known = np.isfinite(column)
    if len(np.unique(truth[known])) < 2:
        return 0.5
    found = float(roc_auc_score(truth[known], column[known]))
    return max(found, 1.0 - found)


def area(score: F64, truth: I64, group: Strings, rng: np.random.Generator) -> Figure:
    """Area under the ROC curve, its 95 % interval by drawing objects again within their class.

    score : (n,) high for truth 1;  truth : (n,) 0 or 1;  group : (n,) object, all of one truth
    """
    names, first, row = np.unique(group, return_index=True, return_inverse=True)
    members = [np.flatnonzero(truth[first] == value) for value in (0, 1)]
    drawn = []
    for _ in range(RESAMPLES):
        times = np.zeros(len(names))
        for own in members:
            np.add.at(times, rng.choice(own, len(own)), 1.0)
        drawn.append(roc_auc_score(truth, score, sample_weight=times[row]))
    low, high = np.quantile(drawn, INTERVAL)
    return Figure(float(roc_auc_score(truth, score)), float(low), float(high))
