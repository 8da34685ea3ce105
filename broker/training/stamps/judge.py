"""How good the network is on images of fields that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from broker.training.evaluate import Calibrated, Figure, bootstrap, brier, calibrated, log_loss
from broker.training.stamps.sample import StampSample

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Statistic = Callable[[F64], float]
"""A figure for row weights (n,)."""


@dataclass(frozen=True)
class Row:
    """The area under the curve of one score on some rows.  fields, real, bogus : how many"""

    score: str
    auc: Figure
    fields: int
    real: int
    bogus: int


@dataclass(frozen=True)
class Candidate:
    """A size of the network that was tried, and how it did on validation.

    widths : channels of its convolutions
    """

    widths: tuple[int, int, int]
    log_loss: float
    auc: float


@dataclass(frozen=True)
class Kind:
    """Of one kind of test images: how many, and the share that is called real (score over 0.5)."""

    name: str
    real: bool
    images: int
    called_real: Figure


@dataclass(frozen=True)
class Judgement:
    """Everything that was measured; the intervals of figures are over fields of the test part.

    packets : alerts and fields of each part;  images : real and bogus images of each part
    injected : areas on injections;  by_rb, by_either : on alerts as they are, where drb over 0.9 is real and
    bogus is rb under 0.3, or either score under 0.3
    drb_rank : rank correlation of score and drb over test alerts, and their number
    curves : (false positive rate, true positive rate) on injections, by score
    """

    name: str
    seed: int
    packets: dict[str, tuple[int, int]]
    images: dict[str, tuple[int, int]]
    candidates: Sequence[Candidate]
    chosen: Candidate
    temperature: float
    injected: list[Row]
    by_rb: list[Row]
    by_either: list[Row]
    drb_rank: tuple[float, int]
    kinds: list[Kind]
    balanced_accuracy: Figure
    log_loss: Figure
    brier: Figure
    calibration: Calibrated
    curves: Mapping[str, tuple[F64, F64]]


def area(name: str, score: F64, real: F64, field: I64, rng: np.random.Generator) -> Row:
    """The area under the curve over rows that have a score, its interval by drawing fields again.

    score : (n,) NaN where there is none;  real : (n,) 1 or 0
    """
    known = np.isfinite(score)
    score, real, field = score[known], real[known], field[known]
    counts = (len(np.unique(field)), int(real.sum()), int((real == 0.0).sum()))
    if min(counts) == 0:
        return Row(name, Figure(np.nan, np.nan, np.nan), *counts)
    figure = over_fields(_area_of(score, real), real, field, rng)
    return Row(name, figure, *counts)


def over_fields(statistic: Statistic, real: F64, field: I64, rng: np.random.Generator) -> Figure:
    """A statistic of row weights with its interval: fields are drawn again, each with all its rows.

    Fields with a bogus row are drawn among themselves, so no draw is without one where they are few.
    """
    names, code = np.unique(field, return_inverse=True)
    some = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(some, code, (real == 0.0).astype(np.int64))
    (figure,) = bootstrap(
        lambda w: np.array([statistic(w)]), some[code], field.astype(np.str_), np.ones(len(real)), rng
    )
    return figure


def _area_of(score: F64, real: F64) -> Statistic:
    """The area under the curve for row weights: the chance that a real row scores higher than a bogus one.

    Of equal scores half count. NaN where the weights leave rows of one label only.
    """
    place = np.unique(score, return_inverse=True)[1]

    def area(weight: F64) -> float:
        above = np.bincount(place, weight * real)
        below = np.bincount(place, weight * (1.0 - real))
        pairs = above.sum() * below.sum()
        return float(above @ (np.cumsum(below) - 0.5 * below) / pairs) if pairs > 0.0 else np.nan

    return area


def kinds(probability: F64, sample: StampSample, rng: np.random.Generator) -> list[Kind]:
    """How each kind of images is judged."""
    found = []
    for name in np.unique(sample.kind).tolist():
        part = sample.take(sample.kind == name)
        called = (probability[sample.kind == name] > 0.5).astype(np.float64)
        figure = over_fields(_mean_of(called), part.real, part.field, rng)
        found.append(Kind(name, bool(part.real[0]), len(part), figure))
    return sorted(found, key=lambda kind: (not kind.real, kind.name))


def _mean_of(values: F64) -> Statistic:
    return lambda weight: float(np.average(values, weights=weight))


def whole(
    probability: F64, sample: StampSample, rng: np.random.Generator
) -> tuple[Figure, Figure, Figure, Calibrated]:
    """Balanced accuracy, log-loss, Brier score (0 perfect .. 2) and calibration, by the sample's weights."""
    both = np.column_stack([1.0 - probability, probability])
    truth = sample.real.astype(np.int64)
    right = (both.argmax(axis=1) == truth).astype(np.float64)
    statistics = (
        lambda w: float(np.mean([_share(right, w * sample.weight, truth == k) for k in (0, 1)])),
        lambda w: log_loss(both, truth, w * sample.weight),
        lambda w: brier(both, truth, w * sample.weight),
    )
    first, second, third = (over_fields(one, sample.real, sample.field, rng) for one in statistics)
    return first, second, third, calibrated(both, truth, sample.weight, rng)


def _share(right: F64, weight: F64, rows: npt.NDArray[np.bool_]) -> float:
    return float(np.average(right[rows], weights=weight[rows]))


def rank(score: F64, drb: F64) -> tuple[float, int]:
    """Rank correlation of two scores over the rows that have both, and their number; NaN below 3."""
    known = np.isfinite(score) & np.isfinite(drb)
    if known.sum() < 3:
        return np.nan, int(known.sum())
    return float(spearmanr(score[known], drb[known]).statistic), int(known.sum())
