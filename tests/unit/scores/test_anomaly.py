"""The array forest against scikit-learn's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from broker.errors import BundleError
from broker.scores.anomaly import FOREST_FILE, Forest, load_anomaly, save_forest
from broker.scores.bundle import Manifest
from broker.training.anomaly import grow

INPUTS = tuple("abcde")
MANIFEST = Manifest(
    id="test",
    version="1",
    created="",
    survey="ztf",
    feature_set_hash="",
    feature_names=INPUTS,
    context_names=(),
    stages=(),
    shares={},
    anomaly_inputs=INPUTS,
)


@pytest.fixture(scope="module")
def grown() -> tuple[Forest, IsolationForest, np.ndarray]:
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(400, 5)) * [1.0, 10.0, 1e3, 1e-3, 1.0]
    columns[:, 4] = np.round(columns[:, 4])  # ties end in leaves with several points
    columns[rng.random(columns.shape) < 0.2] = np.nan
    return *grow(columns, seed=5), columns


def test_equals_scikit_learn(grown: tuple[Forest, IsolationForest, np.ndarray]) -> None:
    forest, model, columns = grown
    filled = np.where(np.isnan(columns), forest.medians, columns)
    for values in (filled, filled * 3.0, np.zeros((2, 5))):
        np.testing.assert_allclose(forest.anomaly(values), -model.score_samples(values), atol=1e-6)


def test_high_is_strange(grown: tuple[Forest, IsolationForest, np.ndarray]) -> None:
    forest, _, columns = grown
    ordinary, strange = forest.anomaly(np.array([[0.0] * 5, [9.0, 90.0, -9e3, 9e-3, -9.0]]))
    assert 0.0 < ordinary < 0.45
    assert 0.6 < strange < 1.0
    assert ordinary < np.median(forest.anomaly(columns))


def test_missing_values_take_the_median(grown: tuple[Forest, IsolationForest, np.ndarray]) -> None:
    forest, _, _ = grown
    odd = np.array([[np.nan] * 5, [np.inf] * 5, [-np.inf] * 5])
    np.testing.assert_array_equal(forest.anomaly(odd), np.repeat(forest.anomaly(forest.medians[None]), 3))


def test_survives_the_disk(grown: tuple[Forest, IsolationForest, np.ndarray], tmp_path: Path) -> None:
    forest, _, columns = grown
    save_forest(tmp_path / FOREST_FILE, forest)
    loaded = load_anomaly(tmp_path, MANIFEST)
    np.testing.assert_array_equal(loaded.score(columns)[:, 0], forest.anomaly(columns))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: {"left": np.zeros_like(f.left)},  # a walk that never ends
        lambda f: {"right": f.right + len(f.right)},  # outside the arrays
        lambda f: {"feature": np.where(f.feature >= 0, 99, -1).astype(np.int32)},
        lambda f: {"roots": f.roots + 10**6},
        lambda f: {"medians": f.medians[:-1]},
        lambda f: {"length": f.length[:-1]},
    ],
)
def test_a_forest_one_could_get_lost_in_is_refused(
    grown: tuple[Forest, IsolationForest, np.ndarray], tmp_path: Path, damage: object
) -> None:
    save_forest(tmp_path / FOREST_FILE, replace(grown[0], **damage(grown[0])))  # type: ignore[operator]
    with pytest.raises(BundleError, match="not a forest"):
        load_anomaly(tmp_path, MANIFEST)
