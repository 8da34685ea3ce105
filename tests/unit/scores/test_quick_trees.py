"""The quick form of boosted trees is used where it answers as LightGBM to the last bit, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.scores.booster import Booster
from broker.scores.catalog import DEFAULT_BUNDLE
from broker.scores.models import TEXT, Trees, load_model, quick_form

SHIPPED = sorted(path.name.removesuffix(TEXT) for path in DEFAULT_BUNDLE.glob(f"*{TEXT}"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_quick_and_the_same(name: str) -> None:
    model = load_model(DEFAULT_BUNDLE, name)
    assert isinstance(model, Trees)
    assert model.quick is not None
    rng = np.random.default_rng(9)
    rows = rng.normal(scale=20.0, size=(400, model.booster.inputs))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    np.testing.assert_array_equal(model.raw(rows), Trees(model.booster).raw(rows))
    np.testing.assert_array_equal(model.raw(rows[:, ::-1]), Trees(model.booster).raw(rows[:, ::-1]))
    assert model.raw(rows[:0]).shape == Trees(model.booster).raw(rows[:0]).shape


def test_another_answer_is_not_used(tmp_path: Path) -> None:
    """The file says something else than the booster that was loaded from it before."""
    first, other = (DEFAULT_BUNDLE / f"counterpart_{name}_50{TEXT}" for name in ("galaxy", "qso"))
    assert quick_form(other, Booster(first)) is None
    (tmp_path / "no.txt").write_text("tree")
    assert quick_form(tmp_path / "no.txt", Booster(first)) is None
