"""A bundle's answers about a folder of light curves, as tables, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from broker.context import CONTEXT_NAMES
from broker.errors import BrokerError
from broker.features.catalog import FEATURES
from broker.scores.anomaly import load_anomaly
from broker.scores.bundle import Manifest, read_manifest
from broker.scores.catalog import DEFAULT_BUNDLE
from broker.scores.counterpart import Counterpart, load_counterpart
from broker.scores.stages import STAGE_SPECS, Stages, load_stages, set_names
from broker.scores.taxonomy import FAMILIES, LEAVES
from broker.training.evaluate import Figure, balanced_accuracy, bootstrap
from broker.training.report import table
from broker.training.sample import F64, Sample, joined
from broker.training.task import Task
from broker.training.tasks import counterpart

States = Callable[[Task], Callable[[Path], Sample]]


@dataclass(frozen=True)
class Answer:
    """One source's rows and the bundle's columns for them.

    scores : (n, len(STAGE_SPECS));  anomaly : (n,);  families : whether the labels are of families
    """

    task: Task
    sample: Sample
    scores: F64
    anomaly: F64
    families: bool


@dataclass(frozen=True)
class Evaluated:
    """The files that an evaluation wrote."""

    predictions: Path
    early: Path
    report: Path
    rows: int


def evaluate_folder(data: Path, out: Path, tasks: Sequence[Task], bundle: Path | None = None) -> Evaluated:
    """Write predictions.parquet, early.parquet and report.md about a folder laid out like the labelled one.

    Each source is judged by the stages meant for it: light curves of the stream by all, a collection of
    variable stars by the stage of variable stars alone, as if their family were known.
    Raises BrokerError for a folder that cannot be read or holds no source that any task knows.
    """
    folder = bundle or DEFAULT_BUNDLE
    names = [feature.name for feature in FEATURES]
    manifest = read_manifest(folder, names, CONTEXT_NAMES)
    stages = load_stages(folder, manifest)
    out.mkdir(parents=True, exist_ok=True)
    last = answers(data, tasks, folder, manifest, stages, lambda task: task.last_states, young=False)
    if not last:
        known = sorted({source for task in tasks for source in task.sources})
        raise BrokerError(f"{data} has no light curve of a known source; known are {', '.join(known)}")
    early = answers(data, tasks, folder, manifest, stages, lambda task: task.early_states, young=True)
    pq.write_table(prediction_table(last), out / "predictions.parquet")
    pq.write_table(prediction_table(early), out / "early.parquet")
    write_counterparts(data, out, folder, manifest)
    page = out / "report.md"
    page.write_text(report(manifest, last, early))
    return Evaluated(
        out / "predictions.parquet", out / "early.parquet", page, sum(len(one.sample) for one in last)
    )


def write_counterparts(data: Path, out: Path, folder: Path, manifest: Manifest) -> None:
    """Write sdss.parquet where the folder has stars, galaxies and quasars and the bundle knows about them."""
    models = load_counterpart(folder, manifest)
    if (data / counterpart.TABLE).exists() and isinstance(models, Counterpart):
        pq.write_table(counterpart.predictions(data, models), out / "sdss.parquet")


def answers(
    data: Path,
    tasks: Sequence[Task],
    folder: Path,
    manifest: Manifest,
    stages: Stages,
    states: States,
    *,
    young: bool,
) -> list[Answer]:
    """The bundle's answers for every source of the folder, the first task that knows a source judging it."""
    trained = {spec.name for spec in manifest.stages}
    anomaly = load_anomaly(folder, manifest)
    found: list[Answer] = []
    done: set[str] = set()
    for task in sorted(tasks, key=lambda task: task.parent != ""):
        if task.name not in trained:
            continue
        sample = states(task)(data)
        sample = sample.take(~np.isin(sample.source, sorted(done)))
        done |= set(sample.source.tolist())
        if not len(sample):
            continue
        matrix = bundle_matrix(sample, manifest)
        asked = stages if not task.parent else alone(stages, task.parent, young=young)
        strange = anomaly.score(matrix)[:, 0]
        found.append(Answer(task, sample, asked.score(matrix), strange, not task.parent))
    return found


def alone(stages: Stages, family: str, *, young: bool) -> Stages:
    """One family's stage, the family taken for granted.

    young : with fewer detections than the stage needs all leaves are alike; else it is asked in any case
    """
    stage = stages.within[family]
    shares = dict.fromkeys(stage.classes, 1.0 / len(stage.classes))
    return Stages(None, {family: stage}, {family: shares} if young else {}, stages.detections)


