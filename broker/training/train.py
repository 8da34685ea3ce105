"""The whole run: labelled light curves in, a sealed bundle and its report out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from broker.context import CONTEXT_NAMES
from broker.errors import BrokerError
from broker.features.catalog import FEATURES, feature_set_hash
from broker.scores.anomaly import FOREST_FILE, Forest, save_forest
from broker.scores.bundle import Manifest, StageSpec, write_manifest
from broker.scores.counterpart import LATITUDE, MAGNITUDES
from broker.scores.novelty import Novelty, save_novelty
from broker.scores.stages import NOVELTY_FILE
from broker.scores.taxonomy import FAMILIES, FAMILY_OF
from broker.training import rubin
from broker.training.anomaly import ANOMALY_INPUTS, grow
from broker.training.baselines import baselines
from broker.training.card import card
from broker.training.contenders import model_of, rivals
from broker.training.controls import across, check_apart, check_inputs, source_alone, source_controls
from broker.training.dataset import STREAM_SOURCE, Windows, feature_indices, load_detections, windows
from broker.training.drift import write_reference
from broker.training.embedding import train_embedding
from broker.training.evaluate import Evaluation, evaluate
from broker.training.novelty import LeftOut, fit_novelty, leave_each_out
from broker.training.questions import extra_controls, importances, later_time, other_sky, untaught
from broker.training.report import write_report
from broker.training.results import Results, StageResult
from broker.training.sample import F64, Sample
from broker.training.selection import BUDGET, LEAST_GROUPS, Chosen, choose, folds
from broker.training.simulation_report import simulation_report
from broker.training.task import Task
from broker.training.tasks import counterpart, peak

SURVEY, VERSION = "ztf", "3"
WINDOWS_PER_OBJECT = 6
_TEST_FOLDS = 5
_SIMULATION = "## Simulation\n\n[How real it looks, and what it teaches](simulation.md)."

Progress = Callable[[float, str], None]
"""Called with the fraction done, 0..1, and what is being done."""


@dataclass(frozen=True)
class Report:
    """What a training run leaves: the bundle's folder, the report's page, and all results."""

    bundle: Path
    page: Path
    results: Results
    unfit: dict[str, str]
    """What the folder cannot teach, and why."""
    other: Report | None
    """Of the other survey's bundle, if there is one."""


class Unteachable(BrokerError):
    """The folder holds too little for a task."""


