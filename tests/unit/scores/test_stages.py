"""Two stages to one set of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from broker.scores.calibration import Calibration
from broker.scores.stages import STAGE_SPECS, Stage, Stages, in_set, set_names
from broker.scores.taxonomy import FAMILIES, LEAVES

COLUMN = {spec.name: place for place, spec in enumerate(STAGE_SPECS)}


@dataclass(frozen=True)
class Fixed:
    """A model that answers with its input columns."""

    def raw(self, matrix: np.ndarray) -> np.ndarray:
        return np.log(matrix)


def stage(name: str, parent: str, classes: tuple[str, ...], inputs: list[int], quantile: float) -> Stage:
    count = len(classes)
    calibration = Calibration(1.0, np.zeros(count), np.full(count, 1 / count), np.full(count, quantile))
    return Stage(name, parent, classes, inputs, 5, Fixed(), calibration)


FAMILY = stage("family", "", ("transient", "moving"), [1, 2], 0.75)
TRANSIENT = stage("transient", "transient", ("SNIa", "TDE"), [3, 4], 0.5)
SHARES = {"transient": {"SNIa": 0.5, "TDE": 0.5}, "moving": {"SSO": 1.0}}
STAGES = Stages(FAMILY, {"transient": TRANSIENT}, SHARES, 0)
ROWS = np.array([[9.0, 0.8, 0.2, 0.9, 0.1], [4.0, 0.7, 0.3, 0.9, 0.1]])
"""Detections, probability of each family, then of each leaf of the first."""


def test_leaves_are_shares_of_their_family() -> None:
    scores = STAGES.score(ROWS)
    assert scores[0, COLUMN["prob_SNIa"]] == pytest.approx(0.72)
    assert scores[0, COLUMN["prob_TDE"]] == pytest.approx(0.08)
    assert scores[0, COLUMN["prob_SSO"]] == pytest.approx(0.2)
    assert scores[0, COLUMN["prob_family_transient"]] == pytest.approx(0.8)
    assert np.nansum(scores[:, : len(LEAVES)], axis=1) == pytest.approx([1.0, 1.0])


def test_with_too_few_detections_the_family_is_shared_out() -> None:
    scores = STAGES.score(ROWS)
    assert scores[1, COLUMN["prob_SNIa"]] == scores[1, COLUMN["prob_TDE"]] == pytest.approx(0.35)


def test_what_is_not_known_is_missing() -> None:
    scores = STAGES.score(ROWS)
    known = {"prob_SNIa", "prob_TDE", "prob_SSO", "prob_family_transient", "prob_family_moving"}
    for name, place in COLUMN.items():
        assert np.isnan(scores[:, place]).all() == (name not in known | {"class_set_size", "class_set_bits"})


def test_a_leaf_is_in_the_set_if_it_and_its_family_are() -> None:
    scores = STAGES.score(ROWS)
    bits = scores[:, COLUMN["class_set_bits"]]
    assert [set_names(value) for value in bits] == [["SNIa"], ["SNIa", "TDE", "SSO"]]
    assert scores[:, COLUMN["class_set_size"]].tolist() == [1.0, 3.0]
    assert in_set(bits, "TDE").tolist() == [False, True]
    assert in_set(np.array([np.nan]), "TDE").tolist() == [False]


def test_one_stage_alone_takes_its_family_for_granted() -> None:
    scores = Stages(None, {"transient": TRANSIENT}, {}, 0).score(ROWS)
    np.testing.assert_allclose(scores[:, COLUMN["prob_SNIa"]], 0.9)
    np.testing.assert_allclose(scores[:, COLUMN["prob_family_transient"]], 1.0)
    assert np.isnan(scores[:, COLUMN["prob_family_moving"]]).all()


def test_no_rows_and_all_families() -> None:
    assert STAGES.score(np.empty((0, 5))).shape == (0, len(STAGE_SPECS))
    assert len(STAGE_SPECS) == len(LEAVES) + len(FAMILIES) + 3
