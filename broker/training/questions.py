"""Further questions to a stage: does it hold in another time, elsewhere, on other labels?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from broker.scores.novelty import Novelty
from broker.training.contenders import Contender, model_of, rivals
from broker.training.controls import Control, between, by_folds, inside
from broker.training.evaluate import log_loss
from broker.training.sample import F64, Sample, Strings
from broker.training.selection import Chosen, folds
from broker.training.tables import read_rows

CELL_DEG = 10.0
"""Width of a cell of the sky, whose objects are held out together."""
DEALS = 5
"""How often each input is dealt anew to see how important it is."""
LEAST_LATER = 5
"""Objects of a class that are enough, before and after, when time is held out: half of them are new."""


@dataclass(frozen=True)
class Extra:
    """One more question of a task, answered by cross-validation over the objects of a sample of its own.

    samples : of a labelled folder;  inputs : what is looked at
    kinds : other kinds of models that answer too, with the best settings that were found of each
    """

    question: str
    samples: Callable[[Path], Sample]
    inputs: tuple[str, ...]
    kinds: tuple[str, ...] = ()


def extra_controls(
    data: Path, extras: Sequence[Extra], chosen: Chosen, parametric: Sequence[str], seed: int
) -> list[Control]:
    """The answers to a task's further questions, beside those of the simple models."""
    best = {item.kind.name: item for item in chosen.candidates}
    found = []
    for extra in extras:
        kind, settings = chosen.candidate.kind, chosen.candidate.settings
        contenders = [model_of("stage", kind, settings, extra.inputs, seed)]
        contenders += [
            model_of(name, best[name].kind, best[name].settings, extra.inputs, seed)
            for name in extra.kinds
            if name in best and name != kind.name
        ]
        contenders += rivals(extra.inputs, parametric, seed)
        found += inside(extra.question, extra.samples(data), contenders, seed)
    return found


def one_against_rest(sample: Sample, label: str) -> Sample:
    """The sample with all other labels made one."""
    return replace(sample, label=np.where(sample.label == label, label, "rest"))


def other_sky(sample: Sample, data: Path, contenders: Sequence[Contender], seed: int) -> list[Control]:
    """Every object judged by models that saw nothing of its part of the sky."""
    places = _places(data, sample)
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    if not len(known):
        return []
    sample, cells = sample.take(known), sky_cells(*places[known].T)
    _, first, row = np.unique(sample.group, return_index=True, return_inverse=True)
    cell = cells[first][row]  # of an object that two sources put a little apart, one place counts
    names = [str(name) for name in np.unique(sample.label)]
    fold = folds(cell, sample.label, seed)
    enough = all(
        len(np.unique(sample.label[fold != held])) == len(names) and (fold == held).any()
        for held in range(fold.max() + 1)
    )
    if len(names) < 2 or not enough:
        return []
    return by_folds("another part of the sky", sample, names, fold, contenders, seed)


def later_time(
    sample: Sample, data: Path, dated: Sequence[str], contenders: Sequence[Contender], seed: int
) -> list[Control]:
    """The later half of the objects, by their first point, judged by models of the earlier half.

    dated : sources whose times are of one calendar
    """
    sample = sample.take(np.isin(sample.source, dated))
    if not len(sample):
        return []
    _, row = np.unique(sample.group, return_inverse=True)
    first = np.full(row.max() + 1, np.inf)
    np.minimum.at(first, row, _first_seen(data, sample))  # of an object under two names, the earlier
    late = (first > np.median(first))[row]
    return between("a later time", sample.take(~late), sample.take(late), contenders, seed, LEAST_LATER)


def sky_cells(ra: F64, dec: F64) -> Strings:
    """(n,) name of the cell of the sky of each place: zones of equal height in sin(dec), cut alike in ra.

    ra, dec : (n,) [deg]
    """
    zones, slices = round(180.0 / CELL_DEG), round(360.0 / CELL_DEG)
    zone = np.clip((np.sin(np.radians(dec)) + 1.0) / 2.0 * zones, 0, zones - 1).astype(np.int64)
    part = (np.mod(ra, 360.0) / 360.0 * slices).astype(np.int64) % slices
    return np.char.add(np.char.add(zone.astype(np.str_), "/"), part.astype(np.str_))


