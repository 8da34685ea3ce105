"""All that a training run found out: what the card and the report tell."""

from __future__ import annotations

from dataclasses import dataclass

from broker.scores.novelty import Novelty
from broker.training.baselines import Baseline
from broker.training.controls import Control
from broker.training.evaluate import Evaluation
from broker.training.novelty import LeftOut
from broker.training.questions import Importance, Untaught
from broker.training.sample import Sample
from broker.training.selection import Chosen
from broker.training.task import Task
from broker.training.tasks import counterpart, peak


@dataclass(frozen=True)
class StageResult:
    """One stage.

    learnt, test : the development and the test part;  figures : on the test part
    across       : within each source, and from each to each other, all objects
    source_alone : balanced accuracy of the best guess from the name of the source
    novelty      : what is usual, None if the survey's own objects cannot tell
    left_out_novelty : whether each class would be new, had it been left out
    left_out     : labels that no class was made of, with their number of objects
    untaught     : what they are taken for;  importances : of its inputs, on the test part
    held_out     : in another part of the sky, at a later time;  extras : the task's own further questions
    """

    task: Task
    chosen: Chosen
    learnt: Sample
    test: Sample
    figures: Evaluation
    baselines: list[Baseline]
    controls: list[Control]
    across: list[Control]
    novelty: Novelty | None
    left_out_novelty: list[LeftOut]
    source_alone: float
    left_out: dict[str, int]
    untaught: list[Untaught]
    importances: list[Importance]
    held_out: list[Control]
    extras: list[Control]


@dataclass(frozen=True)
class Results:
    """A bundle, and all that is known about it.

    survey, version : whose alerts it scores, and its own number
    sections : further pages of the report, Markdown
    shares : for each family the shares of its leaves that are assumed where no stage tells them apart
    counterpart : how well star, galaxy and quasar are told apart, None if the folder has none
    peaks : how well peaks of SNe Ia are forecast, empty if the folder knows none
    anomaly_quantiles : 5 %, 50 %, 95 % and 99 % of the anomaly score over the windows it was grown on
    """

    survey: str
    version: str
    seed: int
    stages: list[StageResult]
    shares: dict[str, dict[str, float]]
    counterpart: counterpart.Report | None
    peaks: list[peak.Row]
    anomaly_objects: int
    anomaly_quantiles: tuple[float, ...]
    sections: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How people call the bundle."""
        return f"{self.survey}-v{self.version}"
