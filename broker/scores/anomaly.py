"""How strange an alert's features are: an isolation forest kept as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.bundle import Manifest, column_indices
from broker.table import ColumnSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

FOREST_FILE = "anomaly.npz"
_LARGEST = 1e38
"""Beyond this a number does not fit single precision; no threshold lies there."""

ANOMALY_SPECS: tuple[ColumnSpec, ...] = (
    ColumnSpec(
        "anomaly", "", "isolation forest on the features, 0 ordinary .. 1 strange; about 0.5 is average"
    ),
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


@dataclass(frozen=True)
class Forest:
    """An isolation forest: all its trees' nodes laid one after the other.

    feature : (nodes,) column a node asks for, -1 at a leaf;  threshold : (nodes,) left if value <= threshold
    left, right : (nodes,) positions of the children;  length : (nodes,) path length that a leaf stands for
    roots : (trees,) position of each root;  scale : average path length of an unsuccessful search, all trees
    medians : (columns,) what takes the place of a missing value
    """

    feature: I32
    threshold: F64
    left: I32
    right: I32
    length: F64
    roots: I32
    scale: float
    medians: F64

    def anomaly(self, columns: F64) -> F64:
        """Strangeness 0..1, high = strange: 2^(-mean path length / average path length).

        columns : (n, c) the forest's own inputs, NaN where unknown;  returns (n,), never NaN.
        Source: Liu, Ting & Zhou 2008, ICDM, eq. 2. The negative of scikit-learn's `score_samples`.
        """
        known = np.where(np.isfinite(columns), columns, self.medians)
        # scikit-learn grows its trees on single precision: the comparison must see the same rounding.
        values = np.ascontiguousarray(np.clip(known, -_LARGEST, _LARGEST).astype(np.float32))
        total = path_lengths(
            values, self.feature, self.threshold, self.left, self.right, self.length, self.roots
        )
        return np.asarray(np.exp2(-total / self.scale))


@_compiled
def path_lengths(
    values: F32, feature: I32, threshold: F64, left: I32, right: I32, length: F64, roots: I32
) -> F64:
    """Sum over the trees of the path length at which each row ends.  values : (n, c);  returns (n,)."""
    total = np.zeros(values.shape[0])
    for row in range(values.shape[0]):
        for root in roots:
            node = root
            while feature[node] >= 0:
                node = left[node] if values[row, feature[node]] <= threshold[node] else right[node]
            total[row] += length[node]
    return total


@dataclass(frozen=True)
class AnomalyScore:
    """A forest over some columns of the feature matrix."""

    forest: Forest
    inputs: list[int]

    def score(self, matrix: F64) -> F64:
        """Column of ANOMALY_SPECS for each row, always finite.  matrix : (n, k), NaN where unknown."""
        return self.forest.anomaly(matrix[:, self.inputs])[:, np.newaxis]


def save_forest(path: Path, forest: Forest) -> None:
    """Write a forest as an npz of plain arrays."""
    np.savez_compressed(path, **vars(forest))


def load_anomaly(folder: Path, manifest: Manifest) -> AnomalyScore:
    """The forest of a bundle whose files have been checked; BundleError if its parts disagree."""
    inputs = column_indices(manifest, manifest.anomaly_inputs)
    with np.load(folder / FOREST_FILE, allow_pickle=False) as stored:
        forest = Forest(**{**stored, "scale": float(stored["scale"])})
    _check(forest, len(inputs), folder)
    return AnomalyScore(forest, inputs)


def _check(forest: Forest, inputs: int, folder: Path) -> None:
    """BundleError unless every walk stays inside the arrays and ends: children lie behind their parent."""
    count, inner = len(forest.feature), np.flatnonzero(forest.feature >= 0)
    children = np.concatenate([forest.left[inner], forest.right[inner]])
    sizes = {len(forest.threshold), len(forest.left), len(forest.right), len(forest.length)}
    if (
        sizes != {count}
        or len(forest.medians) != inputs
        or forest.feature.max(initial=-1) >= inputs
        or np.any(children <= np.tile(inner, 2))
        or children.max(initial=-1) >= count
        or np.any((forest.roots < 0) | (forest.roots >= count))
    ):
        raise BundleError(f"bundle {folder}: {FOREST_FILE} is not a forest over its {inputs} inputs")