def train(
    data: Path,
    out: Path,
    tasks: Sequence[Task],
    *,
    seed: int = 1,
    budget: int = BUDGET,
    every: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Train the tasks that a folder of light curves can teach; write `out/<bundle>` and `out/report`.

    data : folder with `labels.parquet` and `photometry.parquet`;  seed : all chance in the run comes from it
    budget : settings tried of each kind of model;  every : an error if a task cannot be taught
    Two runs with one seed give the same files, but for the manifest's date. BrokerError for unfit data.
    """
    tell = progress or (lambda fraction, text: None)
    folder = check_ready(out)
    tell(0.0, "reading light curves")
    stages, unfit = [], _without_rubin(data)
    if unfit and every:
        raise BrokerError(unfit[rubin.NAME])
    for number, task in enumerate(tasks):

        def step(fraction: float, text: str, number: int = number, name: str = task.name) -> None:
            tell(0.9 * (number + fraction) / len(tasks), f"{name}: {text}")

        try:
            stages.append(train_stage(task, data, seed, budget, step))
        except Unteachable as error:
            unfit[task.name] = str(error)
    if unfit and (every or not stages):
        raise BrokerError("; ".join(unfit.values()))
    sources = train_counterpart(data, folder, seed, tell)
    peaks = train_peaks(data, folder, seed, tell)
    tell(0.92, "growing the isolation forest")
    stream = stream_windows(data, np.random.default_rng(seed))
    results, forest = finished(SURVEY, VERSION, stages, stream, seed)
    results = replace(results, counterpart=sources, peaks=peaks)
    tell(0.93, "learning without labels")
    results = with_embedding(results, stream, folder, out / "report" / results.name)
    if every:
        tell(0.94, "simulation: what it looks like beside real objects, and whether it teaches")
        simulation_report(data, out / "report" / results.name, seed)
        results = replace(results, sections=(*results.sections, _SIMULATION))
    tell(0.95, "writing the report")
    write_bundle(folder, results, forest, provenance(data, results))
    page = write_report(out / "report" / results.name, results)
    other = None if rubin.NAME in unfit else train_rubin(data, out, stages, seed, budget, tell)
    tell(1.0, "done")
    return Report(folder, page, results, unfit, other)


def _without_rubin(data: Path) -> dict[str, str]:
    """Why a folder cannot teach Rubin's bundle, by its name; empty if it can."""
    return {} if rubin.has_rubin(data) else {rubin.NAME: f"lsst: no light curve of source {rubin.SOURCE!r}"}


def train_rubin(
    data: Path, out: Path, others: Sequence[StageResult], seed: int, budget: int, tell: Progress
) -> Report | None:
    """Rubin's own bundle, and its page, beside ZTF's.  others : the stages of ZTF's."""
    tell(0.96, "lsst: its own bundle")
    stages = rubin.stages(data, others, seed, lambda task: train_stage(task, data, seed, budget))
    stream = rubin.windows(data, np.random.default_rng(seed))
    results, forest = finished(rubin.NAME, rubin.VERSION, stages, stream, seed)
    folder = out / results.name
    results = with_embedding(results, stream, folder, out / "report" / results.name)
    write_bundle(folder, results, forest, provenance(data, results))
    figure, rows = rubin.agn_figure(data, stages[0], seed), rubin.taken(data, stages[0])
    page = rubin.write_page(out / "report" / results.name, results, figure, rows)
    return Report(folder, page, results, {}, None)


def finished(
    survey: str, version: str, stages: list[StageResult], stream: Windows, seed: int
) -> tuple[Results, Forest]:
    """A bundle's stages with the forest of its survey's stream."""
    forest, strangeness = grow_forest(stream, seed)
    results = Results(
        survey=survey,
        version=version,
        seed=seed,
        stages=stages,
        shares=leaf_shares(stages),
        counterpart=None,
        peaks=[],
        anomaly_objects=len(np.unique(stream.group)),
        anomaly_quantiles=tuple(np.quantile(strangeness, [0.05, 0.5, 0.95, 0.99]).tolist()),
    )
    return results, forest


def with_embedding(results: Results, stream: Windows, folder: Path, report: Path) -> Results:
    """The results with what is learnt without labels: its file goes to `folder`, its map to `report`."""
    names = [feature.name for feature in FEATURES]
    found = train_embedding(names, stream.features, stream.group, stream.label, folder, results.seed)
    if found is None:
        return results
    report.mkdir(parents=True, exist_ok=True)
    found.draw(report)
    return replace(results, sections=(*results.sections, found.markdown()))


def train_counterpart(data: Path, folder: Path, seed: int, tell: Progress) -> counterpart.Report | None:
    """Star, galaxy or quasar by colour, where the folder has such objects."""
    if not (data / counterpart.TABLE).exists():
        return None
    tell(0.9, "counterpart: star, galaxy or quasar")
    return counterpart.train(data, folder, seed=seed)


def train_peaks(data: Path, folder: Path, seed: int, tell: Progress) -> list[peak.Row]:
    """When an SN Ia peaks and how bright, where the folder knows the peaks of some."""
    if not (data / peak.TRUTH).exists():
        return []
    tell(0.91, "peak: when and how bright")
    return peak.train_peak(data, folder, seed)


def check_ready(out: Path) -> Path:
    """Folder for the bundle; BrokerError if one is there already, or if a library is missing."""
    missing = [name for name in ("matplotlib", "onnx", "skl2onnx") if find_spec(name) is None]
    if missing:
        raise BrokerError(f"training needs {', '.join(missing)}: pip install 'transient-broker[train]'")
    for name in (f"{rubin.NAME}-v{rubin.VERSION}", f"{SURVEY}-v{VERSION}"):
        folder = out / name
        if folder.exists() and any(folder.iterdir()):
            raise BrokerError(f"{folder} is not empty; a bundle is never written over: give another folder")
    return folder


def train_stage(
    task: Task, data: Path, seed: int, budget: int, step: Progress = lambda fraction, text: None
) -> StageResult:
    """Choose on the development part, judge once on the test part, and ask the control questions.

    A fifth of the objects of each class is the test part. The rest is development: its folds serve, in turn,
    as validation to choose hyper-parameters and kind, to calibrate and to size the class sets.
    """
    check_inputs(task.inputs)
    step(0.0, "reading light curves")
    sample = task.samples(data)
    classes = learnable(sample, task)
    labelled = sample.take(np.isin(sample.label, classes))
    held = folds(labelled.group, labelled.label, seed, _TEST_FOLDS) == 0
    learnt, test = labelled.take(~held), labelled.take(held)
    check_apart(learnt, test)

    def tried(done: int, whole: int) -> None:
        step(0.1 + 0.6 * done / whole, f"candidate {done} of {whole}")

    chosen = choose(learnt, classes, task.inputs, seed=seed, budget=budget, step=tried)
    step(0.7, "evaluating on the test part")
    test_figures = judge(chosen, test, seed)
    simple = baselines(learnt, test, classes, task.inputs, task.parametric, seed)
    step(0.8, "asking for the source")
    kind, settings = chosen.candidate.kind, chosen.candidate.settings
    contenders = [
        model_of("stage", kind, settings, task.inputs, seed),
        *rivals(task.inputs, task.parametric, seed),
    ]
    usual = reference(chosen, learnt, seed)
    return StageResult(
        task=task,
        chosen=chosen,
        learnt=learnt,
        test=test,
        figures=test_figures,
        baselines=simple,
        controls=source_controls(learnt, contenders[0], seed),
        across=across(labelled, contenders, seed),
        novelty=usual,
        left_out_novelty=novel_classes(labelled, chosen, seed),
        source_alone=source_alone(learnt, classes),
        left_out=left_out(sample, classes),
        untaught=untaught(task.last_states(data), chosen, usual),
        importances=importances(test, chosen, seed),
        held_out=[
            *other_sky(labelled, data, contenders, seed),
            *later_time(labelled, data, task.dated, contenders, seed),
        ],
        extras=extra_controls(data, task.extras, chosen, task.parametric, seed),
    )


def reference(chosen: Chosen, learnt: Sample, seed: int) -> Novelty:
    """What is usual in the development part, for the stage's novelty."""
    probabilities = chosen.calibration.probabilities(chosen.held_out)
    truth = learnt.truth(chosen.classes)
    return fit_novelty(learnt.columns(chosen.inputs), probabilities, truth, learnt.group, seed)


def novel_classes(labelled: Sample, chosen: Chosen, seed: int) -> list[LeftOut]:
    """Each class left out in turn, of more than two: does novelty find it? One row an object."""
    if len(chosen.classes) < 3:
        return []
    _, last = np.unique(labelled.group[::-1], return_index=True)
    sample = labelled.take(np.sort(len(labelled) - 1 - last))
    kind, settings = chosen.candidate.kind, chosen.candidate.settings
    return leave_each_out(sample, chosen.classes, chosen.inputs, kind, settings, seed)


def judge(chosen: Chosen, sample: Sample, seed: int) -> Evaluation:
    """The one evaluation on a part that played no role before."""
    raw = chosen.model.raw(sample.columns(chosen.inputs))
    return evaluate(raw, chosen.calibration, sample, chosen.classes, np.random.default_rng(seed))


def learnable(sample: Sample, task: Task) -> tuple[str, ...]:
    """The task's classes with enough objects; Unteachable if they are fewer than two."""
    counts = {name: len(np.unique(sample.group[sample.label == name])) for name in task.classes}
    classes = tuple(name for name, count in counts.items() if count >= LEAST_GROUPS)
    if len(classes) < 2:
        raise Unteachable(
            f"{task.name}: only {len(classes)} classes have {LEAST_GROUPS} objects or more; is it the right "
            f"folder? It has {counts}"
        )
    return classes


def left_out(sample: Sample, classes: Sequence[str]) -> dict[str, int]:
    """Labels that no class was made of, with their number of objects."""
    names = [str(name) for name in np.unique(sample.label) if name and name not in classes]
    return {name: len(np.unique(sample.group[sample.label == name])) for name in names}


def leaf_shares(stages: Sequence[StageResult]) -> dict[str, dict[str, float]]:
    """For each family of the family stage the shares of its leaves, where no stage tells them apart.

    All its leaves alike: the labelled samples say nothing about how frequent they are in the stream.
    """
    families = [name for stage in stages if not stage.task.parent for name in stage.chosen.classes]
    within = {stage.task.parent: stage.chosen.classes for stage in stages if stage.task.parent}
    shares = {}
    for family in families:
        leaves = within.get(family, FAMILIES[family])
        shares[family] = {leaf: 1.0 / len(leaves) for leaf in leaves if FAMILY_OF[leaf] == family}
    return shares


def stream_windows(data: Path, rng: np.random.Generator) -> Windows:
    """Windows of every object of the stream's source, labelled or not."""
    detections = load_detections(data)
    stream = np.flatnonzero(detections.source == STREAM_SOURCE)
    if not len(stream):
        raise BrokerError(
            f"no light curve of source {STREAM_SOURCE!r}: the anomaly score needs the real stream"
        )
    return windows(detections, stream, WINDOWS_PER_OBJECT, rng)


def grow_forest(stream: Windows, seed: int) -> tuple[Forest, F64]:
    """The isolation forest, and its score of each window that it was grown on."""
    columns = stream.features[:, feature_indices(ANOMALY_INPUTS)]
    forest, _ = grow(columns, seed)
    return forest, forest.anomaly(columns)


def write_bundle(folder: Path, results: Results, forest: Forest, training: dict[str, object]) -> None:
    """Write the stages' models, the forest and the card, then seal the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_forest(folder / FOREST_FILE, forest)
    for stage in results.stages:
        stage.chosen.model.save(folder, stage.task.name)
        if stage.novelty is not None:
            save_novelty(folder / f"{stage.task.name}{NOVELTY_FILE}", stage.novelty)
    (folder / "card.md").write_text(card(results))
    seen = [(stage.chosen.inputs, stage.learnt.columns(stage.chosen.inputs)) for stage in results.stages]
    write_reference(folder, *seen)
    names = {name for stage in results.stages for name in stage.chosen.inputs}
    if results.counterpart is not None:
        names |= {*MAGNITUDES, LATITUDE}
    manifest = Manifest(
        id=results.survey,
        version=results.version,
        created=datetime.now(UTC).strftime("%Y-%m-%d"),
        survey=results.survey,
        feature_set_hash=feature_set_hash(),
        feature_names=tuple(feature.name for feature in FEATURES),
        context_names=tuple(name for name in CONTEXT_NAMES if name in names),
        stages=tuple(stage_spec(stage) for stage in results.stages),
        shares=results.shares,
        anomaly_inputs=ANOMALY_INPUTS,
        training=training,
    )
    write_manifest(folder, manifest)


def stage_spec(stage: StageResult) -> StageSpec:
    """What the manifest says of a stage."""
    chosen, calibration = stage.chosen, stage.chosen.calibration
    return StageSpec(
        name=stage.task.name,
        parent=stage.task.parent,
        kind=chosen.candidate.kind.name,
        classes=chosen.classes,
        inputs=chosen.inputs,
        least_detections=stage.task.least_detections,
        temperature=calibration.temperature,
        bias=tuple(calibration.bias.tolist()),
        prior=tuple(calibration.prior.tolist()),
        quantiles=tuple(calibration.quantiles.tolist()),
    )


def provenance(data: Path, results: Results) -> dict[str, object]:
    """What one needs to make the bundle again, and what it is worth in figures."""
    return {
        "seed": results.seed,
        "data": {name: _sha256(data / name) for name in ("labels.parquet", "photometry.parquet")},
        "libraries": {name: version(name) for name in ("lightgbm", "scikit-learn")},
        "stages": {stage.task.name: _summary(stage) for stage in results.stages},
    }


def _summary(stage: StageResult) -> dict[str, object]:
    test = stage.figures
    return {
        "kind": stage.chosen.candidate.kind.name,
        "settings": dict(stage.chosen.candidate.settings),
        "objects": {"development": _objects(stage.learnt), "test": _objects(stage.test)},
        "test": {
            "balanced_accuracy": asdict(test.balanced_accuracy),
            "log_loss": asdict(test.log_loss),
            "brier": asdict(test.brier),
            "ece": test.balanced.ece,
            "coverage": asdict(test.coverage),
            "recall": {leaf: asdict(own) for leaf, own in zip(test.classes, test.recall, strict=True)},
        },
        "baselines": {item.name: item.balanced_accuracy.value for item in stage.baselines},
        "source_alone_balanced_accuracy": stage.source_alone,
    }


def _objects(sample: Sample) -> int:
    return len(np.unique(sample.group))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
