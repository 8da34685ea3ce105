"""Why a model said what it said of one alert: how far each input moved it towards a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.scores.models import Network, Trees
from broker.scores.stages import Stage

F64 = npt.NDArray[np.float64]

_USUAL = (-1.0, 0.0, 1.0)
"""Values that stand for an unknown input: the sample's median, and a standard deviation to either side."""


@dataclass(frozen=True)
class Share:
    """What one input did: its value, and by how much it raised the logarithm of the odds of the class."""

    input: str
    value: float
    effect: float


@dataclass(frozen=True)
class Explanation:
    """One stage's answer about one alert, for its most probable class.

    method : 'tree contributions', exact for boosted trees, or 'one input at a time', each replaced by usual
             values of the training sample, for other models: what inputs do together is then not seen
    shares : the inputs that did most first
    """

    stage: str
    answer: str
    probability: float
    method: str
    shares: list[Share]


def explain(stage: Stage, names: list[str], row: F64) -> Explanation:
    """The explanation of a stage's most probable class.

    names : of the bundle's columns;  row : (k,) their values for one alert, NaN where unknown
    """
    probabilities = stage.probabilities(row[np.newaxis])[0]
    best = int(probabilities.argmax())
    inputs = row[stage.inputs]
    if isinstance(stage.model, Trees):
        method, effects = "tree contributions", _of_trees(stage.model, inputs, best)
    else:
        method, effects = "one input at a time", _one_at_a_time(stage, inputs, best)
    effects = effects / stage.calibration.temperature
    order = np.argsort(-np.abs(effects), kind="stable")
    shares = [
        Share(names[stage.inputs[place]], float(inputs[place]), float(effects[place])) for place in order
    ]
    return Explanation(stage.name, stage.classes[best], float(probabilities[best]), method, shares)


def _of_trees(model: Trees, inputs: F64, best: int) -> F64:
    """(k,) contributions to the class less their mean (Lundberg et al. 2020, Nat. Mach. Int. 2, 56)."""
    found = model.contributions(inputs[np.newaxis])[0]
    return np.asarray(found[best] - found.mean(axis=0))


def _one_at_a_time(stage: Stage, inputs: F64, best: int) -> F64:
    """(k,) what the class's raw answer, less the mean of all, loses when an input is made usual."""
    assert isinstance(stage.model, Network)
    scaling, count = stage.model.scaling, len(inputs)
    changed = np.tile(inputs, (1 + len(_USUAL) * count, 1))
    for number, step in enumerate(_USUAL):
        rows = 1 + number * count + np.arange(count)
        changed[rows, np.arange(count)] = scaling.median + step * scaling.scale
    raw = stage.model.raw(changed)
    centred = raw[:, best] - raw.mean(axis=1)
    return np.asarray(centred[0] - centred[1:].reshape(len(_USUAL), count).mean(axis=0))
