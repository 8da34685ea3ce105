"""How good probabilities are on objects that the model has not seen, with intervals by resampling objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.scores.calibration import Calibration, reweighted
from broker.training.sample import Sample

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Statistic = Callable[[F64], F64]
"""Figures (s,) for row weights (n,)."""

RESAMPLES = 300
INTERVAL = (0.025, 0.975)
NIGHTS = {"1 night": (1, 1), "2": (2, 2), "3": (3, 3), "4-9": (4, 9), "10 or more": (10, 10**9)}
CALIBRATION_BINS = 10
_LEAST_FOR_COVERAGE = 50


@dataclass(frozen=True)
class Figure:
    """A number with the interval that holds 95 % of its resampled values."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Subset:
    """Balanced accuracy on some of the rows, over the classes that these contain."""

    label: str
    balanced_accuracy: Figure
    classes: int
    objects: int


@dataclass(frozen=True)
class Calibrated:
    """How well confidence matches success in one population.

    ece : mean distance over bins of equal weight, less what chance alone makes of it
    chance : what ece would reach in 1 of 20 samples of this size were the probabilities perfect
    reliability : mean confidence, accuracy and weight of each bin, (b, 3)
    """

    ece: float
    chance: float
    reliability: F64


@dataclass(frozen=True)
class Evaluation:
    """Figures of one part of the data; every class weighs the same, and in it every object.

    confusion : (c, c) row = true class, sums to 1;  objects, rows : (c,) counts
    balanced, natural : calibration where all classes are equally frequent, and as they are in the sample, of
        every object in its last state: an object's states are wrong together, and chance is reckoned by row
    coverage : share of objects whose class set holds their class;  coverage_of : by class of 50 objects
    set_size : mean number of classes in a set
    """

    classes: tuple[str, ...]
    objects: list[int]
    rows: list[int]
    confusion: F64
    precision: list[Figure]
    recall: list[Figure]
    balanced_accuracy: Figure
    log_loss: Figure
    brier: Figure
    balanced: Calibrated
    natural: Calibrated
    by_nights: list[Subset]
    by_source: list[Subset]
    coverage: Figure
    coverage_of: dict[str, float]
    set_size: float


def evaluate(
    raw: F64, calibration: Calibration, sample: Sample, classes: Sequence[str], rng: np.random.Generator
) -> Evaluation:
    """All figures of a part.  raw : (n, c) answers of the model to rows that all are of `classes`."""
    probabilities = calibration.probabilities(raw)
    truth, weight, count = sample.truth(classes), sample.weights(), len(classes)
    sets = calibration.class_set(probabilities)
    held = sets[np.arange(len(truth)), truth].astype(np.float64)
    per_object = (
        1.0 / np.unique(sample.group, return_inverse=True, return_counts=True)[2][_code(sample.group)]
    )

    def statistic(w: F64) -> F64:
        matrix = confusion(probabilities, truth, w)
        found = np.diag(matrix)
        natural = w / weight * per_object
        scalars = [
            np.nanmean(recall(probabilities, truth, w)),
            log_loss(probabilities, truth, w),
            brier(probabilities, truth, w),
            np.average(held, weights=natural),
        ]
        chosen = np.maximum(matrix.sum(axis=0), 1e-12)
        return np.concatenate([found / chosen, recall(probabilities, truth, w), scalars])

    figures = bootstrap(statistic, truth, sample.group, weight, rng)
    matrix = confusion(probabilities, truth, weight)
    shares = np.bincount(truth, per_object, count)
    last = sample.last_rows()
    ended, is_, even = probabilities[last], truth[last], sample.take(last).weights()
    natural = reweighted(ended, calibration.prior, shares / shares.sum())
    objects = [len(np.unique(sample.group[truth == k])) for k in range(count)]
    return Evaluation(
        classes=tuple(classes),
        objects=objects,
        rows=[int((truth == k).sum()) for k in range(count)],
        confusion=matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12),
        precision=figures[:count],
        recall=figures[count : 2 * count],
        balanced_accuracy=figures[-4],
        log_loss=figures[-3],
        brier=figures[-2],
        balanced=calibrated(ended, is_, even, rng),
        natural=calibrated(natural, is_, np.ones(len(last)), rng),
        by_nights=[
            subset(
                name, (sample.n_nights >= low) & (sample.n_nights <= high), probabilities, truth, sample, rng
            )
            for name, (low, high) in NIGHTS.items()
        ],
        by_source=[
            subset(str(name), sample.source == name, probabilities, truth, sample, rng)
            for name in np.unique(sample.source)
        ],
        coverage=figures[-1],
        coverage_of={
            name: float(np.average(held[truth == k], weights=per_object[truth == k]))
            for k, name in enumerate(classes)
            if objects[k] >= _LEAST_FOR_COVERAGE
        },
        set_size=float(np.average(sets.sum(axis=1), weights=per_object)),
    )


def subset(
    label: str, rows: Mask, probabilities: F64, truth: I64, sample: Sample, rng: np.random.Generator
) -> Subset:
    """Balanced accuracy over the classes that some rows contain."""
    if not rows.any():
        return Subset(label, Figure(np.nan, np.nan, np.nan), 0, 0)
    part = sample.take(rows)
    figure = balanced_accuracy(probabilities[rows], truth[rows], part, rng)
    return Subset(label, figure, len(np.unique(truth[rows])), len(np.unique(part.group)))


