"""Calibration and class sets, fitted to answers that a model gave on objects it was not fitted to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from broker.scores.calibration import Calibration, softmax

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEVEL = 0.95
"""Share of the objects of a class whose set shall hold it, at each of two stages: both hold 90 % of them."""
_LEAST_OBJECTS = 50
"""A class with fewer objects takes the quantile of all such classes together."""
_PULL = 0.01
"""Weight of the penalty that keeps the bias near 0: a handful of objects must not move it far."""


def calibrate(raw: F64, truth: I64, weight: F64, group: npt.NDArray[np.str_]) -> Calibration:
    """The calibration of raw answers for a population of equally many objects of each class.

    raw : (n, c) of objects that the model did not see;  truth : (n,) class;  weight : (n,) that count each
    class and in it each object the same;  group : (n,) object.
    """
    classes = raw.shape[1]
    weight = weight / weight.sum()

    def loss(parameters: F64) -> float:
        bias = parameters[1:] - parameters[1:].mean()
        p = softmax(raw / np.exp(parameters[0]) + bias)[np.arange(len(truth)), truth]
        return float(-weight @ np.log(np.maximum(p, 1e-12)) + _PULL * bias @ bias)

    best = minimize(loss, np.zeros(1 + classes), method="L-BFGS-B").x
    temperature, bias = float(np.exp(best[0])), best[1:] - best[1:].mean()
    prior = np.full(classes, 1.0 / classes)
    probabilities = softmax(raw / temperature + bias)
    return Calibration(temperature, bias, prior, _quantiles(probabilities, truth, group))


def _quantiles(probabilities: F64, truth: I64, group: npt.NDArray[np.str_]) -> F64:
    """(c,) the nonconformity that LEVEL of each class's objects do not exceed; rare classes share theirs."""
    classes = probabilities.shape[1]
    score = 1.0 - probabilities[np.arange(len(truth)), truth]
    objects = np.array([len(np.unique(group[truth == k])) for k in range(classes)])
    rare = np.isin(truth, np.flatnonzero(objects < _LEAST_OBJECTS))
    found = np.empty(classes)
    for k in range(classes):
        rows = rare if objects[k] < _LEAST_OBJECTS else truth == k
        found[k] = _conservative_quantile(score[rows], group[rows])
    return found


def _conservative_quantile(score: F64, group: npt.NDArray[np.str_]) -> float:
    """Quantile of objects, each with its rows' share, with the finite-sample correction (n + 1) LEVEL / n."""
    if len(score) == 0:
        return 1.0
    _, rows_of, rows = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(score)
    reached = np.cumsum(1.0 / rows[rows_of][order])
    place = int(np.searchsorted(reached, (len(rows) + 1) * LEVEL - 1e-9))
    return float(score[order[place]]) if place < len(score) else 1.0
