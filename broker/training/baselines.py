"""What a model must beat: the commonest class, boosted trees on ten features, a fitted model's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from broker.training.calibrate import calibrate
from broker.training.evaluate import Figure, balanced_accuracy, log_loss
from broker.training.kinds import KINDS, LINEAR, Boosted, Kind, Settings
from broker.training.sample import F64, I64, Sample
from broker.training.selection import folds, held_out_answers

TEN = 10
MIDDLING = {"trees": 80, "learning_rate": 0.06, "num_leaves": 8, "min_data_in_leaf": 10}
STRAIGHT = {"C": 0.3}
"""Settings of the boosted trees, and of the straight line through a fitted model's parameters."""


@dataclass(frozen=True)
class Baseline:
    """How a simple model does on the test part."""

    name: str
    balanced_accuracy: Figure
    log_loss: float


def baselines(
    learnt: Sample,
    test: Sample,
    classes: Sequence[str],
    inputs: Sequence[str],
    parametric: Sequence[str],
    seed: int,
) -> list[Baseline]:
    """The three baselines, fitted to `learnt` and judged on `test`."""
    majority = np.full((len(test), len(classes)), 1.0 / len(classes))
    boosted = KINDS[0]
    ten = most_used(learnt, classes, inputs, seed)
    found = [
        _judged("majority", majority, test, classes, seed),
        _judged(
            f"LightGBM on {len(ten)} features",
            fitted(boosted, MIDDLING, learnt, test, classes, ten, seed), test, classes, seed,
        ),
    ]  # fmt: skip
    if parametric:
        probabilities = fitted(LINEAR, STRAIGHT, learnt, test, classes, parametric, seed)
        found.append(_judged("parametric fit", probabilities, test, classes, seed))
    return found


def most_used(sample: Sample, classes: Sequence[str], inputs: Sequence[str], seed: int) -> list[str]:
    """The ten inputs that boosted trees gain most by."""
    model = KINDS[0].fit(
        sample.columns(inputs), sample.truth(classes), sample.weights(), len(classes), MIDDLING, seed
    )
    assert isinstance(model, Boosted)
    return [inputs[place] for place in np.argsort(-model.gains(), kind="stable")[:TEN]]


def fitted(
    kind: Kind,
    settings: Settings,
    learnt: Sample,
    test: Sample,
    classes: Sequence[str],
    inputs: Sequence[str],
    seed: int,
) -> F64:
    """(m, c) probabilities of `test`, calibrated on folds of `learnt`."""
    x, y, weight = learnt.columns(inputs), learnt.truth(classes), learnt.weights()
    fold = folds(learnt.group, learnt.label, seed)
    held_out = held_out_answers(kind, settings, x, y, weight, fold, len(classes), seed)
    calibration = calibrate(held_out, y, weight, learnt.group)
    model = kind.fit(x, y, weight, len(classes), settings, seed)
    return calibration.probabilities(model.raw(test.columns(inputs)))


def _judged(name: str, probabilities: F64, test: Sample, classes: Sequence[str], seed: int) -> Baseline:
    truth: I64 = test.truth(classes)
    figure = balanced_accuracy(probabilities, truth, test, np.random.default_rng(seed))
    return Baseline(name, figure, log_loss(probabilities, truth, test.weights()))
