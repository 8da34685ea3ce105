"""Explanations name the input that decided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.scores.calibration import Calibration
from broker.scores.explain import explain
from broker.scores.models import load_model
from broker.scores.stages import Stage
from broker.training.kinds import KINDS, Kind

NAMES = ["unused", "telling", "noise", "more noise"]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_telling_input_comes_first(kind: Kind, classes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 3)), rng.integers(0, classes, 300)
    x[:, 0] += 5.0 * y
    settings = {name: values[-1] for name, values in kind.space.items()}
    kind.fit(x, y, np.ones(300), classes, settings, 1).save(tmp_path, "stage")
    plain = Calibration(1.0, np.zeros(classes), np.full(classes, 1 / classes), np.ones(classes))
    names = ("SNIa", "SNII", "TDE")[:classes]
    stage = Stage("stage", "transient", names, [1, 2, 3], 1, load_model(tmp_path, "stage"), plain)
    found = explain(stage, NAMES, np.array([9.0, 5.0 * (classes - 1), 0.1, np.nan]))
    assert found.answer == names[-1]
    assert found.probability > 0.5
    assert found.shares[0].input == "telling"
    assert found.shares[0].effect > 0.0
    assert sorted(share.input for share in found.shares) == sorted(NAMES[1:])
    assert found.method == ("tree contributions" if kind.name == "lightgbm" else "one input at a time")