def balanced_accuracy(probabilities: F64, truth: I64, sample: Sample, rng: np.random.Generator) -> Figure:
    """Mean share of each class that is found as the most probable one, over the classes there are."""
    present = np.unique(truth)
    (figure,) = bootstrap(
        lambda w: np.array([recall(probabilities, truth, w)[present].mean()]),
        truth,
        sample.group,
        sample.weights(),
        rng,
    )
    return figure


def bootstrap(
    statistic: Statistic,
    truth: I64,
    group: npt.NDArray[np.str_],
    weight: F64,
    rng: np.random.Generator,
) -> list[Figure]:
    """Each figure with its 95 % interval: objects are drawn again with replacement within their class."""
    names, code = np.unique(group, return_inverse=True)
    owner = np.zeros(len(names), dtype=np.int64)
    owner[code] = truth
    members = [np.flatnonzero(owner == leaf) for leaf in np.unique(owner)]
    draws = []
    for _ in range(RESAMPLES):
        times = np.zeros(len(names))
        for own in members:
            times[own] = rng.multinomial(len(own), np.full(len(own), 1.0 / len(own)))
        draws.append(statistic(weight * times[code]))
    low, high = np.nanquantile(np.array(draws), INTERVAL, axis=0)
    return [
        Figure(float(v), float(a), float(b)) for v, a, b in zip(statistic(weight), low, high, strict=True)
    ]


def recall(probabilities: F64, truth: I64, weight: F64) -> F64:
    """(c,) share of each class that is found as the most probable one; NaN for a class without rows.

    probabilities : (n, c);  truth, weight : (n,). The mean over classes is the balanced accuracy.
    """
    right = probabilities.argmax(axis=1) == truth
    count = probabilities.shape[1]
    found = np.bincount(truth, weight * right, minlength=count)
    total = np.bincount(truth, weight, minlength=count)
    return np.asarray(np.divide(found, total, out=np.full(count, np.nan), where=total > 0))


def log_loss(probabilities: F64, truth: I64, weight: F64) -> float:
    """Weighted mean of -ln of the true class's probability; ln(classes) for a model that knows nothing."""
    own = probabilities[np.arange(len(truth)), truth]
    return float(np.average(-np.log(np.maximum(own, 1e-12)), weights=weight))


def confusion(probabilities: F64, truth: I64, weight: F64) -> F64:
    """Weight of each (true, most probable) pair (c, c)."""
    count = probabilities.shape[1]
    cell = truth * count + probabilities.argmax(axis=1)
    return np.asarray(np.bincount(cell, weight, minlength=count**2).reshape(count, count), dtype=np.float64)


def brier(probabilities: F64, truth: I64, weight: F64) -> float:
    """Weighted mean of the squared distance to the truth, summed over classes: 0 perfect .. 2 worst."""
    target = np.eye(probabilities.shape[1])[truth]
    return float(np.average(((probabilities - target) ** 2).sum(axis=1), weights=weight))


def calibrated(probabilities: F64, truth: I64, weight: F64, rng: np.random.Generator) -> Calibrated:
    """How well the largest probability matches how often it is right.  probabilities : (n, c)."""
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    bins = reliability(confidence, right, weight)
    draws = [
        debiased_ece(
            reliability(confidence, rng.binomial(1, np.minimum(confidence, 1.0)).astype(float), weight),
            weight,
        )
        for _ in range(RESAMPLES)
    ]
    return Calibrated(debiased_ece(bins, weight), float(np.quantile(draws, 0.95)), bins)


def reliability(confidence: F64, right: F64, weight: F64) -> F64:
    """Mean confidence, accuracy and weight of bins of equal weight, by confidence, (b, 3)."""
    order = np.argsort(confidence, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    bins = np.minimum((share * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    sums = [np.bincount(bins, weight[order] * x, CALIBRATION_BINS) for x in (confidence[order], right[order])]
    total = np.bincount(bins, weight[order], CALIBRATION_BINS)
    filled = total > 0
    return np.column_stack([sums[0][filled] / total[filled], sums[1][filled] / total[filled], total[filled]])


def ece(bins: F64) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over the bins of `reliability`."""
    return float(np.average(np.abs(bins[:, 0] - bins[:, 1]), weights=bins[:, 2]))


def debiased_ece(bins: F64, weight: F64) -> float:
    """The expected calibration error less its bias from the finite number of rows, at least 0.

    bins : of `reliability`;  weight : (n,) of the rows. The bias is that of a normal model of each bin's
    accuracy (Kumar, Liang & Ma 2019, NeurIPS 32, the debiased estimator for the first power).
    """
    effective = weight.sum() ** 2 / (weight**2).sum() * bins[:, 2] / bins[:, 2].sum()
    gap = np.abs(bins[:, 0] - bins[:, 1])
    accuracy = np.clip(bins[:, 1], 0.5 / effective, 1.0 - 0.5 / np.maximum(effective, 1.0))
    spread = np.sqrt(np.maximum(accuracy * (1.0 - accuracy), 0.0) / effective)
    z = np.random.default_rng(0).normal(size=(2000, 1))
    folded = np.abs(gap + spread * z).mean(axis=0)
    return max(0.0, float(np.average(2.0 * gap - folded, weights=bins[:, 2])))


def _code(group: npt.NDArray[np.str_]) -> I64:
    return np.asarray(np.unique(group, return_inverse=True)[1])
