"""How unlike the training sample an object is: the density of that sample about it, and the doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import BadZipFile

import numba
import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.table import ColumnSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NEIGHBOURS = 5
"""Distance to so many-th nearest object of the class: a twin or two do not make a crowd."""
FARTHEST = 5.0
"""Standard deviations: no single feature counts for more, however odd its value is."""

NOVELTY_SPECS: tuple[ColumnSpec, ...] = (
    ColumnSpec(
        "novelty", "", "share of the training sample's objects that look less unlike it, 0 usual .. 1 new"
    ),
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


@dataclass(frozen=True)
class Novelty:
    """A reference sample of k features and c classes, and what is usual in it.

    knots      : (k, q) ascending quantiles of each feature;  scores : (q,) what these would be if Gaussian
    points     : (m, k) objects, class after class, each feature as Gaussian score;  starts : (c+1,)
    distances  : (c, r) ascending quantiles of the distance to the NEIGHBOURS-th nearest of its own class
    doubts     : (r,) ascending quantiles of 1 - largest probability
    combined   : (r,) ascending quantiles of the mean of both ranks
    """

    knots: F64
    scores: F64
    points: F32
    starts: I64
    distances: F64
    doubts: F64
    combined: F64

    def score(self, columns: F64, probabilities: F64) -> F64:
        """Novelty 0..1 of each row, high = unlike anything learnt; never NaN, and free of the other rows.

        columns : (n, k) the features, NaN where unknown (taken as usual);  probabilities : (n, c)
        The mean of two ranks, again as a rank in the reference: how thinly the row's own class (the most
        probable one) is spread about it, and how unsure the classifier is.
        """
        own = np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
        distance = self.distance(self.gaussian(columns), own)
        return rank(self.ranks(distance, own, probabilities), self.combined)

    def ranks(self, distance: F64, own: I64, probabilities: F64) -> F64:
        """(n,) mean of the ranks of distance (n,) in the class `own` (n,) and of doubt."""
        density = np.empty(len(own))
        for k in range(len(self.distances)):
            density[own == k] = rank(distance[own == k], self.distances[k])
        return np.asarray(0.5 * (density + rank(1.0 - probabilities.max(axis=1), self.doubts)))

    def gaussian(self, columns: F64) -> F32:
        """(n, k) each feature as the Gaussian value of its rank, 0 where unknown."""
        return gaussian_scores(np.ascontiguousarray(columns, dtype=np.float64), self.knots, self.scores)

    def distance(self, scores: F32, own: I64) -> F64:
        """(n,) distance of each row to the NEIGHBOURS-th nearest point of its class.  scores : (n, k)."""
        return nearest(scores, own, np.full(len(own), -1), self.points, self.starts, NO_GROUPS)


NO_GROUPS = np.zeros(0, dtype=np.int64)


def rank(values: F64, quantiles: F64) -> F64:
    """Share of a reference that lies below each value.  quantiles : (r,) of it, ascending, evenly spaced."""
    return np.asarray(np.interp(values, quantiles, np.linspace(0.0, 1.0, len(quantiles))))


@_compiled
def gaussian_scores(columns: F64, knots: F64, scores: F64) -> F32:
    """Features as Gaussian values, by straight lines between the knots, and on beyond the outermost.

    columns : (n, k);  knots : (k, q);  scores : (q,). Returns (n, k), 0 for NaN, within FARTHEST.
    """
    result = np.zeros(columns.shape, dtype=np.float32)
    last = scores.shape[0] - 1
    for column in range(columns.shape[1]):
        own = knots[column]
        for row in range(columns.shape[0]):
            value = columns[row, column]
            if np.isnan(value) or not own[last] > own[0]:
                continue
            if value < own[0] or value > own[last]:
                # A decade of the sample's own spread beyond its end counts for one more standard deviation.
                beyond = (own[0] - value if value < own[0] else value - own[last]) / (own[last] - own[0])
                score = scores[last] + np.log10(1.0 + 9.0 * beyond)
                result[row, column] = min(score, FARTHEST) * (-1.0 if value < own[0] else 1.0)
                continue
            first = np.searchsorted(own, value, side="left")
            end = np.searchsorted(own, value, side="right")
            if end > first:  # on knots: the middle of those that share the value
                result[row, column] = 0.5 * (scores[first] + scores[end - 1])
            else:
                part = (value - own[first - 1]) / (own[first] - own[first - 1])
                result[row, column] = scores[first - 1] + part * (scores[first] - scores[first - 1])
    return result


@_compiled
def nearest(rows: F32, own: I64, group: I64, points: F32, starts: I64, point_group: I64) -> F64:
    """Distance of each row to the NEIGHBOURS-th nearest point of a class; inf if it has fewer.

    rows : (n, k);  own, group : (n,) class and object;  points : (m, k), those of class c from starts[c] on
    point_group : (m,) objects of the points, of which a row leaves out its own; empty leaves out none.
    """
    result = np.empty(rows.shape[0])
    best = np.empty(NEIGHBOURS)
    for row in range(rows.shape[0]):
        best[:] = np.inf
        for j in range(starts[own[row]], starts[own[row] + 1]):
            if point_group.shape[0] > 0 and point_group[j] == group[row]:
                continue
            square = 0.0
            for k in range(rows.shape[1]):
                square += float(rows[row, k] - points[j, k]) ** 2
            place = NEIGHBOURS
            while place > 0 and square < best[place - 1]:
                if place < NEIGHBOURS:
                    best[place] = best[place - 1]
                place -= 1
            if place < NEIGHBOURS:
                best[place] = square
        result[row] = np.sqrt(best[NEIGHBOURS - 1])
    return result


def save_novelty(path: Path, novelty: Novelty) -> None:
    """Write a reference as an npz of plain arrays."""
    np.savez_compressed(path, **vars(novelty))


def load_novelty(path: Path, inputs: int, classes: int) -> Novelty:
    """The reference of a bundle whose files have been checked; BundleError unless it fits.

    inputs, classes : how many features and classes the stage has that it belongs to
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            novelty = Novelty(**stored)
    except (OSError, BadZipFile, TypeError, ValueError) as error:
        raise BundleError(f"{path} is no novelty reference: {error}; get the bundle anew") from None
    n = novelty
    fits = (
        n.knots.shape == (inputs, len(n.scores))
        and n.points.shape == (n.starts[-1], inputs)
        and n.starts.shape == (classes + 1,)
        and n.distances.shape[:1] == (classes,)
        and bool(np.all(np.diff(n.starts) >= 0))
        and n.starts[0] == 0
    )
    if not fits:
        raise BundleError(f"{path} is not for {inputs} inputs and {classes} classes; train the bundle again")
    return novelty
