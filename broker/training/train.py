"""The whole run: labelled light curves in, a sealed bundle and its report out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import lightgbm
import numpy as np
import sklearn

from broker.errors import BrokerError
from broker.features.catalog import FEATURES, feature_set_hash
from broker.scores.anomaly import FOREST_FILE, Forest, save_forest
from broker.scores.bundle import Manifest, write_manifest
from broker.scores.classifier import CALIBRATION_FILE, MODEL_FILE
from broker.scores.taxonomy import LEAVES
from broker.training.anomaly import ANOMALY_INPUTS, grow
from broker.training.card import Results, card, pooled
from broker.training.classifier import CLASSIFIER_INPUTS, GRID, Fitted, Settings, equal_weights, fit
from broker.training.controls import run_controls, source_alone
from broker.training.dataset import (
    F64,
    I64,
    LABELS,
    MIN_GROUPS,
    STREAM_SOURCE,
    Detections,
    Windows,
    feature_indices,
    load_detections,
    windows,
)
from broker.training.evaluate import Evaluation, evaluate
from broker.training.report import write_report
from broker.training.split import PARTS, Split, split_groups

NAME = "ztf-30day"
VERSION = "1"
WINDOWS_PER_OBJECT = 6

Progress = Callable[[float, str], None]
"""Called with the fraction done, 0..1, and what is being done."""


@dataclass(frozen=True)
class Report:
    """What a training run leaves: the bundle's folder, the report's page, the figures on the test part."""

    bundle: Path
    page: Path
    test: Evaluation
    results: Results


def train(
    data: Path,
    out: Path,
    *,
    seed: int = 1,
    progress: Progress | None = None,
    grid: tuple[Settings, ...] = GRID,
) -> Report:
    """Train on a folder of labelled light curves; write `out/<bundle>` and `out/report`.

    data : folder with `labels.parquet` and `photometry.parquet`;  seed : all chance in the run comes from it.
    Two runs with one seed give the same files, but for the manifest's date. BrokerError for unfit data.
    """
    tell = progress or (lambda fraction, text: None)
    folder = check_ready(out)
    split_rng, window_rng, test_rng, forest_rng = np.random.default_rng(seed).spawn(4)
    tell(0.0, "reading light curves")
    detections = load_detections(data)
    leaves, objects = trainable(detections)
    split = split_groups(detections.group[objects], detections.leaf[objects], split_rng)
    tell(0.1, "cutting windows")
    parts = cut_parts(detections, objects, split, window_rng)
    known = join(parts["training"], parts["validation"])

    def step(done: int) -> None:
        tell(0.3 + 0.3 * done / len(grid), f"candidate {done} of {len(grid)}")

    fitted = fit(parts["training"], parts["validation"], leaves, grid, seed, step)
    tell(0.6, "asking for the source")
    controls = run_controls(known, fitted.settings, seed)
    tell(0.8, "growing the isolation forest")
    stream = stream_windows(detections, split, forest_rng)
    forest, strangeness = grow_forest(stream, seed)
    tell(0.9, "evaluating on the test part")
    results = Results(
        name=f"{NAME}-v{VERSION}",
        leaves=leaves,
        parts=parts,
        untaught=untaught_answers(detections, fitted, window_rng),
        fitted=fitted,
        test=evaluate(fitted.probabilities(parts["test"]), parts["test"], leaves, test_rng),
        controls=controls,
        source_alone=source_alone(known, leaves),
        anomaly_objects=len(np.unique(stream.group)),
        anomaly_quantiles=tuple(np.quantile(strangeness, [0.05, 0.5, 0.95, 0.99]).tolist()),
    )
    write_bundle(folder, results, forest, provenance(data, seed, results))
    page = write_report(out / "report", results)
    tell(1.0, "done")
    return Report(folder, page, results.test, results)


def check_ready(out: Path) -> Path:
    """Folder for the bundle; BrokerError if it has files already, or if the report could not be drawn."""
    if find_spec("matplotlib") is None:
        raise BrokerError("training draws its report: pip install 'transient-broker[train]'")
    folder = out / f"{NAME}-v{VERSION}"
    if folder.exists() and any(folder.iterdir()):
        raise BrokerError(f"{folder} is not empty; a bundle is never written over: give another folder")
    return folder


def cut_parts(
    detections: Detections, objects: I64, split: Split, rng: np.random.Generator
) -> dict[str, Windows]:
    """The windows of each part's objects."""
    group = detections.group[objects]
    return {
        part: windows(detections, objects[split.mask(part, group)], WINDOWS_PER_OBJECT, rng) for part in PARTS
    }


