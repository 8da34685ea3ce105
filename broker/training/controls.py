"""Is it the class that was learnt, or where the light curve came from?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from broker.scores.classifier import softmax
from broker.training.classifier import Settings, equal_weights, indices, raw_scores, recall, train_booster
from broker.training.dataset import STREAM_SOURCE, Strings, Windows
from broker.training.evaluate import Figure, bootstrap

I64 = npt.NDArray[np.int64]

FOLDS = 5
MIN_GROUPS = 10
"""A source or class with fewer objects is left out of a control."""


@dataclass(frozen=True)
class Control:
    """One question, asked with the classifier's inputs and settings on training and validation objects."""

    question: str
    answers: tuple[str, ...]
    objects: list[int]
    balanced_accuracy: Figure

    @property
    def chance(self) -> float:
        """What a guess would give."""
        return 1.0 / len(self.answers)


def run_controls(windows: Windows, settings: Settings, seed: int) -> list[Control]:
    """Source from the features, over all and within each class; class within the stream's own source."""
    by_source = replace(windows, leaf=windows.source)
    inside = windows.take(windows.source == STREAM_SOURCE)
    asked = [("Which source, over all classes?", by_source)]
    for leaf in np.unique(windows.leaf):
        asked.append((f"Which source, among {leaf}?", by_source.take(windows.leaf == leaf)))
    asked.append((f"Which class, within {STREAM_SOURCE}?", inside))
    controls = [ask(question, target, settings, seed) for question, target in asked]
    return [control for control in controls if control is not None]


def ask(question: str, target: Windows, settings: Settings, seed: int) -> Control | None:
    """Balanced accuracy by cross-validation over objects; None if fewer than two answers have enough objects.

    target : windows whose `leaf` is the answer wanted.
    """
    names = [name for name in np.unique(target.leaf) if _groups(target, name) >= MIN_GROUPS]
    if len(names) < 2:
        return None
    answers = tuple(str(name) for name in names)
    target = target.take(np.isin(target.leaf, names))
    rng = np.random.default_rng(seed)
    fold = folds(target.group, rng)
    probabilities = np.zeros((len(target), len(answers)))
    for k in range(FOLDS):
        held = fold == k
        booster = train_booster(target.take(~held), answers, settings, seed)
        probabilities[held] = softmax(raw_scores(booster, target.take(held)))
    truth = indices(target.leaf, answers)
    (figure,) = bootstrap(
        lambda w: np.array([np.nanmean(recall(probabilities, truth, w))]),
        truth,
        target,
        equal_weights(target.leaf, target.group),
        rng,
    )
    return Control(question, answers, [_groups(target, name) for name in answers], figure)


def source_alone(windows: Windows, leaves: tuple[str, ...]) -> float:
    """Balanced accuracy of the best guess of a class from nothing but the name of the source."""
    weight = equal_weights(windows.leaf, windows.group)
    sources, code = np.unique(windows.source, return_inverse=True)
    table = np.zeros((len(sources), len(leaves)))
    np.add.at(table, (code, indices(windows.leaf, leaves)), weight)
    return float(table.max(axis=1).sum())


def folds(group: Strings, rng: np.random.Generator) -> I64:
    """Fold number (w,) of each window: windows of one object share it."""
    names, code = np.unique(group, return_inverse=True)
    return np.asarray(rng.permutation(np.arange(len(names)) % FOLDS)[code])


def _groups(windows: Windows, leaf: str) -> int:
    return len(np.unique(windows.group[windows.leaf == leaf]))
