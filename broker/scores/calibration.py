"""From a model's raw numbers to probabilities for a stated population, and to sets that hold the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """How raw numbers become probabilities and class sets.

    temperature, bias : probabilities = softmax(raw / temperature + bias);  bias : (c,)
    prior      : (c,) share of each class in the population that the probabilities are for
    quantiles  : (c,) largest 1 - probability at which a class is still in the set
    """

    temperature: float
    bias: F64
    prior: F64
    quantiles: F64

    def probabilities(self, raw: F64) -> F64:
        """(n, c) probabilities for the population `prior`.  raw : (n, c), as a model gives it."""
        return softmax(raw / self.temperature + self.bias)

    def class_set(self, probabilities: F64) -> Mask:
        """(n, c) whether each class is in the row's set; the most probable one always is.

        Of the objects of each class, 95 % have it in their set, so 90 % after two stages (conformal
        prediction by class: Vovk 2012, JMLR W&CP 25, 475), if they are like those of the training sample.
        """
        inside = 1.0 - probabilities <= self.quantiles
        if len(inside):
            inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return np.asarray(inside)


def softmax(raw: F64) -> F64:
    """Exponentials of each row, normalised to sum 1.  raw : (n, c);  returns (n, c)."""
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def reweighted(probabilities: F64, prior: F64, other: F64) -> F64:
    """Probabilities for a population in which the classes have other shares.

    probabilities : (n, c) for a population with shares `prior` (c,);  other : (c,) the shares wanted.
    Returns (n, c). Bayes' rule; assumes that each class looks the same in both (Saerens et al. 2002,
    Neural Computation 14, 21). A class of share 0 in `prior` stays at 0.
    """
    ratio = np.divide(other, prior, out=np.zeros_like(prior), where=prior > 0.0)
    weighted = probabilities * ratio
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))