def bundle_matrix(sample: Sample, manifest: Manifest) -> F64:
    """A sample's features in the order of a bundle, NaN where it has none."""
    position = {name: place for place, name in enumerate(sample.names)}
    names = (*manifest.feature_names, *manifest.context_names)
    matrix = np.full((len(sample), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in position:
            matrix[:, column] = sample.features[:, position[name]]
    return matrix


def prediction_table(found: Sequence[Answer]) -> pa.Table:
    """One row a state: who, how much was known, every probability, the class set, novelty and anomaly."""
    sample = joined([only_counts(one.sample) for one in found])
    scores = np.concatenate([one.scores for one in found])
    columns: dict[str, object] = {
        name: getattr(sample, name)
        for name in ("source", "object", "n_points", "n_nights", "n_detections", "age_days")
    }
    position = {spec.name: place for place, spec in enumerate(STAGE_SPECS)}
    for name in [f"prob_{leaf}" for leaf in LEAVES] + [f"prob_family_{family}" for family in FAMILIES]:
        columns[name] = pa.array(scores[:, position[name]], from_pandas=True)
    bits = scores[:, position["class_set_bits"]]
    columns["class_set"] = pa.array([set_names(value) for value in bits], type=pa.list_(pa.string()))
    columns["novelty"] = pa.array(scores[:, position["novelty"]], from_pandas=True)
    columns["anomaly"] = np.concatenate([one.anomaly for one in found])
    return pa.table(columns)


def only_counts(sample: Sample) -> Sample:
    """A sample without its features: samples of different tasks can then be joined."""
    return Sample(
        (), np.empty((len(sample), 0)), sample.label, sample.source, sample.object, sample.group,
        sample.n_points, sample.n_nights, sample.n_detections, sample.age_days,
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """How good the answers about one source are, over its labelled objects."""

    source: str
    classes: dict[str, int]
    balanced_accuracy: Figure
    coverage: Figure | None
    set_size: float


def judged(answer: Answer, source: str) -> Row | None:
    """Balanced accuracy over the classes of a source that were taught; None with fewer than two."""
    names, places = taught(answer)
    own = (answer.sample.source == source) & np.isin(answer.sample.label, names)
    sample = answer.sample.take(own)
    present = [name for name in names if (sample.label == name).any()]
    if len(present) < 2:
        return None
    probabilities, truth = np.nan_to_num(answer.scores[own][:, places]), sample.truth(names)
    rng = np.random.default_rng(1)
    coverage, size = None, np.nan
    if not answer.families:
        bits = answer.scores[own][:, [spec.name for spec in STAGE_SPECS].index("class_set_bits")]
        sets = [set_names(value) for value in bits]
        held = np.array(
            [label in chosen for label, chosen in zip(sample.label, sets, strict=True)], dtype=float
        )
        (coverage,) = bootstrap(
            lambda w: np.array([np.average(held, weights=w)]), truth, sample.group, np.ones(len(held)), rng
        )
        size = float(np.mean([len(chosen) for chosen in sets]))
    counts = {name: len(np.unique(sample.group[sample.label == name])) for name in present}
    return Row(source, counts, balanced_accuracy(probabilities, truth, sample, rng), coverage, size)


def taught(answer: Answer) -> tuple[list[str], list[int]]:
    """(classes of an answer's stage that have a probability, the columns of these)."""
    prefix, names = ("prob_family_", FAMILIES) if answer.families else ("prob_", LEAVES)
    position = {spec.name: place for place, spec in enumerate(STAGE_SPECS)}
    places = {name: position[f"{prefix}{name}"] for name in names if name in answer.task.classes}
    known = {name: place for name, place in places.items() if np.isfinite(answer.scores[:, place]).any()}
    return list(known), list(known.values())


def report(manifest: Manifest, last: Sequence[Answer], early: Sequence[Answer]) -> str:
    """The page: each source in its last state, and as nights come in."""
    parts = [f"# {manifest.id}-v{manifest.version} on a folder of labelled light curves", _EXPLANATION]
    rows = [
        row for one in last for source in np.unique(one.sample.source) if (row := judged(one, str(source)))
    ]
    header = [
        "source",
        "objects",
        "balanced accuracy",
        "objects whose set holds their class",
        "classes in a set",
    ]
    parts += ["## Last state", table(header, [_cells(row) for row in rows])]
    seen = []
    for one in early:
        for source in np.unique(one.sample.source):
            for nights in (1, 2, 3):
                young = (one.sample.n_nights == nights) & (one.sample.age_days <= 10.0)
                part = Answer(
                    one.task, one.sample.take(young), one.scores[young], one.anomaly[young], one.families
                )
                if row := judged(part, str(source)):
                    seen.append([f"{source}, {nights} nights", *_cells(row)[1:]])
    parts += ["## Early: at most 10 days after the first detection", table(header, seen)]
    return "\n\n".join(parts) + "\n"


_EXPLANATION = (
    "Every class counts the same; brackets hold 95 % of the values when objects are drawn again. If the "
    "bundle was trained on these very objects, the figures flatter it."
)


def _cells(row: Row) -> list[object]:
    objects = ", ".join(f"{name} {count}" for name, count in row.classes.items())
    size = "" if np.isnan(row.set_size) else f"{row.set_size:.2f}"
    return [row.source, objects, row.balanced_accuracy, row.coverage or "", size]
