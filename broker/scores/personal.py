"""How strange an alert is to one person: trees that everybody shares, leaves that each weighs alone.

An isolation tree splits alerts at random and needs nobody's opinion; what a person marked only changes what
ending in a leaf is worth. So a survey's trees are walked once a batch, however many people have a forest,
and each forest costs a sum over as many leaves as there are trees. Everything is plain arrays: these come
from a topic, and whatever is read is checked first.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

MAX_BYTES = 2 * 1024 * 1024
"""Of the arrays of a forest or of trees, as they are stored."""
MAX_UNPACKED_BYTES = 16 * 1024 * 1024
MAX_TREES = 1000
PERSONAL_INPUTS = (
    "rise_rate_g", "rise_rate_r", "rise_rate_i", "rise_rate_z", "fade_rate_g", "fade_rate_r", "slope_g",
    "slope_r", "slope", "last_to_peak_g", "last_to_peak_r", "last_to_peak", "amplitude_g", "amplitude_r",
    "amplitude", "skew_g", "skew_r", "excess_variance_g", "excess_variance_r", "von_neumann_g",
    "von_neumann_r", "stetson_k_g", "stetson_k_r", "color_gr", "color_gr_first", "color_gr_rate",
    "frac_negative", "peak_mag_g", "peak_mag_r", "peak_mag_i", "peak_mag_z",
)  # fmt: skip
"""Features that a survey's trees may ask for: computed anew for every alert, and no times, which would call
strange whatever has been known for longer than a packet holds. More of them only dilute what marks say."""
MIN_KNOWN = 0.05
"""Share of a survey's recent alerts that must know an input: a band that is never used says nothing."""
_LARGEST = 1e38
"""Beyond this a number does not fit single precision; no threshold lies there."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


@dataclass(frozen=True)
class Trees:
    """Isolation trees over some features: all their nodes, one tree after the other.

    inputs : (c,) names of features;  medians : (c,) what takes the place of a value that is missing
    left : (nodes,) place in its own tree of a node's left child, behind which the right one lies; 0 at a leaf
    feature : (nodes,) the input that a node asks for; at a leaf the leaf's number in its tree
    value : (nodes,) left if the input is at most this; at a leaf the path length it stands for
    path : (nodes,) average path length of a search among a node's points
    sizes : (trees,) nodes of each tree;  subsample : points that each tree was grown on
    """

    inputs: tuple[str, ...]
    medians: F32
    left: I32
    feature: I32
    value: F32
    path: F32
    sizes: I32
    subsample: int

    @cached_property
    def roots(self) -> I32:
        """(trees,) place of each tree's first node."""
        return (np.cumsum(self.sizes) - self.sizes).astype(np.int32)

    @cached_property
    def leaf_count(self) -> int:
        """Leaves of all trees together."""
        return int((self.left == 0).sum())

    @cached_property
    def _walk(self) -> tuple[I32, I32, F32, I32]:
        """Left child among all nodes (-1 at a leaf), input asked for or leaf among all, limit, roots."""
        leaf = self.left == 0
        first_node = np.repeat(self.roots, self.sizes)
        leaves = np.add.reduceat(leaf, self.roots, dtype=np.int64)
        first_leaf = np.repeat(np.cumsum(leaves) - leaves, self.sizes)
        child = np.where(leaf, -1, self.left + first_node).astype(np.int32)
        asked = np.where(leaf, self.feature + first_leaf, self.feature).astype(np.int32)
        return child, asked, self.value, self.roots

    def filled(self, columns: F64) -> F32:
        """Inputs as the trees were grown on them.  columns : (n, c), NaN where unknown;  returns (n, c)."""
        known = np.where(np.isfinite(columns), columns, self.medians)
        return np.ascontiguousarray(np.clip(known, -_LARGEST, _LARGEST).astype(np.float32))

    def leaves(self, columns: F64) -> I32:
        """Where each row ends in each tree.

        columns : (n, c), NaN where unknown;  returns (n, trees), leaves numbered through all trees.
        """
        return _leaves(self.filled(columns), *self._walk)


@dataclass(frozen=True)
class PersonalForest:
    """What a person's marks made of the trees.

    trees : the trees;  worth : (leaves,) what ending in a leaf adds to the strangeness
    quantiles : (q,) strangeness of recent alerts, ascending, evenly spaced from the least to the most strange
    """

    trees: Trees
    worth: F32
    quantiles: F64

    def strangeness(self, leaves: I32) -> F64:
        """High = strange, in no particular unit.  leaves : (n, trees) of Trees.leaves;  returns (n,)."""
        return _sums(leaves, self.worth)

    def rank(self, leaves: I32) -> F64:
        """Share of recent alerts that are less strange, 0..1.  leaves : (n, trees);  returns (n,).

        Alerts as strange as many others have the rank of the first of them: what is common is not strange.
        """
        below = np.searchsorted(self.quantiles, self.strangeness(leaves), side="left")
        return np.asarray(below / len(self.quantiles))


