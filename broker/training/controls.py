"""Is it the class that was learnt, or where the light curve came from? And does it hold elsewhere?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from broker.errors import BrokerError
from broker.training.contenders import Contender
from broker.training.evaluate import Figure, balanced_accuracy
from broker.training.sample import F64, I64, Sample
from broker.training.selection import folds

LEAST_GROUPS = 10
"""A source or class with fewer objects is left out of a control."""

FEW, DEALS_OF_FEW = 500, 5
"""Of fewer objects it matters which fold each fell into: so many deals, of which the mean counts."""

TELLING = (
    "n_det", "n_nights", "n_forced", "n_points", "last_limit", "forced_snr", "peak_mag", "last_mag",
    "flux_", "_flux", "snr", "frac_negative", "limiting_mag", "exposure_time", "programid", "_id",
)  # fmt: skip
"""Parts of names of columns that tell a source by its cadence, depth or habits; no input may have one."""
ALLOWED = ("fourier_amplitude",)


@dataclass(frozen=True)
class Control:
    """One question, asked with the chosen kind, settings and inputs.

    answers : what could be answered, with the number of objects of each
    others  : balanced accuracy of simpler or other models on the same rows
    """

    question: str
    answers: dict[str, int]
    balanced_accuracy: Figure
    others: dict[str, Figure] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """What a guess would give."""
        return 1.0 / len(self.answers)


def check_inputs(inputs: Sequence[str]) -> None:
    """BrokerError if an input tells the source rather than the class."""
    bad = [name for name in inputs if name not in ALLOWED and any(part in name for part in TELLING)]
    if bad:
        raise BrokerError(
            f"inputs {bad} tell surveys apart by cadence or depth; a stage may not look at them"
        )


def check_apart(first: Sample, second: Sample) -> None:
    """BrokerError if two parts share an object: every figure would be worthless."""
    shared = set(first.group.tolist()) & set(second.group.tolist())
    if shared:
        raise BrokerError(f"{len(shared)} objects are in two parts of the split, {sorted(shared)[0]!r} first")


def source_controls(sample: Sample, chosen: Contender, seed: int) -> list[Control]:
    """Can the source be told from the inputs, over all and within each class? By cross-validation."""
    by_source = replace(sample, label=sample.source)
    asked = [("Which source, over all classes?", by_source)]
    asked += [
        (f"Which source, among {name}?", by_source.take(sample.label == name))
        for name in np.unique(sample.label)
    ]
    return [control for question, part in asked for control in inside(question, part, [chosen], seed)[:1]]


def inside(question: str, sample: Sample, contenders: Sequence[Contender], seed: int) -> list[Control]:
    """Cross-validation over the objects of a sample; nothing without two classes of enough objects."""
    part, names = _common(sample, [sample])
    if len(names) < 2:
        return []
    deals = DEALS_OF_FEW if len(np.unique(part.group)) < FEW else 1
    found = [
        by_folds(question, part, names, folds(part.group, part.label, seed + deal), contenders, seed)
        for deal in range(deals)
    ]
    return [_mean(same) for same in zip(*found, strict=True)]


def _mean(controls: Sequence[Control]) -> Control:
    """The mean of the answers to one question, each object dealt to another fold."""
    first = controls[0]
    others = {name: _mean_figure([one.others[name] for one in controls]) for name in first.others}
    return replace(
        first, balanced_accuracy=_mean_figure([one.balanced_accuracy for one in controls]), others=others
    )


def _mean_figure(figures: Sequence[Figure]) -> Figure:
    return Figure(*np.mean([(one.value, one.low, one.high) for one in figures], axis=0).tolist())


def by_folds(
    question: str, sample: Sample, names: list[str], fold: I64, contenders: Sequence[Contender], seed: int
) -> list[Control]:
    """Each fold judged by models of the others.  fold : (n,) of each row."""
    answers = {}
    for one in contenders:
        answers[one.name] = np.empty((len(sample), len(names)))
        for held in np.unique(fold):
            learnt, judged = sample.take(fold != held), sample.take(fold == held)
            answers[one.name][fold == held] = one.answers(learnt, judged, names)
    return answered(question, answers, sample, names, seed)


def across(sample: Sample, contenders: Sequence[Contender], seed: int) -> list[Control]:
    """For each source: its own objects by cross-validation, the others' by a model of it alone.

    Over all states and, where objects have several, over the last of each: its whole light curve.
    """
    found: list[Control] = []
    sources = [str(name) for name in np.unique(sample.source)]
    for source in sources:
        own = sample.take(sample.source == source)
        found += inside(f"within {source}", own, contenders, seed)
        for other in sources:
            if other != source:
                judged = sample.take(sample.source == other)
                found += between(f"{source} -> {other}", own, judged, contenders, seed)
    return found


def between(
    question: str,
    learnt: Sample,
    judged: Sample,
    contenders: Sequence[Contender],
    seed: int,
    least: int = LEAST_GROUPS,
) -> list[Control]:
    """Models of one part judged on another; nothing without two classes of `least` objects in both."""
    learnt = learnt.take(~np.isin(learnt.group, judged.group))
    learnt, names = _common(learnt, [learnt, judged], least)
    if len(names) < 2:
        return []
    judged = judged.take(np.isin(judged.label, names))
    answers = {one.name: one.answers(learnt, judged, names) for one in contenders}
    return answered(question, answers, judged, names, seed)


def answered(
    question: str, answers: Mapping[str, F64], sample: Sample, names: list[str], seed: int
) -> list[Control]:
    """One figure over all rows and, where objects have several, one over the last of each.

    answers : (n, c) probabilities of each contender by its name, the one that is asked about first
    """
    last = sample.last_rows()
    asked = {question: np.arange(len(sample))} | (
        {f"{question}, last states": last} if len(last) < len(sample) else {}
    )
    found = []
    for text, rows in asked.items():
        part = sample.take(rows)
        figures = {
            name: balanced_accuracy(own[rows], part.truth(names), part, np.random.default_rng(seed))
            for name, own in answers.items()
        }
        first, *others = figures
        found.append(
            Control(text, _objects(part, names), figures[first], {name: figures[name] for name in others})
        )
    return found


def source_alone(sample: Sample, classes: Sequence[str]) -> float:
    """Balanced accuracy of the best guess of a class from nothing but the name of the source."""
    sources, code = np.unique(sample.source, return_inverse=True)
    table = np.zeros((len(sources), len(classes)))
    np.add.at(table, (code, sample.truth(classes)), sample.weights())
    return float(table.max(axis=1).sum() / table.sum())


def _common(sample: Sample, both: Sequence[Sample], least: int = LEAST_GROUPS) -> tuple[Sample, list[str]]:
    """Rows of the labels that all of `both` have enough objects of, and these labels."""
    names = [
        str(name)
        for name in np.unique(sample.label)
        if all(len(np.unique(part.group[part.label == name])) >= least for part in both)
    ]
    return sample.take(np.isin(sample.label, names)), names


def _objects(sample: Sample, names: Sequence[str]) -> dict[str, int]:
    return {name: len(np.unique(sample.group[sample.label == name])) for name in names}
