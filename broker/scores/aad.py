"""Active anomaly detection by coniferest: grow a survey's trees, weigh their leaves by a person's marks.

Isolation trees are grown without labels. Marks then move the worth of the leaves they end in: down for what a
person finds boring, up for what is interesting, as little as it takes to put the interesting ones in front.
Source: Das et al. 2017, arXiv:1708.09441; Ishida et al. 2021, A&A 650, A195 (the same in a broker).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from coniferest._core import CoreForest
from coniferest.aadforest import AADEvaluator, AADForest
from coniferest.coniferest import Tree
from coniferest.label import Label

from broker.scores.personal import F64, MIN_KNOWN, PersonalForest, Trees

TREES = 100
SUBSAMPLE = 256
DEPTH_VALUE = "exponential"
"""A leaf is worth 1 - exp(- path length): what is not isolated early counts the same however deep it ends."""
PRIOR_INFLUENCE = 1e-4
"""How much the worth of leaves clings to what it was: from 0.1 down to 1e-4 marks count ever more, both for
made-up outliers and for supernovae of the Open Supernova Catalog; below, nothing is gained."""
ONE_SIDED_BUDGET = 0.03
"""Share of recent alerts that may be as strange as the interesting ones, or stranger, while only one verdict
was ever given: with both, what divides them is fitted."""
QUANTILES = 1001


def grow(recent: F64, names: Sequence[str], seed: int) -> Trees:
    """Trees of a survey's recent alerts, on those features that enough of them know.

    recent : (n, c) features, NaN where unknown, n >= 2;  names : (c,) of the features
    Raises ValueError if no feature is known.
    """
    share = np.isfinite(recent).mean(axis=0)
    kept = np.flatnonzero((share >= MIN_KNOWN) & (share > 0.0))
    if not len(kept):
        raise ValueError("no feature of the recent alerts is known")
    reference = recent[:, kept]
    medians = np.nanmedian(np.where(np.isfinite(reference), reference, np.nan), axis=0).astype(np.float32)
    columns = np.where(np.isfinite(reference), reference, medians).astype(np.float32)
    subsample = min(SUBSAMPLE, len(columns))
    model = AADForest(n_trees=TREES, n_subsamples=subsample, n_jobs=1, random_seed=seed).fit(columns)
    trees = list(model.core_forest)
    return Trees(
        tuple(names[index] for index in kept.tolist()),
        medians,
        left=np.concatenate([tree.left for tree in trees]).astype(np.int32),
        feature=np.concatenate([tree.feature for tree in trees]).astype(np.int32),
        value=np.concatenate([tree.value for tree in trees]).astype(np.float32),
        path=np.concatenate([tree.node_average_path_length for tree in trees]).astype(np.float32),
        sizes=np.array([tree.n_nodes for tree in trees], dtype=np.int32),
        subsample=subsample,
    )


def personal_forest(
    trees: Trees, marked: F64, interesting: npt.NDArray[np.bool_], recent: F64
) -> PersonalForest:
    """The forest of a person; without marks the plain isolation forest.

    marked : (m, c) features of the marked alerts, NaN where unknown;  interesting : (m,), else boring
    recent : (n, c) of recent alerts, whose strangeness gives the ranks, n >= 1
    """
    model = weighed(trees, marked, interesting, recent)
    worth = (-model.evaluator.weights * model.evaluator.leaf_values).astype(np.float32)
    plain = PersonalForest(trees, worth, np.zeros(1))
    strangeness = plain.strangeness(trees.leaves(recent))
    return PersonalForest(trees, worth, np.quantile(strangeness, np.linspace(0.0, 1.0, QUANTILES)))


def weighed(trees: Trees, marked: F64, interesting: npt.NDArray[np.bool_], recent: F64) -> AADForest:
    """The model of coniferest on these trees after some marks; its scores are low for what is strange."""
    one_sided = len(interesting) > 0 and interesting.all() != (~interesting).all()
    model = AADForest(
        n_trees=len(trees.sizes),
        n_subsamples=trees.subsample,
        prior_influence=PRIOR_INFLUENCE,
        budget=ONE_SIDED_BUDGET if one_sided else "auto",
        map_value=DEPTH_VALUE,
        n_jobs=1,
    )
    model.core_forest = CoreForest(_core_trees(trees), n_features=len(trees.inputs), num_threads=1)
    model.evaluator = AADEvaluator(model)
    if len(marked):
        labels = np.where(interesting, Label.ANOMALY, Label.REGULAR)
        model.fit_known(trees.filled(recent), trees.filled(marked), labels)
    return model


def _core_trees(trees: Trees) -> list[Tree]:
    ends = np.cumsum(trees.sizes)
    spans = [slice(int(start), int(end)) for start, end in zip(trees.roots, ends, strict=True)]
    return [
        Tree(
            trees.left[span].astype(np.uint32),
            trees.feature[span].astype(np.uint32),
            trees.value[span],
            trees.path[span],
            trees.subsample,
        )
        for span in spans
    ]
