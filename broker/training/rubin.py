"""The bundle of Rubin's alerts: taught by ZTF where it must be, by Rubin's own stream where it can be.

Rubin has next to no labelled objects yet. So the family's stage is taught by ZTF's histories, on the inputs
that Rubin's packets have, too; the stages of its leaves are those of ZTF's bundle. What is usual (novelty)
and what is strange (anomaly) is taken from Rubin's real light curves. No accuracy is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from broker.astro.sky import separation_deg
from broker.context import ABS_GAL_B
from broker.features.catalog import FEATURES
from broker.training.card import flow
from broker.training.dataset import Windows
from broker.training.evaluate import Figure
from broker.training.novelty import fit_novelty
from broker.training.questions import Untaught, taken_for
from broker.training.report import page_of, stage_sections, table, taken_table
from broker.training.results import Results, StageResult
from broker.training.sample import F64, Sample, joined
from broker.training.tables import read_rows
from broker.training.task import Task
from broker.training.tasks import family

NAME, VERSION = "lsst", "1"
SOURCE = family.RUBIN_SOURCE
INPUTS = (ABS_GAL_B, *family.LIGHT_CURVE)
CAVEATS = (
    "taught by ZTF's light curves: nothing is known of how well it does on Rubin's.",
    "of the surroundings it knows the galactic latitude alone; a first detection says next to nothing.",
    *family.CAVEATS,
)
TASK = replace(family.TASK, inputs=INPUTS, caveats=CAVEATS)
FIELD_DEG = 2.0
"""Radius of a Rubin pointing, roughly: objects within it are of one field."""
_WINDOWS_PER_OBJECT = 6
_RESAMPLES = 300


def has_rubin(data: Path) -> bool:
    """Whether a folder has light curves of Rubin's."""
    return len(read_rows(data / "labels.parquet", ("source", "object"), (SOURCE,))) > 0


def windows(data: Path, rng: np.random.Generator) -> Windows:
    """Rubin's objects at some of their detections each, as its packets showed them."""
    histories = family.load(data, (SOURCE,))
    lengths = np.diff(histories.starts)
    picks = [rng.permutation(length)[:_WINDOWS_PER_OBJECT] + 1 for length in lengths.tolist()]
    owner = np.repeat(np.arange(len(histories)), [len(pick) for pick in picks])
    seen = family.states(histories, owner, np.concatenate([*picks, np.empty(0, dtype=np.int64)]), None)
    return Windows(
        features=seen.features[:, : len(FEATURES)],
        source=seen.source,
        group=seen.group,
        label=seen.label,
        leaf=np.full(len(seen), "", dtype=np.str_),
        detections=seen.n_detections,
    )


def stages(
    data: Path, others: Sequence[StageResult], seed: int, teach: Callable[[Task], StageResult]
) -> list[StageResult]:
    """The family's stage, made anew, and the others as they are.

    others : of ZTF's bundle;  teach : makes a stage of a task. A stage's novelty is of real objects of the
    survey: the leaves' stages have none here.
    """
    own = teach(TASK)
    seen = joined([states(data) for states in (TASK.last_states, TASK.early_states)])
    seen = seen.take((seen.source == SOURCE) & (seen.n_detections > 0))
    columns = seen.columns(own.chosen.inputs)
    probabilities = own.chosen.calibration.probabilities(own.chosen.model.raw(columns))
    usual = fit_novelty(columns, probabilities, probabilities.argmax(axis=1), seen.group, seed)
    rest = [replace(stage, novelty=None) for stage in others if stage.task.parent]
    return [replace(own, novelty=usual), *rest]


@dataclass(frozen=True)
class AgnFigure:
    """How many AGN are called so, and what nothing but the place would give.

    recognised : share of the AGN that are called stochastic
    objects, in_one_field : AGN, and those of them within FIELD_DEG of the densest place
    others_there : objects of other or unknown kind in that field;  detections : median, of an AGN
    """

    recognised: Figure
    objects: int
    in_one_field: int
    others_there: int
    detections: float


def agn_figure(data: Path, family_stage: StageResult, seed: int) -> AgnFigure | None:
    """The figure of Rubin's AGN with its confound; None without any."""
    last, places = _last_states(data)
    agn = last.label == family.STOCHASTIC
    if not agn.any():
        return None
    chosen = family_stage.chosen
    called = chosen.calibration.probabilities(chosen.model.raw(last.take(agn).columns(chosen.inputs)))
    right = (called.argmax(axis=1) == chosen.classes.index(family.STOCHASTIC)).astype(np.float64)
    draws = np.random.default_rng(seed).choice(right, (_RESAMPLES, len(right))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    near = separation_deg(*places[agn].T[:, :, np.newaxis], *places.T[:, np.newaxis, :]) <= FIELD_DEG
    field = near[near[:, agn].sum(axis=1).argmax()]
    return AgnFigure(
        Figure(float(right.mean()), float(low), float(high)),
        int(agn.sum()),
        int((field & agn).sum()),
        int((field & ~agn).sum()),
        float(np.median(last.n_detections[agn])),
    )


def taken(data: Path, family_stage: StageResult) -> list[Untaught]:
    """What Rubin's labelled objects are taken for."""
    last, _ = _last_states(data)
    labels = [str(name) for name in np.unique(last.label) if name]
    novelty = family_stage.novelty
    assert novelty is not None
    return taken_for(last, labels, family_stage.chosen, novelty)


def write_page(folder: Path, results: Results, agn: AgnFigure | None, rows: Sequence[Untaught]) -> Path:
    """Write Rubin's report; returns the page."""
    own = results.stages[0]
    return page_of(
        folder,
        results,
        [own],
        [
            *_rubin(agn, rows),
            "# The family's stage, on ZTF's objects that taught it",
            *stage_sections(own),
        ],
    )


def _rubin(agn: AgnFigure | None, rows: Sequence[Untaught]) -> Iterator[str]:
    yield "## Unvalidated"
    yield flow("""No accuracy on Rubin is claimed: there are too few labelled objects. The stages `transient`
        and `periodic` are those of ZTF's bundle, whose report says how they were judged; they have no novelty
        here, because what is usual must be taken from real objects of the survey. Neither the counterpart
        nor the peak of an SN Ia is given: Rubin's packets have no griz magnitudes of a counterpart, and
        no Rubin SN Ia with a known peak was there to judge a forecast on.""")
    if rows:
        yield taken_table(rows)
    if agn is not None:
        yield "### AGN, and why the figure means little"
        yield table(
            ["AGN", "called stochastic", "of these in one field", "other objects there", "median detections"],
            [[agn.objects, agn.recognised, agn.in_one_field, agn.others_there, f"{agn.detections:.0f}"]],
        )
        yield flow("""One deep field, visited hundreds of times, holds most of the AGN, and hardly anything
            else that has a label: the field, or the number of detections, gives the class away. A model that
            had learnt nothing but that would reach a figure as good.""")


def _last_states(data: Path) -> tuple[Sample, F64]:
    """(Rubin's objects as last seen, their ra and dec (n, 2) [deg])."""
    histories = family.load(data, (SOURCE,))
    count = np.diff(histories.starts)
    seen = np.flatnonzero(count > 0)
    sample = family.states(histories, seen, count[seen], None)
    return sample, np.column_stack([histories.ra[seen], histories.dec[seen]])
