"""Novelty: a rank in the training sample, the same alone and in a batch, refused where it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from broker.errors import BundleError
from broker.scores.novelty import FARTHEST, NEIGHBOURS, load_novelty, nearest, rank, save_novelty
from broker.training.novelty import POINTS_PER_CLASS, fit_novelty

CLASSES, INPUTS, OBJECTS = 3, 4, 900


def clusters(seed: int, count: int = OBJECTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features, class, probabilities) of three clusters and a classifier that knows them well."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, count)
    x = rng.normal(size=(count, INPUTS)) + 6.0 * np.eye(CLASSES, INPUTS)[truth]
    return x, truth, certain(x)


def certain(x: np.ndarray) -> np.ndarray:
    """Probabilities of a classifier: the nearer to a cluster the surer."""
    distance = ((x[:, np.newaxis] - 6.0 * np.eye(CLASSES, INPUTS)) ** 2).sum(axis=2)
    p = np.exp(-0.5 * (distance - distance.min(axis=1, keepdims=True)))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def novelty():
    x, truth, p = clusters(1)
    return fit_novelty(x, p, truth, np.arange(OBJECTS).astype(str), 1)


def test_of_new_objects_of_the_learnt_classes_it_is_evenly_spread(novelty) -> None:
    x, _, p = clusters(2)
    score = novelty.score(x, p)
    quantiles = np.quantile(score, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.07)


def test_what_is_far_from_all_is_new_however_sure_the_classifier_is(novelty) -> None:
    far = np.full((1, INPUTS), -30.0)
    sure = np.array([[1.0, 0.0, 0.0]])
    usual, _, p = clusters(3)
    assert novelty.score(far, sure)[0] > np.median(novelty.score(usual, p))
    between, doubt = np.full((1, INPUTS), 3.0), np.full((1, CLASSES), 1.0 / CLASSES)
    assert novelty.score(between, doubt)[0] > 0.95


def test_a_row_does_not_depend_on_its_neighbours(novelty) -> None:
    x, _, p = clusters(4, 50)
    x[::7, 1] = np.nan
    alone = [novelty.score(x[i : i + 1], p[i : i + 1])[0] for i in range(50)]
    np.testing.assert_array_equal(novelty.score(x, p), alone)


def test_unknown_and_infinite_features_give_a_number(novelty) -> None:
    x = np.array([[np.nan] * INPUTS, [np.inf] * INPUTS, [-np.inf] * INPUTS, [1e300, -1e300, 0.0, np.nan]])
    score = novelty.score(x, np.tile([0.2, 0.5, 0.3], (4, 1)))
    assert ((score >= 0.0) & (score <= 1.0)).all()
    assert np.abs(novelty.gaussian(x)).max() <= FARTHEST
    assert novelty.score(np.empty((0, INPUTS)), np.empty((0, CLASSES))).shape == (0,)


def test_gaussian_scores_keep_the_order_of_values(novelty) -> None:
    values = np.linspace(-40.0, 40.0, 400)
    scores = novelty.gaussian(np.tile(values[:, np.newaxis], (1, INPUTS)))
    assert (np.diff(scores, axis=0) >= 0.0).all()


def test_distance_is_that_of_a_tree_over_the_own_class() -> None:
    rng = np.random.default_rng(5)
    points, rows = rng.normal(size=(200, 3)).astype(np.float32), rng.normal(size=(30, 3)).astype(np.float32)
    starts, own = np.array([0, 120, 200]), rng.integers(0, 2, 30)
    none = np.zeros(0, dtype=np.int64)
    found = nearest(rows, own, np.full(30, -1), points, starts, none)
    for k in range(2):
        tree = cKDTree(points[starts[k] : starts[k + 1]].astype(float))
        expected = tree.query(rows[own == k].astype(float), NEIGHBOURS)[0][:, -1]
        np.testing.assert_allclose(found[own == k], expected, rtol=1e-5)


def test_own_states_are_no_neighbours() -> None:
    """An object that is there fifty times is not thereby usual."""
    x, truth, p = clusters(6, 300)
    again = np.append(np.arange(300), np.zeros(50, dtype=np.int64))
    fitted = fit_novelty(x[again], p[again], truth[again], again.astype(str), 1)
    assert fitted.distances[truth[0]].min() > 0.1


def test_rank_is_the_share_below() -> None:
    assert rank(np.array([-1.0, 0.0, 2.5, 9.0]), np.array([0.0, 1.0, 2.0, 3.0, 4.0])).tolist() == [
        0.0,
        0.0,
        0.625,
        1.0,
    ]


def test_a_saved_reference_is_the_same(novelty, tmp_path: Path) -> None:
    path = tmp_path / "novelty.npz"
    save_novelty(path, novelty)
    x, _, p = clusters(7, 40)
    np.testing.assert_array_equal(load_novelty(path, INPUTS, CLASSES).score(x, p), novelty.score(x, p))
    assert len(novelty.points) <= CLASSES * POINTS_PER_CLASS


@pytest.mark.parametrize(("inputs", "classes"), [(INPUTS + 1, CLASSES), (INPUTS, CLASSES + 1)])
def test_a_reference_for_another_stage_is_refused(novelty, tmp_path: Path, inputs: int, classes: int) -> None:
    path = tmp_path / "novelty.npz"
    save_novelty(path, novelty)
    with pytest.raises(BundleError, match="train the bundle again"):
        load_novelty(path, inputs, classes)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "novelty.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(BundleError, match=r"novelty\.npz"):
        load_novelty(path, INPUTS, CLASSES)
