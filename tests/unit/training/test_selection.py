"""What is chosen, on what, and that no object is on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_task import FAMILY, INPUTS, made_sample, made_task

from broker.errors import BrokerError
from broker.training.contenders import model_of
from broker.training.controls import across, check_apart, check_inputs, source_alone, source_controls
from broker.training.kinds import KINDS
from broker.training.selection import FOLDS, choose, folds

SETTINGS = {"trees": 40, "learning_rate": 0.1, "num_leaves": 4, "min_data_in_leaf": 10}
STAGE = model_of("stage", KINDS[0], SETTINGS, INPUTS, 1)


def test_folds_keep_objects_together_and_spread_the_classes() -> None:
    sample = made_sample({"a": 50, "b": 11}, "color_gr")
    fold = folds(sample.group, sample.label, 3)
    for name in np.unique(sample.group):
        assert len(set(fold[sample.group == name].tolist())) == 1
    for label in ("a", "b"):
        counts = np.bincount(fold[sample.label == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 2


def test_weights_count_classes_and_objects_alike() -> None:
    sample = made_sample({"a": 3, "b": 1}, "color_gr", rows=2)
    weight = sample.take(np.array([0, 1, 2, 4, 6, 7])).weights()
    np.testing.assert_allclose(weight / weight.sum(), [1 / 12, 1 / 12, 1 / 6, 1 / 6, 1 / 4, 1 / 4])


def test_the_best_on_validation_is_promoted() -> None:
    sample = made_sample({"transient": 40, "stochastic": 40}, "color_gr")
    steps: list[tuple[int, int]] = []
    chosen = choose(sample, FAMILY.classes, INPUTS, seed=1, budget=2, step=lambda *at: steps.append(at))
    assert chosen.candidate.log_loss == min(one.log_loss for one in chosen.candidates)
    assert [one.kind.name for one in chosen.candidates] == [kind.name for kind in KINDS]
    assert steps == [(done, 2 * len(KINDS)) for done in range(1, 2 * len(KINDS) + 1)]
    assert (chosen.probabilities(sample).argmax(axis=1) == sample.truth(FAMILY.classes)).mean() > 0.8


def test_rows_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="other classes"):
        choose(made_sample({"a": 20, "b": 20}, "color_gr"), ("a",), INPUTS, seed=1, budget=1)


def test_an_object_in_two_parts_is_refused() -> None:
    sample = made_sample({"a": 4, "b": 4}, "color_gr")
    with pytest.raises(BrokerError, match="two parts"):
        check_apart(sample.take(np.arange(9)), sample.take(np.arange(8, 16)))


@pytest.mark.parametrize(
    "name", ["n_detections", "n_det_r", "last_limit_mag", "max_snr_g", "peak_mag_g", "dia_object_id"]
)
def test_an_input_that_tells_the_survey_is_refused(name: str) -> None:
    with pytest.raises(BrokerError, match="tell surveys apart"):
        check_inputs(("color_gr", name))


def test_the_source_is_found_out_where_it_can_be() -> None:
    sample = made_sample({"a": 40, "b": 40}, "color_gr")
    marked = sample.features.copy()
    marked[:, sample.names.index("age_days")] = np.where(sample.source == "even", 5.0, -5.0)
    telling = replace(sample, features=marked)
    honest, caught = (source_controls(one, STAGE, 1)[0] for one in (sample, telling))
    assert honest.balanced_accuracy.low < 0.6
    assert caught.balanced_accuracy.low > 0.9
    assert caught.chance == 0.5


def test_sources_judge_each_other() -> None:
    found = across(made_sample({"a": 60, "b": 60}, "color_gr"), [STAGE], 1)
    asked = ["within even", "even -> odd", "within odd", "odd -> even"]
    assert [one.question for one in found[::2]] == asked
    assert [one.question for one in found[1::2]] == [f"{question}, last states" for question in asked]
    assert all(one.balanced_accuracy.value > 0.75 for one in found)


def test_the_last_state_of_an_object_is_judged_for_itself() -> None:
    """Half of the rows are young and know nothing; one state an object needs no second figure."""
    sample = made_sample({"a": 60, "b": 60}, "color_gr")
    young = np.arange(len(sample)) % 2 == 0
    sample.features[young] = np.nan
    sample = replace(sample, n_points=np.where(young, 3, 6))
    every, last = across(sample, [STAGE], 1)[:2]
    assert last.question == "within even, last states"
    assert last.balanced_accuracy.value > every.balanced_accuracy.value + 0.08
    assert every.balanced_accuracy.value < 0.8
    alone = across(sample.take(~young), [STAGE], 1)
    assert [one.question for one in alone][:2] == ["within even", "even -> odd"]


def test_source_alone_gives_all_away_when_each_class_has_its_own() -> None:
    sample = made_sample({"even": 10, "odd": 10}, "color_gr")
    own = replace(sample, source=sample.label)
    assert source_alone(own, ("even", "odd")) == pytest.approx(1.0)
    assert source_alone(sample, ("even", "odd")) == pytest.approx(0.5)


def test_a_made_task_is_a_task() -> None:
    assert made_task("x", "transient", {"SNIa": 3}, "color_gr").least_detections == 5
