"""Take down what is usual in a training sample, and ask whether a class it never saw would stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from sklearn.metrics import roc_auc_score

from broker.scores.novelty import Novelty, gaussian_scores, nearest
from broker.training.calibrate import calibrate
from broker.training.kinds import Kind, Settings
from broker.training.sample import F64, I64, Sample, Strings, joined
from broker.training.selection import folds, held_out_answers

KNOTS = 201
RANKS = 401
POINTS_PER_CLASS = 400
"""Objects kept of each class: they bound the bundle's size and the time that a row takes."""
_BOOTSTRAPS = 200
_KNOWN_FOLDS = 5


def fit_novelty(columns: F64, probabilities: F64, truth: I64, group: Strings, seed: int) -> Novelty:
    """The reference that a stage's novelty is judged against.

    columns : (n, k) the stage's inputs, NaN where unknown;  probabilities : (n, c) calibrated, each row's by
    a model that did not see its object;  truth : (n,) class;  group : (n,) object.
    """
    classes = probabilities.shape[1]
    levels = np.linspace(0.5 / KNOTS, 1.0 - 0.5 / KNOTS, KNOTS)
    knots = np.array([_quantiles(column[np.isfinite(column)], levels) for column in columns.T])
    scores = np.asarray(ndtri(levels))
    gaussian = gaussian_scores(np.ascontiguousarray(columns, dtype=np.float64), knots, scores)
    rng = np.random.default_rng(seed)
    kept = [_drawn(np.flatnonzero(truth == k), rng) for k in range(classes)]
    points = np.concatenate(kept)
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in kept])]).astype(np.int64)
    number = np.unique(group, return_inverse=True)[1].astype(np.int64)
    steps = np.linspace(0.0, 1.0, RANKS)

    def to_class(own: I64) -> F64:
        return nearest(gaussian, own, number, gaussian[points], starts, number[points])

    inside = to_class(truth.astype(np.int64))
    usual = Novelty(
        knots=knots,
        scores=scores,
        points=gaussian[points],
        starts=starts,
        distances=np.array([_quantiles(_finite(inside[truth == k]), steps) for k in range(classes)]),
        doubts=np.quantile(1.0 - probabilities.max(axis=1), steps),
        combined=steps,
    )
    guessed = np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    ranks = usual.ranks(to_class(guessed), guessed, probabilities)
    return Novelty(**{**vars(usual), "combined": np.quantile(ranks, steps)})


@dataclass(frozen=True)
class LeftOut:
    """How well novelty tells a class that was never learnt from new objects of those that were.

    objects : of the class left out
    auc, low, high : area under the ROC curve, and its 95 % interval when objects are drawn again
    """

    name: str
    objects: int
    auc: float
    low: float
    high: float


def leave_each_out(
    sample: Sample, classes: Sequence[str], inputs: Sequence[str], kind: Kind, settings: Settings, seed: int
) -> list[LeftOut]:
    """For each class: learn the others, then compare its objects with a fifth of theirs, held back.

    sample : rows of `classes` only; an object's rows stay together.
    """
    return [_without(name, sample, classes, inputs, kind, settings, seed) for name in classes]


def _without(
    name: str,
    sample: Sample,
    classes: Sequence[str],
    inputs: Sequence[str],
    kind: Kind,
    settings: Settings,
    seed: int,
) -> LeftOut:
    others = tuple(other for other in classes if other != name)
    known, new = sample.take(sample.label != name), sample.take(sample.label == name)
    held = folds(known.group, known.label, seed, _KNOWN_FOLDS) == 0
    learnt, test = known.take(~held), known.take(held)
    x, y, weight = learnt.columns(inputs), learnt.truth(others), learnt.weights()
    fold = folds(learnt.group, learnt.label, seed)
    raw = held_out_answers(kind, settings, x, y, weight, fold, len(others), seed)
    calibration = calibrate(raw, y, weight, learnt.group)
    novelty = fit_novelty(x, calibration.probabilities(raw), y, learnt.group, seed)
    model = kind.fit(x, y, weight, len(others), settings, seed)
    judged = joined([test, new])
    columns = judged.columns(inputs)
    score = novelty.score(columns, calibration.probabilities(model.raw(columns)))
    auc, low, high = _area(score, judged.label == name, judged.group, np.random.default_rng(seed))
    return LeftOut(name, len(np.unique(new.group)), auc, low, high)


def _area(
    score: F64, new: npt.NDArray[np.bool_], group: Strings, rng: np.random.Generator
) -> tuple[float, float, float]:
    """(AUC, 2.5 %, 97.5 %) of telling new rows from the others by their score.  group : (n,) object."""
    names, row = np.unique(group, return_inverse=True)
    drawn = []
    for _ in range(_BOOTSTRAPS):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[row]
        drawn.append(roc_auc_score(new, score, sample_weight=times))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(roc_auc_score(new, score)), float(low), float(high)


def _quantiles(values: F64, levels: F64) -> F64:
    """Quantiles of a sample, zeros if it is empty."""
    return np.quantile(values, levels) if len(values) else np.zeros(len(levels))


def _finite(values: F64) -> F64:
    return values[np.isfinite(values)]


def _drawn(rows: I64, rng: np.random.Generator) -> I64:
    """Up to POINTS_PER_CLASS of the rows, by chance."""
    return rng.permutation(rows)[:POINTS_PER_CLASS]