def grow_forest(stream: Windows, seed: int) -> tuple[Forest, F64]:
    """The isolation forest, and its score of each window that it was grown on."""
    columns = stream.features[:, feature_indices(ANOMALY_INPUTS)]
    forest, _ = grow(columns, seed)
    return forest, forest.anomaly(columns)


def trainable(detections: Detections) -> tuple[tuple[str, ...], I64]:
    """The leaves with at least MIN_GROUPS objects, and the indices of their objects."""
    counts = {leaf: len(np.unique(detections.group[detections.leaf == leaf])) for leaf in LEAVES}
    leaves = tuple(leaf for leaf, count in counts.items() if count >= MIN_GROUPS)
    if len(leaves) < 2:
        raise BrokerError(
            f"only {len(leaves)} classes have {MIN_GROUPS} objects or more; is it the right folder? "
            f"It has {counts}"
        )
    return leaves, np.flatnonzero(np.isin(detections.leaf, leaves))


def untaught_answers(
    detections: Detections, fitted: Fitted, rng: np.random.Generator
) -> dict[str, tuple[int, F64]]:
    """Label to number of objects and mean probabilities (c,), for the labels that no class was made of."""
    known = [label for label, leaf in LABELS.items() if leaf in fitted.leaves]
    others = np.flatnonzero((detections.label != "") & ~np.isin(detections.label, known))
    seen = windows(detections, others, WINDOWS_PER_OBJECT, rng)
    answers = {}
    for label in np.unique(seen.label):
        own = seen.take(seen.label == label)
        weight = equal_weights(own.label, own.group)
        mean = np.average(fitted.probabilities(own), axis=0, weights=weight)
        answers[str(label)] = (len(np.unique(own.group)), mean)
    return answers


def stream_windows(detections: Detections, split: Split, rng: np.random.Generator) -> Windows:
    """Windows of every object of the stream's source, labelled or not, but for the test part's objects."""
    stream = (detections.source == STREAM_SOURCE) & ~split.mask("test", detections.group)
    if not stream.any():
        raise BrokerError(
            f"no light curve of source {STREAM_SOURCE!r}: the anomaly score needs the real stream"
        )
    return windows(detections, np.flatnonzero(stream), WINDOWS_PER_OBJECT, rng)


def join(first: Windows, second: Windows) -> Windows:
    """Windows of two parts one after the other."""
    names = Windows.__dataclass_fields__
    return Windows(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


def write_bundle(folder: Path, results: Results, forest: Forest, training: dict[str, object]) -> None:
    """Write the classifier, its calibration, the forest and the card, then seal the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    fitted = results.fitted
    save_forest(folder / FOREST_FILE, forest)
    fitted.booster.save_model(str(folder / MODEL_FILE))
    (folder / CALIBRATION_FILE).write_text(json.dumps({"temperature": fitted.temperature}) + "\n")
    (folder / "card.md").write_text(card(results))
    manifest = Manifest(
        id=NAME,
        version=VERSION,
        created=datetime.now(UTC).strftime("%Y-%m-%d"),
        survey="ztf",
        feature_set_hash=feature_set_hash(),
        feature_names=tuple(feature.name for feature in FEATURES),
        classes=pooled(results.leaves),
        classifier_inputs=CLASSIFIER_INPUTS,
        anomaly_inputs=ANOMALY_INPUTS,
        training=training,
    )
    write_manifest(folder, manifest)


def provenance(data: Path, seed: int, results: Results) -> dict[str, object]:
    """What one needs to make the bundle again, and what it is worth in figures."""
    test = results.test
    return {
        "seed": seed,
        "settings": asdict(results.fitted.settings),
        "temperature": results.fitted.temperature,
        "data": {name: _sha256(data / name) for name in ("labels.parquet", "photometry.parquet")},
        "libraries": {"lightgbm": lightgbm.__version__, "scikit-learn": sklearn.__version__},
        "objects": {part: len(np.unique(chosen.group)) for part, chosen in results.parts.items()},
        "test": {
            "balanced_accuracy": asdict(test.balanced_accuracy),
            "log_loss": asdict(test.log_loss),
            "brier": asdict(test.brier),
            "ece": asdict(test.ece),
            "recall": {leaf: asdict(own) for leaf, own in zip(test.leaves, test.recall, strict=True)},
        },
        "source_alone_balanced_accuracy": results.source_alone,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
