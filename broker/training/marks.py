"""How far a person's marks raise a kind of object: sessions played on labelled light curves.

In a session half of the objects are the stream, the other half is ranked before any mark and after all of
them. Objects of one group are on one side. A person who wants one class either knows some objects of it and
marks these, and as many others as boring; or has none, looks at the strangest objects that are not yet
marked, a few at a time, and says of each whether it is of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.scores.aad import grow, personal_forest
from broker.scores.personal import PERSONAL_INPUTS, PersonalForest
from broker.training.explosions import OSC, ZTF_SOURCES, load, random_windows
from broker.training.sample import F64, Sample

MARKS = 30
ROUND = 5
"""Of those who look at what is strange: objects marked before the forest is made anew."""
WAYS = ("examples", "suggestions")
SPLITS = 20
RESAMPLES = 100
"""Of the groups, for each split."""
LEAST_POINTS = 4
STREAM = "ztf_alert_histories"
"""The source that holds all classes: a class of another may be told by how its source looks."""
ZTF_WINDOW_DAYS = 30.0
"""What an alert packet carries: sources with whole light curves are cut to it."""


@dataclass(frozen=True)
class Case:
    """A class that somebody may want to see more of.

    sources : whose objects make up the stream;  within : rank those of one source only, '' for all
    """

    name: str
    sources: tuple[str, ...]
    wanted: str
    window_days: float
    within: str = ""


CASES = (
    Case("Open Supernova Catalog, SN II", (OSC,), "SNII", np.inf),
    Case("Open Supernova Catalog, SN IIn", (OSC,), "SNIIn", np.inf),
    Case("ZTF, SLSN", ZTF_SOURCES, "SLSN", ZTF_WINDOW_DAYS),
    Case("ZTF, TDE", ZTF_SOURCES, "TDE", ZTF_WINDOW_DAYS),
    Case("ZTF, SLSN, in alert histories alone", ZTF_SOURCES, "SLSN", ZTF_WINDOW_DAYS, STREAM),
)


@dataclass(frozen=True)
class Raised:
    """What marks came to, held-out objects alone.

    way : how the marked objects were found, one of WAYS
    objects, wanted : in all;  before, after, gain : area under the ROC curve of the class, mean over the
    splits;  interval : 95 % of the gain over splits and resampled groups
    interesting : objects of the class among the MARKS marked, mean over the splits
    """

    name: str
    way: str
    objects: int
    wanted: int
    before: float
    after: float
    gain: float
    interval: tuple[float, float]
    interesting: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(data: Path, seed: int = 1, advance: Callable[[], None] = lambda: None) -> list[Raised]:
    """Play every case on the light curves of a folder.  advance : told of each session that is done

    A case whose class the folder does not hold is left out.  Raises BrokerError.
    """
    samples: dict[tuple[tuple[str, ...], float], Sample] = {}
    raised = []
    for case in CASES:
        rng = np.random.default_rng(seed)
        key = case.sources, case.window_days
        if key not in samples:
            samples[key] = random_windows(load(data, case.sources), LEAST_POINTS, 1, case.window_days, rng)
        if (samples[key].label == case.wanted).sum() >= ROUND:
            raised += [_raised(case, way, samples[key], rng, advance) for way in WAYS]
    return raised


def auc(wanted: npt.NDArray[np.bool_], score: F64) -> float:
    """Chance that an object of the class scores above another, ties half.  wanted, score : (n,); NaN if none.

    >>> auc(np.array([True, False, False]), np.array([2.0, 1.0, 2.0]))
    0.75
    """
    ours, others = score[wanted], np.sort(score[~wanted])
    if not len(ours) or not len(others):
        return float("nan")
    below = np.searchsorted(others, ours, "left") + np.searchsorted(others, ours, "right")
    return float(below.mean() / (2 * len(others)))


def session(
    stream: F64, wanted: npt.NDArray[np.bool_], way: str, seed: int
) -> tuple[PersonalForest, PersonalForest, int]:
    """The forest before any mark, the one after all, and how many of those marked were wanted.

    stream : (n, len(PERSONAL_INPUTS)), NaN where unknown;  wanted : (n,);  way : one of WAYS
    """
    trees = grow(stream, PERSONAL_INPUTS, seed)
    columns = stream[:, [PERSONAL_INPUTS.index(name) for name in trees.inputs]]
    first = personal_forest(trees, columns[:0], wanted[:0], columns)
    if way == "examples":
        marked = _examples(wanted, np.random.default_rng(seed))
        last = personal_forest(trees, columns[marked], wanted[marked], columns)
    else:
        last, marked = _suggested(first, columns, wanted)
    return first, last, int(wanted[marked].sum())


def _examples(wanted: npt.NDArray[np.bool_], rng: np.random.Generator) -> list[int]:
    """As many of the class as of the others."""
    each = min(MARKS // 2, int(wanted.sum()))
    sides = (rng.permutation(np.flatnonzero(side))[:each] for side in (wanted, ~wanted))
    return [int(row) for side in sides for row in side]


def _suggested(
    forest: PersonalForest, columns: F64, wanted: npt.NDArray[np.bool_]
) -> tuple[PersonalForest, list[int]]:
    leaves = forest.trees.leaves(columns)
    marked: list[int] = []
    while len(marked) < min(MARKS, len(columns)):
        strangeness = forest.strangeness(leaves)
        strangeness[marked] = -np.inf
        marked += np.argsort(-strangeness, kind="stable")[:ROUND].tolist()
        forest = personal_forest(forest.trees, columns[marked], wanted[marked], columns)
    return forest, marked


def _raised(
    case: Case, way: str, sample: Sample, rng: np.random.Generator, advance: Callable[[], None]
) -> Raised:
    columns, wanted = sample.columns(PERSONAL_INPUTS), sample.label == case.wanted
    ranked = np.ones(len(sample), dtype=np.bool_) if not case.within else sample.source == case.within
    before: list[float] = []
    after: list[float] = []
    gains: list[float] = []
    found: list[int] = []
    for number in range(SPLITS):
        stream = _half(sample.group, rng)
        first, last, count = session(columns[stream], wanted[stream], way, number)
        rest = ~stream & ranked
        old, new = (_strangeness(forest, columns[rest]) for forest in (first, last))
        before.append(auc(wanted[rest], old))
        after.append(auc(wanted[rest], new))
        gains += _resampled(sample.group[rest], wanted[rest], old, new, rng)
        found.append(count)
        advance()
    low, high = np.nanquantile(gains, [0.025, 0.975]).tolist()
    return Raised(
        case.name,
        way,
        objects=int(ranked.sum()),
        wanted=int((wanted & ranked).sum()),
        before=float(np.nanmean(before)),
        after=float(np.nanmean(after)),
        gain=float(np.nanmean(after) - np.nanmean(before)),
        interval=(low, high),
        interesting=float(np.mean(found)),
    )


def _strangeness(forest: PersonalForest, columns: F64) -> F64:
    inputs = [PERSONAL_INPUTS.index(name) for name in forest.trees.inputs]
    return forest.strangeness(forest.trees.leaves(columns[:, inputs]))


def _half(group: npt.NDArray[np.str_], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Half of the groups, whole ones."""
    names = np.unique(group)
    return np.isin(group, rng.permutation(names)[: len(names) // 2])


def _resampled(
    group: npt.NDArray[np.str_],
    wanted: npt.NDArray[np.bool_],
    old: F64,
    new: F64,
    rng: np.random.Generator,
) -> Sequence[float]:
    """The gain on groups drawn again with replacement."""
    _, of = np.unique(group, return_inverse=True)
    rows = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[rows], np.arange(of.max() + 2))
    gains = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(starts) - 1, len(starts) - 1)
        pick = np.concatenate([rows[starts[k] : starts[k + 1]] for k in drawn])
        gains.append(auc(wanted[pick], new[pick]) - auc(wanted[pick], old[pick]))
    return gains
