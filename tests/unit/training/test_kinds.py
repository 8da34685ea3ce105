"""Every kind of model: fitted, kept, loaded, and the same answers as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.errors import BundleError
from broker.scores.models import Scaling, load_model, network
from broker.training.kinds import KINDS, LINEAR, Kind

ALL = [*KINDS, LINEAR]


def made(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(features with gaps, classes that the first of them tells apart)."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(240, 6)), rng.integers(0, classes, 240)
    x[:, 0] += 4.0 * y
    x[rng.random(x.shape) < 0.05] = np.nan
    return x, y


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_kept_answers_as_what_was_fitted(kind: Kind, classes: int, tmp_path: Path) -> None:
    x, y = made(classes)
    settings = {name: values[-1] for name, values in kind.space.items()}
    model = kind.fit(x, y, np.ones(len(y)), classes, settings, 1)
    raw = model.raw(x)
    assert raw.shape == (len(y), classes)
    assert (raw.argmax(axis=1) == y).mean() > 0.8
    model.save(tmp_path, "stage")
    kept = load_model(tmp_path, "stage")
    np.testing.assert_allclose(kept.raw(x), raw, rtol=1e-6, atol=1e-6)
    assert np.isfinite(kept.raw(np.full((3, 6), np.nan))).all()
    assert kept.raw(np.empty((0, 6))).shape == (0, classes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_one_seed_one_model(kind: Kind) -> None:
    x, y = made(3)
    settings = {name: values[-1] for name, values in kind.space.items()}
    first, second = (kind.fit(x, y, np.ones(len(y)), 3, settings, 5).raw(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_weights_count(kind: Kind) -> None:
    """Two classes that cannot be told apart: the heavier one is answered."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(300, 2)), np.arange(300) % 2
    settings = {name: values[0] for name, values in kind.space.items()}
    raw = kind.fit(x, y, np.where(y == 1, 30.0, 1.0), 2, settings, 1).raw(rng.normal(size=(100, 2)))
    assert (raw.argmax(axis=1) == 1).mean() > 0.8


def test_scaling_marks_what_is_unknown() -> None:
    scaling = Scaling(np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    found = scaling.apply(np.array([[3.0, np.nan], [-np.inf, 0.0]]))
    np.testing.assert_allclose(found, [[np.arcsinh(1.0), 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]], rtol=1e-6)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model of stage"):
        load_model(tmp_path, "stage")
    with pytest.raises(BundleError, match="not an ONNX model"):
        network(b"import os", Scaling(np.zeros(1), np.ones(1)))
