"""A bundle's answers about a folder of light curves, as tables, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from broker.context import CONTEXT_NAMES
from broker.errors import BrokerError
from broker.features.catalog import FEATURES
from broker.scores.anomaly import load_anomaly
from broker.scores.bundle import Manifest, read_manifest
from broker.scores.catalog import DEFAULT_BUNDLE, OWN_BUNDLES, Part
from broker.scores.counterpart import Counterpart, load_counterpart
from broker.scores.stages import STAGE_SPECS, Stages, load_stages, set_names
from broker.scores.taxonomy import FAMILIES, LEAVES
from broker.training.evaluate import Figure, balanced_accuracy, bootstrap
from broker.training.report import table
from broker.training.sample import F64, I64, Sample, joined
from broker.training.task import Task
from broker.training.tasks import counterpart
from broker.training.tasks.family import RUBIN_SOURCE

Mask = npt.NDArray[np.bool_]
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
    bundle : judges everything; by default the shipped ones do, Rubin's light curves by Rubin's own
    Raises BrokerError for a folder that cannot be read or holds no source that any task knows.
    """
    judge = load_judge(bundle or DEFAULT_BUNDLE)
    judges = {} if bundle else {RUBIN_SOURCE: load_judge(OWN_BUNDLES["lsst"])}
    out.mkdir(parents=True, exist_ok=True)
    last = answers(data, tasks, judge, judges, lambda task: task.last_states, young=False)
    if not last:
        known = sorted({source for task in tasks for source in task.sources})
        raise BrokerError(f"{data} has no light curve of a known source; known are {', '.join(known)}")
    early = answers(data, tasks, judge, judges, lambda task: task.early_states, young=True)
    pq.write_table(prediction_table(last), out / "predictions.parquet")
    pq.write_table(prediction_table(early), out / "early.parquet")
    write_counterparts(data, out, judge)
    page = out / "report.md"
    page.write_text(report([one.manifest for one in (judge, *judges.values())], last, early))
    return Evaluated(
        out / "predictions.parquet", out / "early.parquet", page, sum(len(one.sample) for one in last)
    )


@dataclass(frozen=True)
class Judge:
    """A bundle, loaded."""

    folder: Path
    manifest: Manifest
    stages: Stages
    anomaly: Part


def load_judge(folder: Path) -> Judge:
    """The bundle of a folder.  Raises BundleError."""
    manifest = read_manifest(folder, [feature.name for feature in FEATURES], CONTEXT_NAMES)
    return Judge(folder, manifest, load_stages(folder, manifest), load_anomaly(folder, manifest))


def write_counterparts(data: Path, out: Path, judge: Judge) -> None:
    """Write sdss.parquet where the folder has stars, galaxies and quasars and the bundle knows about them."""
    models = load_counterpart(judge.folder, judge.manifest)
    if (data / counterpart.TABLE).exists() and isinstance(models, Counterpart):
        pq.write_table(counterpart.predictions(data, models), out / "sdss.parquet")


def answers(
    data: Path,
    tasks: Sequence[Task],
    judge: Judge,
    judges: Mapping[str, Judge],
    states: States,
    *,
    young: bool,
) -> list[Answer]:
    """Answers for every source of the folder, the first task that knows a source judging it.

    judges : bundles that judge a source of their own, all others are for `judge`
    """
    trained = {spec.name for spec in judge.manifest.stages}
    found: list[Answer] = []
    done: set[str] = set()
    for task in sorted(tasks, key=lambda task: task.parent != ""):
        if task.name not in trained:
            continue
        sample = states(task)(data)
        sample = sample.take(~np.isin(sample.source, sorted(done)))
        done |= set(sample.source.tolist())
        own = {source: one for source, one in judges.items() if (sample.source == source).any()}
        rest = sample.take(~np.isin(sample.source, list(own)))
        found += [_answer(task, rest, judge, young)] if len(rest) else []
        found += [
            _answer(task, sample.take(sample.source == source), one, young) for source, one in own.items()
        ]
    return found


def _answer(task: Task, sample: Sample, judge: Judge, young: bool) -> Answer:
    matrix = bundle_matrix(sample, judge.manifest)
    asked = judge.stages if not task.parent else alone(judge.stages, task.parent, young=young)
    strange = judge.anomaly.score(matrix)[:, 0]
    return Answer(task, sample, asked.score(matrix), strange, not task.parent)


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
    """How good the answers about one source are, over its labelled objects.

    answered : share of them with one most probable class; an object without is counted as wrong
    """

    source: str
    classes: dict[str, int]
    answered: float
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
    truth = sample.truth(names)
    probabilities, decided = with_abstentions(answer.scores[own][:, places], truth)
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
    figure = balanced_accuracy(probabilities, truth, sample, rng)
    return Row(source, counts, float(decided.mean()), figure, coverage, size)


def with_abstentions(probabilities: F64, truth: I64) -> tuple[F64, Mask]:
    """(probabilities in which a row without one most probable class is wrong, rows with one).

    probabilities : (n, c), NaN where unknown;  truth : (n,). To say the same of two classes, or nothing, is
    to abstain.
    """
    known = np.nan_to_num(probabilities)
    most = known.max(axis=1, keepdims=True)
    decided = ((known == most).sum(axis=1) == 1) & (most[:, 0] > 0.0)
    wrong = np.eye(known.shape[1])[(truth + 1) % known.shape[1]]
    return np.where(decided[:, np.newaxis], known, wrong), decided


def taught(answer: Answer) -> tuple[list[str], list[int]]:
    """(classes of an answer's stage that have a probability, the columns of these)."""
    prefix, names = ("prob_family_", FAMILIES) if answer.families else ("prob_", LEAVES)
    position = {spec.name: place for place, spec in enumerate(STAGE_SPECS)}
    places = {name: position[f"{prefix}{name}"] for name in names if name in answer.task.classes}
    known = {name: place for name, place in places.items() if np.isfinite(answer.scores[:, place]).any()}
    return list(known), list(known.values())


def report(manifests: Sequence[Manifest], last: Sequence[Answer], early: Sequence[Answer]) -> str:
    """The page: each source in its last state, and as nights come in."""
    names = " and ".join(f"{manifest.id}-v{manifest.version}" for manifest in manifests)
    parts = [f"# {names} on a folder of labelled light curves", _EXPLANATION]
    rows = [
        row for one in last for source in np.unique(one.sample.source) if (row := judged(one, str(source)))
    ]
    header = [
        "source",
        "objects",
        "answered",
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
    "bundle was trained on these very objects, the figures flatter it. Where a stage has too few detections "
    "to tell leaves apart it abstains: that counts as wrong, and `answered` says how often it did not."
)


def _cells(row: Row) -> list[object]:
    objects = ", ".join(f"{name} {count}" for name, count in row.classes.items())
    size = "" if np.isnan(row.set_size) else f"{row.set_size:.2f}"
    return [row.source, objects, f"{row.answered:.2f}", row.balanced_accuracy, row.coverage or "", size]
