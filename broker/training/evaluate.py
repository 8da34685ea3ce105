"""How good the probabilities are on objects the model has not seen, with intervals by resampling objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.training.classifier import equal_weights, indices, log_loss, recall
from broker.training.dataset import STREAM_SOURCE, Windows

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Statistic = Callable[[F64], F64]
"""Figures (s,) for window weights (w,)."""

RESAMPLES = 400
DETECTION_BINS = {"1": (1, 1), "2-3": (2, 3), "4-6": (4, 6), "7-12": (7, 12), "13 or more": (13, 10**9)}
CALIBRATION_BINS = 8


@dataclass(frozen=True)
class Figure:
    """A number with the interval that holds 90 % of its resampled values."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Subset:
    """Balanced accuracy on some of the windows, over the classes that these contain."""

    label: str
    balanced_accuracy: Figure
    classes: int
    objects: int


@dataclass(frozen=True)
class Evaluation:
    """Figures of one part of the data; every class weighs the same, and in it every object.

    confusion : (c, c) row = true class, sums to 1;  objects, windows : (c,) counts
    by_detections, in_stream : by DETECTION_BINS; windows of the stream's own source only
    reliability : confidence, accuracy and weight of each bin, (b, 3)
    """

    leaves: tuple[str, ...]
    objects: list[int]
    windows: list[int]
    confusion: F64
    precision: list[Figure]
    recall: list[Figure]
    balanced_accuracy: Figure
    log_loss: Figure
    brier: Figure
    ece: Figure
    by_detections: list[Subset]
    in_stream: Subset
    reliability: F64


def evaluate(
    probabilities: F64, windows: Windows, leaves: tuple[str, ...], rng: np.random.Generator
) -> Evaluation:
    """All figures of a part.  probabilities : (w, c) of the leaves."""
    truth, weight = indices(windows.leaf, leaves), equal_weights(windows.leaf, windows.group)
    count = len(leaves)

    def statistic(w: F64) -> F64:
        matrix = confusion(probabilities, truth, w)
        found = np.diag(matrix)
        scalars = [
            np.mean(found / matrix.sum(axis=1)),
            log_loss(probabilities, truth, w),
            brier(probabilities, truth, w),
            calibration_error(reliability(probabilities, truth, w)),
        ]
        chosen = np.maximum(matrix.sum(axis=0), 1e-12)
        return np.concatenate([found / chosen, found / matrix.sum(axis=1), scalars])

    figures = bootstrap(statistic, truth, windows, weight, rng)
    matrix = confusion(probabilities, truth, weight)
    return Evaluation(
        leaves=leaves,
        objects=[len(np.unique(windows.group[truth == i])) for i in range(count)],
        windows=[int((truth == i).sum()) for i in range(count)],
        confusion=matrix / matrix.sum(axis=1, keepdims=True),
        precision=figures[:count],
        recall=figures[count : 2 * count],
        balanced_accuracy=figures[-4],
        log_loss=figures[-3],
        brier=figures[-2],
        ece=figures[-1],
        by_detections=[
            subset(label, _between(windows.detections, low, high), probabilities, truth, windows, rng)
            for label, (low, high) in DETECTION_BINS.items()
        ],
        in_stream=subset(
            "alert histories only", windows.source == STREAM_SOURCE, probabilities, truth, windows, rng
        ),
        reliability=reliability(probabilities, truth, weight),
    )


def subset(
    label: str,
    rows: npt.NDArray[np.bool_],
    probabilities: F64,
    truth: I64,
    windows: Windows,
    rng: np.random.Generator,
) -> Subset:
    """Balanced accuracy over the classes that some windows contain."""
    if not rows.any():
        return Subset(label, Figure(np.nan, np.nan, np.nan), 0, 0)
    part = windows.take(rows)
    p, own = probabilities[rows], truth[rows]
    present = np.unique(own)
    (figure,) = bootstrap(
        lambda w: np.array([recall(p, own, w)[present].mean()]),
        own,
        part,
        equal_weights(part.leaf, part.group),
        rng,
    )
    return Subset(label, figure, len(present), len(np.unique(part.group)))


def bootstrap(
    statistic: Statistic, truth: I64, windows: Windows, weight: F64, rng: np.random.Generator
) -> list[Figure]:
    """Each figure with its 90 % interval: objects are drawn again with replacement within their class."""
    names, code = np.unique(windows.group, return_inverse=True)
    owner = np.zeros(len(names), dtype=np.int64)
    owner[code] = truth
    members = [np.flatnonzero(owner == leaf) for leaf in np.unique(truth)]
    draws = []
    for _ in range(RESAMPLES):
        times = np.zeros(len(names))
        for group in members:
            times[group] = rng.multinomial(len(group), np.full(len(group), 1.0 / len(group)))
        draws.append(statistic(weight * times[code]))
    low, high = np.quantile(np.array(draws), [0.05, 0.95], axis=0)
    return [
        Figure(float(v), float(a), float(b)) for v, a, b in zip(statistic(weight), low, high, strict=True)
    ]


def confusion(probabilities: F64, truth: I64, weight: F64) -> F64:
    """Weight of each (true, most probable) pair (c, c)."""
    count = probabilities.shape[1]
    cell = truth * count + probabilities.argmax(axis=1)
    return np.asarray(np.bincount(cell, weight, minlength=count**2).reshape(count, count), dtype=np.float64)


def brier(probabilities: F64, truth: I64, weight: F64) -> float:
    """Weighted mean of the squared distance to the truth, summed over classes: 0 perfect .. 2 worst."""
    target = np.eye(probabilities.shape[1])[truth]
    return float(np.average(((probabilities - target) ** 2).sum(axis=1), weights=weight))


def reliability(probabilities: F64, truth: I64, weight: F64) -> F64:
    """Mean confidence, accuracy and weight of bins of equal weight, by the largest probability, (b, 3)."""
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    bins = np.minimum((share * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    sums = [np.bincount(bins, weight[order] * x, CALIBRATION_BINS) for x in (confidence[order], right[order])]
    total = np.bincount(bins, weight[order], CALIBRATION_BINS)
    filled = total > 0
    return np.column_stack([sums[0][filled] / total[filled], sums[1][filled] / total[filled], total[filled]])


def calibration_error(bins: F64) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over the bins of `reliability`."""
    return float(np.average(np.abs(bins[:, 0] - bins[:, 1]), weights=bins[:, 2]))


def _between(count: I64, low: int, high: int) -> npt.NDArray[np.bool_]:
    return (count >= low) & (count <= high)