@_compiled
def _leaves(values: F32, child: I32, asked: I32, limit: F32, roots: I32) -> I32:
    found = np.empty((values.shape[0], len(roots)), dtype=np.int32)
    for number in range(len(roots)):  # tree by tree: one fits the nearest cache
        for row in range(values.shape[0]):
            node = roots[number]
            while child[node] >= 0:
                node = child[node] + (values[row, asked[node]] > limit[node])
            found[row, number] = asked[node]
    return found


@_compiled
def _sums(leaves: I32, worth: F32) -> F64:
    total = np.zeros(leaves.shape[0])
    for row in range(leaves.shape[0]):
        for leaf in leaves[row]:
            total[row] += worth[leaf]
    return total


def warm_up() -> None:
    """Compile the kernels, or load them from the cache."""
    tree = np.zeros(1, dtype=np.int32)
    leaves = _leaves(np.zeros((1, 1), dtype=np.float32), tree - 1, tree, tree.astype(np.float32), tree)
    _sums(leaves, np.zeros(1, dtype=np.float32))


def pack_trees(trees: Trees) -> bytes:
    """Trees as an npz of plain arrays."""
    arrays = {name: getattr(trees, name) for name in ("medians", "left", "feature", "value", "path", "sizes")}
    return _packed(arrays | {"inputs": np.array(trees.inputs), "subsample": np.array(trees.subsample)})


def unpack_trees(content: bytes) -> Trees:
    """Trees of which every walk ends at a leaf.  Raises ValueError, or what NumPy raises, for others."""
    stored = _arrays(content)
    trees = Trees(
        inputs=tuple(str(name) for name in stored["inputs"]),
        medians=np.ascontiguousarray(stored["medians"], np.float32),
        left=np.ascontiguousarray(stored["left"], np.int32),
        feature=np.ascontiguousarray(stored["feature"], np.int32),
        value=np.ascontiguousarray(stored["value"], np.float32),
        path=np.ascontiguousarray(stored["path"], np.float32),
        sizes=np.ascontiguousarray(stored["sizes"], np.int32),
        subsample=int(stored["subsample"]),
    )
    _check(trees)
    return trees


def pack_forest(forest: PersonalForest) -> bytes:
    """What a forest adds to its trees, as an npz of plain arrays."""
    return _packed({"worth": forest.worth, "quantiles": forest.quantiles})


def unpack_forest(content: bytes, trees: Trees) -> PersonalForest:
    """A forest on its trees.  Raises ValueError, or what NumPy raises, if it is none."""
    stored = _arrays(content)
    worth = np.ascontiguousarray(stored["worth"], np.float32)
    quantiles = np.ascontiguousarray(stored["quantiles"], np.float64)
    if worth.shape != (trees.leaf_count,) or not np.isfinite(worth).all():
        raise ValueError(f"a forest of {worth.shape} leaves on trees of {trees.leaf_count}")
    if quantiles.ndim != 1 or not len(quantiles) or not (np.diff(quantiles) >= 0).all():
        raise ValueError("the quantiles of a forest do not ascend")
    return PersonalForest(trees, worth, quantiles)


def _packed(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    plain = io.BytesIO()
    np.savez_compressed(plain, allow_pickle=False, **arrays)
    return plain.getvalue()


def _arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz that may come from anybody, their size bounded before one is read."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"arrays of {len(content):,} bytes; they have at most {MAX_BYTES:,}")
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        if sum(part.file_size for part in parts.infolist()) > MAX_UNPACKED_BYTES:
            raise ValueError(f"arrays that unpack to more than {MAX_UNPACKED_BYTES:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def _check(trees: Trees) -> None:
    """ValueError unless every walk stays inside its tree and ends at a leaf of its own."""
    shapes = {trees.left.shape, trees.feature.shape, trees.value.shape, trees.path.shape}
    if shapes != {(int(trees.sizes.sum()),)} or not 0 < len(trees.sizes) <= MAX_TREES:
        raise ValueError("the arrays of the trees do not have one length")
    if (trees.sizes < 1).any() or trees.medians.shape != (len(trees.inputs),) or trees.subsample < 1:
        raise ValueError("trees without nodes, inputs or points")
    place = np.arange(len(trees.left)) - np.repeat(trees.roots, trees.sizes)
    inner, size = trees.left != 0, np.repeat(trees.sizes, trees.sizes)
    inside = (trees.left > place) & (trees.left + 1 < size)
    asked = (trees.feature >= 0) & (trees.feature < len(trees.inputs))
    if not (inside & asked)[inner].all():
        raise ValueError("a tree with a node that leads nowhere")
    numbers = [np.arange(count) for count in np.add.reduceat(~inner, trees.roots, dtype=np.int64)]
    if not np.array_equal(trees.feature[~inner], np.concatenate(numbers)):
        raise ValueError("a tree whose leaves are not numbered in their order")
