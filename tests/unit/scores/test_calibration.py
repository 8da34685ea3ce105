"""Raw numbers to probabilities, other populations, class sets."""

from __future__ import annotations

import numpy as np
import pytest

from broker.scores.calibration import Calibration, reweighted, softmax
from broker.training.calibrate import LEVEL, calibrate


def test_softmax_of_large_numbers() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4], [-1e4, 0.0]])), [[0.5, 0.5], [0.0, 1.0]])


def test_another_population_is_bayes_rule() -> None:
    even = np.array([[0.5, 0.5], [0.9, 0.1]])
    found = reweighted(even, np.array([0.5, 0.5]), np.array([0.1, 0.9]))
    np.testing.assert_allclose(found, [[0.1, 0.9], [0.5, 0.5]])
    np.testing.assert_allclose(reweighted(found, np.array([0.1, 0.9]), np.array([0.5, 0.5])), even)
    assert reweighted(even, np.array([1.0, 0.0]), np.array([0.5, 0.5])).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_the_most_probable_class_is_always_in_the_set() -> None:
    calibration = Calibration(1.0, np.zeros(3), np.full(3, 1 / 3), np.array([0.1, 0.55, 0.7]))
    sets = calibration.class_set(np.array([[0.6, 0.3, 0.1], [0.1, 0.46, 0.44], [0.9, 0.05, 0.05]]))
    assert sets.tolist() == [[True, False, False], [False, True, True], [True, False, False]]
    assert calibration.class_set(np.empty((0, 3))).shape == (0, 3)


def overconfident(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(raw numbers three times too sure, the true classes)."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(count, 3))
    truth = np.array([rng.choice(3, p=row) for row in softmax(raw)])
    return raw * 3.0, truth


def test_an_overconfident_model_is_cooled() -> None:
    raw, truth = overconfident(3000, 1)
    group = np.arange(3000).astype(np.str_)
    found = calibrate(raw, truth, np.ones(3000), group)
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert np.abs(found.bias).max() < 0.2
    assert found.prior.tolist() == [1 / 3] * 3


def test_sets_hold_the_class_as_often_as_they_say() -> None:
    raw, truth = overconfident(3000, 2)
    found = calibrate(raw, truth, np.ones(3000), np.arange(3000).astype(np.str_))
    new, classes = overconfident(6000, 3)
    sets = found.class_set(found.probabilities(new))
    held = sets[np.arange(6000), classes]
    for k in range(3):
        assert held[classes == k].mean() == pytest.approx(LEVEL, abs=0.02)


def test_rare_classes_share_their_quantile() -> None:
    raw, truth = overconfident(400, 4)
    kept = np.concatenate([np.flatnonzero(truth == 0), *(np.flatnonzero(truth == k)[:20] for k in (1, 2))])
    found = calibrate(raw[kept], truth[kept], np.ones(len(kept)), kept.astype(np.str_))
    assert found.quantiles[1] == found.quantiles[2] != found.quantiles[0]


def test_too_few_objects_keep_every_class() -> None:
    raw, truth = overconfident(12, 5)
    found = calibrate(raw, truth, np.ones(12), np.arange(12).astype(np.str_))
    assert found.quantiles.tolist() == [1.0] * 3