@dataclass(frozen=True)
class Importance:
    """By how much the log-loss on a sample grows when one input is dealt anew among its rows."""

    name: str
    growth: float


def importances(sample: Sample, chosen: Chosen, seed: int) -> list[Importance]:
    """Every input by its importance, the largest first: mean over a few deals.

    The same question to every kind of model. Of inputs that say the same, each may look unimportant.
    Source: Breiman 2001, Machine Learning 45, 5, section 10.
    """
    x, truth, weight = sample.columns(chosen.inputs), sample.truth(chosen.classes), sample.weights()
    rng = np.random.default_rng(seed)

    def loss(columns: F64) -> float:
        return log_loss(chosen.calibration.probabilities(chosen.model.raw(columns)), truth, weight)

    whole, found = loss(x), []
    for place, name in enumerate(chosen.inputs):
        dealt = x.copy()
        losses = []
        for _ in range(DEALS):
            dealt[:, place] = rng.permutation(x[:, place])
            losses.append(loss(dealt))
        found.append(Importance(name, float(np.mean(losses)) - whole))
    return sorted(found, key=lambda one: -one.growth)


@dataclass(frozen=True)
class Untaught:
    """What objects of a label that was not taught are taken for.

    called : objects by the class that is most probable;  novelty : median of the stage's novelty, 0..1
    """

    label: str
    objects: int
    called: dict[str, int]
    novelty: float


def untaught(sample: Sample, chosen: Chosen, novelty: Novelty) -> list[Untaught]:
    """What objects of untaught labels are taken for.  sample : one row an object."""
    labels = [str(name) for name in np.unique(sample.label) if name and name not in chosen.classes]
    return taken_for(sample, labels, chosen, novelty)


def taken_for(sample: Sample, labels: Sequence[str], chosen: Chosen, novelty: Novelty) -> list[Untaught]:
    """A row for each of some labels of a sample, which has one row an object."""
    found = []
    for label in labels:
        columns = sample.take(sample.label == label).columns(chosen.inputs)
        probabilities = chosen.calibration.probabilities(chosen.model.raw(columns))
        best = np.bincount(probabilities.argmax(axis=1), minlength=len(chosen.classes))
        called = {
            name: int(count) for name, count in zip(chosen.classes, best.tolist(), strict=True) if count
        }
        score = float(np.median(novelty.score(columns, probabilities)))
        found.append(Untaught(label, len(columns), called, score))
    return found


def _places(data: Path, sample: Sample) -> F64:
    """(n, 2) ra and dec [deg] of each row's object, NaN where unknown."""
    rows = read_rows(data / "labels.parquet", ("source", "object"), _sources(sample), ("ra", "dec"))
    known = {
        (row["source"], row["object"]): (row.get("ra"), row.get("dec"))
        for row in rows.to_pylist()
        if row.get("ra") is not None and row.get("dec") is not None
    }
    keys = zip(sample.source.tolist(), sample.object.tolist(), strict=True)
    return np.array([known.get(key, (np.nan, np.nan)) for key in keys], dtype=np.float64).reshape(-1, 2)


def _first_seen(data: Path, sample: Sample) -> F64:
    """(n,) time of the first point of each row's object, as published."""
    rows: pa.Table = read_rows(data / "photometry.parquet", ("source", "object", "mjd"), _sources(sample))
    rows = pa.table({name: rows[name].cast(kind) for name, kind in _TYPES.items()})
    least = rows.group_by(["source", "object"]).aggregate([("mjd", "min")]).to_pylist()
    first = {(row["source"], row["object"]): row["mjd_min"] for row in least}
    keys = zip(sample.source.tolist(), sample.object.tolist(), strict=True)
    return np.array([first.get(key, np.nan) for key in keys], dtype=np.float64)


_TYPES = {"source": pa.string(), "object": pa.string(), "mjd": pa.float64()}


def _sources(sample: Sample) -> list[str]:
    return sorted(set(sample.source.tolist()))
