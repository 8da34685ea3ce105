"""Grow the isolation forest on real alert histories and turn it into plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest

from broker.scores.anomaly import Forest

F64 = npt.NDArray[np.float64]

TREES = 100
SAMPLES_PER_TREE = 256

ANOMALY_INPUTS = (
    # No times: they would call every object strange that has been known for longer than a packet's history.
    "rise_rate_g", "rise_rate_r", "fade_rate_g", "fade_rate_r", "slope_g", "slope_r", "last_to_peak_g",
    "last_to_peak_r", "amplitude_g", "amplitude_r", "skew_g", "skew_r", "excess_variance_g",
    "excess_variance_r", "von_neumann_g", "von_neumann_r", "stetson_k_g", "stetson_k_r", "color_gr",
    "color_gr_first", "color_gr_rate", "frac_negative", "peak_mag_g", "peak_mag_r", "color_gr_err",
)  # fmt: skip
"""One survey, one source: brightness and sign give nothing away here."""


def grow(columns: F64, seed: int) -> tuple[Forest, IsolationForest]:
    """A forest on some windows, and scikit-learn's own for comparison.

    columns : (w, len(ANOMALY_INPUTS)), NaN replaced by the column's median (0 if it has none).
    """
    medians = np.array([np.median(known) if len(known := x[np.isfinite(x)]) else 0.0 for x in columns.T])
    filled = np.where(np.isfinite(columns), columns, medians)
    model = IsolationForest(
        n_estimators=TREES, max_samples=min(SAMPLES_PER_TREE, len(filled)), random_state=seed, n_jobs=1
    ).fit(filled)
    return flatten(model, medians), model


def flatten(model: IsolationForest, medians: F64) -> Forest:
    """scikit-learn's trees as the arrays of a Forest."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    columns = np.concatenate(
        [
            features[np.maximum(tree.feature, 0)]
            for tree, features in zip(trees, model.estimators_features_, strict=True)
        ]
    )
    feature = np.concatenate([tree.feature for tree in trees])
    return Forest(
        feature=np.where(feature < 0, -1, columns).astype(np.int32),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=_children([tree.children_left for tree in trees], roots),
        right=_children([tree.children_right for tree in trees], roots),
        length=np.concatenate([_lengths(tree) for tree in trees]),
        roots=roots.astype(np.int32),
        scale=float(len(trees) * average_path(np.array([model.max_samples_]))[0]),
        medians=medians,
    )


def average_path(count: npt.NDArray[Any]) -> F64:
    """Average path length of an unsuccessful search in a binary tree of some points.

    count : (n,);  returns (n,): 2 (ln(c - 1) + Euler's gamma) - 2 (c - 1)/c, 1 for two points, 0 for one.
    Source: Liu, Ting & Zhou 2008, ICDM, eq. 1.
    """
    many = np.maximum(np.asarray(count, dtype=np.float64), 3.0)
    general = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(count <= 1, 0.0, np.where(count == 2, 1.0, general))


def _children(children: list[npt.NDArray[Any]], roots: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    shifted = [np.where(own < 0, 0, own + root) for own, root in zip(children, roots, strict=True)]
    return np.concatenate(shifted).astype(np.int32)


def _lengths(tree: Any) -> F64:
    """Path length of each node: its depth, and what a search among its points would still take."""
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # children come after their parent
        if tree.children_left[node] >= 0:
            depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1.0
    return depth + average_path(tree.n_node_samples)
