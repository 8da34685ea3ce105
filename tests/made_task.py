"""Tasks made for the tests: two families, and two leaves of one of them, that differ in a few features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from broker.context import CONTEXT_NAMES
from broker.features.catalog import FEATURES
from broker.training.sample import Sample
from broker.training.task import Task

NAMES = (*(feature.name for feature in FEATURES), *CONTEXT_NAMES)
INPUTS = ("age_days", "color_gr", "amplitude_g", "skew_g", "star_score")
PARAMETRIC = ("fit_rise_days", "fit_fall_days")


def made_sample(counts: dict[str, int], told_by: str, seed: int = 1, rows: int = 2) -> Sample:
    """Objects of some classes, some states of each; the feature `told_by` tells most of them apart."""
    rng = np.random.default_rng(seed)
    label = np.repeat(list(counts), [rows * count for count in counts.values()])
    number = np.concatenate([np.repeat(np.arange(count), rows) for count in counts.values()])
    group = np.char.add(np.char.add(label, " "), number.astype(np.str_))
    features = np.full((len(label), len(NAMES)), np.nan)
    for name in (*INPUTS, *PARAMETRIC):
        features[:, NAMES.index(name)] = rng.normal(size=len(label))
    features[:, NAMES.index(told_by)] += 3.0 * np.unique(label, return_inverse=True)[1]
    features[rng.random(features.shape) < 0.1] = np.nan
    features[:, NAMES.index("n_detections")] = 6.0
    ones = np.full(len(label), 6, dtype=np.int64)
    source = np.where(number % 2 == 0, "even", "odd")
    return Sample(NAMES, features, label, source, group, group, ones, ones // 3, ones, ones / 2.0)


def made_task(name: str, parent: str, counts: dict[str, int], told_by: str) -> Task:
    """A task whose rows are made, whatever the folder."""

    def states(seed: int) -> Callable[[Path], Sample]:
        return lambda data: made_sample(counts, told_by, seed)

    return Task(
        name, parent, tuple(counts), INPUTS, PARAMETRIC, ("even", "odd"), 5 if parent else 1,
        states(1), states(2), states(3),
    )  # fmt: skip


FAMILY = made_task("family", "", {"transient": 60, "stochastic": 60}, "color_gr")
TRANSIENT = made_task("transient", "transient", {"SNIa": 60, "TDE": 60, "KN": 4}, "skew_g")
