"""Who answers a control question: the stage's own kind of model, and the simple ones that it must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.scores.calibration import softmax
from broker.training.baselines import MIDDLING, TEN, most_used
from broker.training.kinds import KINDS, LINEAR, Kind, Settings
from broker.training.sample import F64, Sample

Answers = Callable[[Sample, Sample, Sequence[str]], F64]
"""(rows to learn from, rows to judge (m), classes (c)) to (m, c) probabilities, not calibrated."""


@dataclass(frozen=True)
class Contender:
    """A way to answer."""

    name: str
    answers: Answers


def model_of(name: str, kind: Kind, settings: Settings, inputs: Sequence[str], seed: int) -> Contender:
    """A kind of model with some settings and inputs."""
    return Contender(
        name, lambda learnt, judged, classes: _fitted(kind, settings, inputs, seed, learnt, judged, classes)
    )


def rivals(inputs: Sequence[str], parametric: Sequence[str], seed: int) -> list[Contender]:
    """Boosted trees on the ten inputs that they gain most by, and a line through fitted parameters.

    The ten are chosen among the rows to learn from alone.
    """

    def ten(learnt: Sample, judged: Sample, classes: Sequence[str]) -> F64:
        best = most_used(learnt, classes, inputs, seed)
        return _fitted(KINDS[0], MIDDLING, best, seed, learnt, judged, classes)

    found = [Contender(f"LightGBM on {TEN} features", ten)] if len(inputs) > TEN else []
    if parametric:
        found.append(model_of("parametric fit", LINEAR, {"C": 0.3}, parametric, seed))
    return found


def _fitted(
    kind: Kind,
    settings: Settings,
    inputs: Sequence[str],
    seed: int,
    learnt: Sample,
    judged: Sample,
    classes: Sequence[str],
) -> F64:
    model = kind.fit(
        learnt.columns(inputs), learnt.truth(classes), learnt.weights(), len(classes), settings, seed
    )
    return softmax(model.raw(judged.columns(inputs)))
