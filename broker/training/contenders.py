"""Who answers a control question: the stage's own kind of model, and the simple ones that it must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from broker.scores.calibration import softmax
from broker.training.baselines import MIDDLING, STRAIGHT, TEN, fitted, most_used
from broker.training.kinds import KINDS, LINEAR, Kind, Settings
from broker.training.sample import F64, Sample

Answers = Callable[[Sample, Sample, Sequence[str]], F64]
"""(rows to learn from, rows to judge (m), classes (c)) to (m, c) probabilities."""
FEW, HANDFUL = 200, 20
"""Where there are fewer than FEW objects to learn from, and of some class fewer than HANDFUL, answers are
calibrated on folds of these, as a stage's are: the bias of the rare class then matters. Else it hardly does,
and takes several times as long."""


@dataclass(frozen=True)
class Contender:
    """A way to answer."""

    name: str
    answers: Answers


def model_of(name: str, kind: Kind, settings: Settings, inputs: Sequence[str], seed: int) -> Contender:
    """A kind of model with some settings and inputs."""
    return Contender(
        name, lambda learnt, judged, classes: _answers(kind, settings, inputs, seed, learnt, judged, classes)
    )


def rivals(inputs: Sequence[str], parametric: Sequence[str], seed: int) -> list[Contender]:
    """Boosted trees on the ten inputs that they gain most by, and a line through fitted parameters.

    The ten are chosen among the rows to learn from alone.
    """

    def ten(learnt: Sample, judged: Sample, classes: Sequence[str]) -> F64:
        best = most_used(learnt, classes, inputs, seed)
        return _answers(KINDS[0], MIDDLING, best, seed, learnt, judged, classes)

    found = [Contender(f"LightGBM on {TEN} features", ten)] if len(inputs) > TEN else []
    if parametric:
        found.append(model_of("parametric fit", LINEAR, STRAIGHT, parametric, seed))
    return found


def _answers(
    kind: Kind,
    settings: Settings,
    inputs: Sequence[str],
    seed: int,
    learnt: Sample,
    judged: Sample,
    classes: Sequence[str],
) -> F64:
    if _has_handful(learnt, classes):
        return fitted(kind, settings, learnt, judged, classes, inputs, seed)
    model = kind.fit(
        learnt.columns(inputs), learnt.truth(classes), learnt.weights(), len(classes), settings, seed
    )
    return softmax(model.raw(judged.columns(inputs)))


def _has_handful(learnt: Sample, classes: Sequence[str]) -> bool:
    counts = [len(np.unique(learnt.group[learnt.label == name])) for name in classes]
    return sum(counts) < FEW and min(counts) < HANDFUL
