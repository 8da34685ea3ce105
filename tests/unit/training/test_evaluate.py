"""Figures of models whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest
from made_task import made_sample

from broker.scores.calibration import Calibration
from broker.training.evaluate import (
    bootstrap,
    brier,
    calibrated,
    confusion,
    debiased_ece,
    ece,
    evaluate,
    recall,
    reliability,
)
from broker.training.predict import with_abstentions

PLAIN = Calibration(1.0, np.zeros(2), np.full(2, 0.5), np.full(2, 0.5))


def test_figures_of_a_perfect_and_a_useless_model() -> None:
    truth, weight = np.array([0, 1, 1, 0]), np.full(4, 0.25)
    perfect, useless = np.eye(2)[truth], np.full((4, 2), 0.5)
    assert recall(perfect, truth, weight).tolist() == [1.0, 1.0]
    assert np.isnan(recall(perfect[[0]], truth[[0]], weight[[0]])[1])
    assert confusion(perfect, truth, weight).tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert (brier(perfect, truth, weight), brier(useless, truth, weight)) == (0.0, 0.5)
    assert ece(reliability(np.ones(4), np.ones(4), weight)) == 0.0


def test_calibration_error_of_an_honest_and_of_a_boasting_model() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1.0, 4000)
    truth = (rng.random(4000) > p).astype(np.int64)
    honest, weight = np.column_stack([p, 1.0 - p]), np.ones(4000)
    boasting = np.column_stack([p**0.2, 1.0 - p**0.2])
    found = calibrated(honest, truth, weight, rng)
    assert found.ece < found.chance + 0.02
    assert calibrated(boasting, truth, weight, rng).ece > 0.1


def test_the_debiased_error_is_less_than_the_plain_one() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.5, 1.0, 200)
    bins = reliability(p, (rng.random(200) < p).astype(np.float64), np.ones(200))
    assert 0.0 <= debiased_ece(bins, np.ones(200)) < ece(bins)


def test_an_interval_shrinks_with_the_number_of_objects() -> None:
    rng = np.random.default_rng(3)

    def width(count: int) -> float:
        values = rng.normal(size=count)
        group = np.arange(count).astype(np.str_)
        (figure,) = bootstrap(
            lambda w: np.array([np.average(values, weights=w)]),
            np.zeros(count, dtype=np.int64), group, np.ones(count), rng,
        )  # fmt: skip
        return figure.high - figure.low

    assert width(2000) < width(50) / 3.0


def test_everything_about_a_model_that_is_right_three_times_in_four() -> None:
    sample = made_sample({"a": 80, "b": 80}, "color_gr")
    truth = sample.truth(("a", "b"))
    right = np.arange(len(truth)) // 2 % 4 != 0  # all states of an object alike
    raw = np.log(np.where((np.arange(2) == truth[:, np.newaxis]) == right[:, np.newaxis], 0.75, 0.25))
    found = evaluate(raw, PLAIN, sample, ("a", "b"), np.random.default_rng(1))
    assert found.balanced_accuracy.value == pytest.approx(0.75)
    assert found.coverage.value == pytest.approx(0.75)
    assert found.coverage_of == pytest.approx({"a": 0.75, "b": 0.75})
    assert found.set_size == pytest.approx(1.0)
    assert found.balanced.ece == pytest.approx(0.0, abs=0.02)
    assert found.objects == [80, 80]
    assert [one.objects for one in found.by_source] == [80, 80]
    assert {one.label: one.objects for one in found.by_nights}["2"] == 160


def test_who_abstains_is_wrong() -> None:
    probabilities = np.array(
        [[0.5, 0.5, 0.0], [np.nan] * 3, [0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.0, 0.0, 0.0]]
    )
    truth = np.array([0, 0, 1, 2, 2])
    counted, decided = with_abstentions(probabilities, truth)
    assert decided.tolist() == [False, False, True, True, False]
    assert (counted.argmax(axis=1) == truth).tolist() == [False, False, True, False, False]
