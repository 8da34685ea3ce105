"""Are two bundles the same model? File by file, and if not, by what they say of the same light curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broker.scores.bundle import MANIFEST
from broker.scores.stages import STAGE_SPECS
from broker.scores.taxonomy import FAMILIES, LEAVES
from broker.training.predict import Answer, answers, load_judge
from broker.training.sample import F64
from broker.training.task import Task

SAME_CLASS = 0.97
"""Share of the objects that must be given the same most probable class."""
MEAN_DIFFERENCE = 0.02
"""How far their probabilities may be apart, on average over objects and classes.

With the same versions of all libraries the files are the same, byte by byte. Other versions add up in another
order or draw other numbers; what a model says must then still be what the report is about.
"""


@dataclass(frozen=True)
class Comparison:
    """Two bundles side by side.

    differing : files that are not the same, the manifest's date and hashes aside
    same_class : share of the objects with the same most probable class
    mean, largest : distance of the probabilities over all objects and classes
    """

    differing: list[str]
    objects: int
    same_class: float
    mean: float
    largest: float

    @property
    def within_tolerance(self) -> bool:
        """Whether one may stand for the other."""
        return not self.differing or (self.same_class >= SAME_CLASS and self.mean <= MEAN_DIFFERENCE)

    def __str__(self) -> str:
        if not self.differing:
            return "the same, file by file"
        verdict = "within" if self.within_tolerance else "OUTSIDE"
        return (
            f"{len(self.differing)} files differ, {self.differing[0]} first; of {self.objects} objects "
            f"{self.same_class:.1%} have the same most probable class, probabilities are {self.mean:.4f} "
            f"apart on average and {self.largest:.2f} at most: {verdict} the tolerance of {SAME_CLASS:.0%} "
            f"and {MEAN_DIFFERENCE}"
        )


def compare(first: Path, second: Path, data: Path, tasks: Sequence[Task]) -> Comparison:
    """Two bundles' folders, asked about every object of a labelled folder in its last state."""
    differing = differing_files(first, second)
    if not differing:
        return Comparison([], 0, 1.0, 0.0, 0.0)
    one, other = (_answers(folder, data, tasks) for folder in (first, second))
    distance = np.abs(one - other)
    same = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
    return Comparison(differing, len(one), float(same), float(distance.mean()), float(distance.max()))


def differing_files(first: Path, second: Path) -> list[str]:
    """Names of the files that only one folder has or whose content differs; of the manifest what counts."""
    names = sorted({path.name for folder in (first, second) for path in folder.iterdir()})
    return [name for name in names if _content(first / name) != _content(second / name)]


def _content(path: Path) -> object:
    if not path.exists():
        return None
    if path.name == MANIFEST:
        said = json.loads(path.read_text())
        return {key: value for key, value in said.items() if key not in ("created", "files")}
    return path.read_bytes()


def _answers(folder: Path, data: Path, tasks: Sequence[Task]) -> F64:
    """(n, classes) probabilities of every object, 0 where a bundle has none."""
    judge = load_judge(folder)
    found = answers(data, tasks, judge, {}, lambda task: task.last_states, young=False)
    return np.asarray(np.nan_to_num(np.concatenate([_probabilities(one) for one in found])))


def _probabilities(answer: Answer) -> F64:
    """(n, classes) of an answer: the leaves', of what is judged by family the families' too."""
    names = [f"prob_{leaf}" for leaf in LEAVES] + [f"prob_family_{family}" for family in FAMILIES]
    position = {spec.name: place for place, spec in enumerate(STAGE_SPECS)}
    return answer.scores[:, [position[name] for name in names]]
