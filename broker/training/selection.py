"""Hyper-parameters and the kind of model, chosen on objects that the candidates were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.scores.calibration import Calibration, softmax
from broker.training.calibrate import calibrate
from broker.training.kinds import KINDS, Fitted, Kind, Settings
from broker.training.sample import Sample

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FOLDS = 5
BUDGET = 6
"""Settings that are tried of each kind."""
LEAST_GROUPS = 3 * FOLDS
"""A class of fewer objects is left out: some fold would have next to none of it."""


@dataclass(frozen=True)
class Candidate:
    """One kind with one choice of settings, judged on the validation folds.

    log_loss, balanced_accuracy : every class counts the same
    """

    kind: Kind
    settings: Settings
    log_loss: float
    balanced_accuracy: float


@dataclass(frozen=True)
class Chosen:
    """The model that was promoted, and what it was promoted over.

    model       : fitted to the whole development sample
    held_out    : (n, c) raw answers on the validation folds, each by a model that did not see the object
    candidates  : the best of each kind, all judged on the same folds;  tried : number of all
    """

    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    candidate: Candidate
    model: Fitted
    calibration: Calibration
    held_out: F64
    candidates: list[Candidate]
    tried: int

    def probabilities(self, sample: Sample) -> F64:
        """(n, c) calibrated probabilities."""
        return self.calibration.probabilities(self.model.raw(sample.columns(self.inputs)))


def choose(
    sample: Sample,
    classes: Sequence[str],
    inputs: Sequence[str],
    *,
    seed: int,
    kinds: Sequence[Kind] = tuple(KINDS),
    budget: int = BUDGET,
    step: Callable[[int, int], None] = lambda done, whole: None,
) -> Chosen:
    """Search each kind's settings on the validation folds, promote the best kind, fit it to everything.

    sample : labelled rows of `classes` only, the test part already taken away;  step : (done, whole)
    The choice is made on validation and not on test: the best of many on any part is partly luck, and a
    figure that was used to choose no longer measures anything.
    """
    x, y, weight = sample.columns(inputs), sample.truth(classes), sample.weights()
    if (y < 0).any():
        raise ValueError("the sample holds rows of other classes")
    fold = folds(sample.group, sample.label, seed)
    tries = [(kind, settings) for kind in kinds for settings in _drawn(kind, budget, seed)]
    best: dict[str, tuple[Candidate, F64]] = {}
    for done, (kind, settings) in enumerate(tries, start=1):
        raw = held_out_answers(kind, settings, x, y, weight, fold, len(classes), seed)
        candidate = Candidate(kind, settings, *_judged(raw, y, weight))
        if kind.name not in best or candidate.log_loss < best[kind.name][0].log_loss:
            best[kind.name] = candidate, raw
        step(done, len(tries))
    candidate, raw = min(best.values(), key=lambda item: item[0].log_loss)
    return Chosen(
        tuple(classes),
        tuple(inputs),
        candidate,
        candidate.kind.fit(x, y, weight, len(classes), candidate.settings, seed),
        calibrate(raw, y, weight, sample.group),
        raw,
        [item for item, _ in best.values()],
        len(tries),
    )


def held_out_answers(
    kind: Kind, settings: Settings, x: F64, y: I64, weight: F64, fold: I64, classes: int, seed: int
) -> F64:
    """(n, classes) raw answers: each row's by a model fitted to the other folds."""
    raw = np.empty((len(y), classes))
    for held in np.unique(fold):
        rows = fold != held
        raw[~rows] = kind.fit(x[rows], y[rows], weight[rows], classes, settings, seed).raw(x[~rows])
    return raw


def folds(group: npt.NDArray[np.str_], label: npt.NDArray[np.str_], seed: int, count: int = FOLDS) -> I64:
    """(n,) fold 0..count-1 of each row: an object is in one fold only, each class is spread evenly."""
    rng = np.random.default_rng(seed)
    found = np.empty(len(group), dtype=np.int64)
    names, first, of = np.unique(group, return_index=True, return_inverse=True)
    fold_of = np.empty(len(names), dtype=np.int64)
    for name in np.unique(label[first]):
        members = rng.permutation(np.flatnonzero(label[first] == name))
        fold_of[members] = (np.arange(len(members)) + rng.integers(count)) % count
    found[:] = fold_of[of]
    return found


def _judged(raw: F64, y: I64, weight: F64) -> tuple[float, float]:
    """(log-loss at its best temperature and bias, balanced accuracy) of raw answers."""
    group = np.arange(len(y)).astype(np.str_)
    calibration = calibrate(raw, y, weight, group)
    p = softmax(raw / calibration.temperature + calibration.bias)
    loss = -np.average(np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)), weights=weight)
    right = p.argmax(axis=1) == y
    recalls = [np.average(right[y == k], weights=weight[y == k]) for k in np.unique(y)]
    return float(loss), float(np.mean(recalls))


def _drawn(kind: Kind, budget: int, seed: int) -> list[dict[str, Any]]:
    """Up to `budget` different choices from a kind's space."""
    rng = np.random.default_rng(seed)
    names, sizes = list(kind.space), [len(values) for values in kind.space.values()]
    picks = rng.choice(np.prod(sizes), size=min(budget, int(np.prod(sizes))), replace=False)
    places = np.stack(np.unravel_index(picks, sizes), axis=1)
    return [
        {name: kind.space[name][place] for name, place in zip(names, row, strict=True)}
        for row in places.tolist()
    ]
