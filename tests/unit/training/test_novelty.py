"""A class that was never learnt must stand out, and one that is like the others cannot."""

from __future__ import annotations

import numpy as np

from broker.training.kinds import KINDS
from broker.training.novelty import leave_each_out
from broker.training.sample import Sample

SETTINGS = {
    "trees": 40, "learning_rate": 0.1, "num_leaves": 4, "min_data_in_leaf": 5, "feature_fraction": 1.0,
    "bagging_fraction": 1.0, "lambda_l2": 1.0,
}  # fmt: skip
NAMES = ("a", "b", "c")


def test_far_classes_stand_out_and_twins_do_not() -> None:
    rng = np.random.default_rng(1)
    centres = {"near": (0, 0, 0), "twin": (0, 0, 0.1), "far": (9, 0, 0), "off": (0, 9, 0)}
    label = np.repeat(list(centres), 80)
    features = rng.normal(size=(len(label), 3)) + np.array([centres[name] for name in label.tolist()])
    group = np.arange(len(label)).astype(np.str_)
    ones = np.ones(len(label), dtype=np.int64)
    sample = Sample(NAMES, features, label, label, group, group, ones, ones, ones, ones / 1.0)
    found = leave_each_out(sample, tuple(centres), NAMES, KINDS[0], SETTINGS, 1)
    area = {item.name: item.auc for item in found}
    assert [item.objects for item in found] == [80] * 4
    assert min(area["far"], area["off"]) > 0.9
    assert max(area["near"], area["twin"]) < 0.7
    assert all(item.low <= item.auc <= item.high for item in found)
