"""The report of a training run as Markdown with figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from broker.training.card import Results, bullets, flow, sources, warnings
from broker.training.classifier import CLASSIFIER_INPUTS, Fitted
from broker.training.controls import Control
from broker.training.dataset import MIN_GROUPS, MIN_SNR, STREAM_SOURCE, WINDOW_DAYS
from broker.training.evaluate import Evaluation
from broker.training.split import PARTS


def write_report(folder: Path, results: Results) -> Path:
    """Write `report.md` and its figures; returns the page."""
    # Imported here: training works without matplotlib until something is drawn, and serving never has it.
    from broker.training.figures import draw_confusion, draw_detections, draw_reliability  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    draw_confusion(folder / "confusion.png", results.test)
    draw_reliability(folder / "reliability.png", results.test)
    draw_detections(folder / "detections.png", results.test)
    page = folder / "report.md"
    chapters = (_sample, _settings, _test, _untaught, _controls, _anomaly)
    text = [f"# {results.name}: training report", _INTRODUCTION]
    page.write_text("\n\n".join([*text, *(part for chapter in chapters for part in chapter(results))]) + "\n")
    return page


_INTRODUCTION = flow("""Every class weighs the same, and in it every object; brackets hold 90 % of the
    values when objects are drawn again with replacement. Objects are split, not alerts: none is in two parts.
    In this run the test part was evaluated once, after all choices.""")


def _sample(results: Results) -> Iterator[str]:
    def cell(leaf: str, part: str) -> str:
        windows = results.parts[part].take(results.parts[part].leaf == leaf)
        return f"{len(np.unique(windows.group))} ({len(windows)})"

    rows = [[leaf, *(cell(leaf, part) for part in PARTS)] for leaf in results.leaves]
    yield "## Sample"
    yield table(["class", *(f"{part}: objects (windows)" for part in PARTS)], rows)
    yield flow(f"""Sources: {sources(results)}. Each object is shown at random detections with the
        {WINDOW_DAYS:.0f} days before: g and r detections of {MIN_SNR:.0f} sigma or more, no limits, no
        forced points.""")
    yield "What the sample is biased towards, and when not to trust the model:\n\n" + bullets(
        warnings(results)
    )
    yield flow(f"""Inputs of the classifier: {", ".join(f"`{name}`" for name in CLASSIFIER_INPUTS)}. Counts,
        limits, forced points, brightness, depth, significance and sign are left out: they tell
        the source.""")


def _settings(results: Results) -> Iterator[str]:
    yield "## Choice of the settings, on validation"
    yield _candidate_table(results.fitted)
    yield flow(f"""Chosen by log-loss among {len(results.fitted.candidates)} candidates, each tried once.
        Temperature, from the same validation objects: {results.fitted.temperature:.2f} (over 1: the raw
        scores were too sure). The rarest classes have a handful of objects there: differences between
        neighbours in the table are noise.""")


def _test(results: Results) -> Iterator[str]:
    test, count = results.test, len(results.leaves)
    yield "## Test"
    columns = (test.leaves, test.objects, test.windows, test.precision, test.recall)
    rows = zip(*columns, strict=True)
    yield table(["class", "objects", "windows", "precision (equal classes)", "recall"], rows)
    yield flow(f"""Balanced accuracy {test.balanced_accuracy}, log-loss {test.log_loss}, Brier {test.brier},
        expected calibration error {test.ece}. A constant answer (the majority, say): balanced accuracy {
        1 / count:.2f}, log-loss {np.log(count):.2f}.""")
    yield "Row: true class. Column: most probable class. Each row sums to 1."
    confusion = zip(test.leaves, test.confusion, strict=True)
    yield table(["", *test.leaves], [[leaf, *(f"{x:.2f}" for x in row)] for leaf, row in confusion])
    yield "![Confusion matrix](confusion.png)\n\n![Reliability](reliability.png)"
    yield "By number of detections in the window, and for the test objects of the stream's own source:"
    yield _subset_table(test)
    yield "![Balanced accuracy by number of detections](detections.png)"


def _untaught(results: Results) -> Iterator[str]:
    yield "## Labels it was not taught"
    rows = [
        [label, objects, *(f"{x:.2f}" for x in mean)] for label, (objects, mean) in results.untaught.items()
    ]
    yield table(["label", "objects", *results.leaves], rows)
    yield flow(f"""Mean probabilities that the model gives to objects of labels with too few examples for a
        class (fewer than {MIN_GROUPS} objects). What it cannot name it takes for something that it can.""")


def _controls(results: Results) -> Iterator[str]:
    yield "## Does the source give the class away?"
    yield _control_table(results.controls)
    yield flow(f"""The same inputs and settings, asked for the source, on training and validation objects by
        5-fold cross-validation over objects. Within one class any value above a guess is a trace of the
        source, not of physics. The name of the source alone, best used, gives a balanced accuracy of
        {results.source_alone:.2f} on the classes. Only the row within {STREAM_SOURCE} is free of it.""")


def _anomaly(results: Results) -> Iterator[str]:
    yield "## Anomaly"
    scores = ", ".join(f"{value:.2f}" for value in results.anomaly_quantiles)
    yield flow(f"""Isolation forest on {results.anomaly_objects} objects of {STREAM_SOURCE}, labelled or
        not; its score there at 5, 50, 95 and 99 %: {scores}. There is no truth to test it against here.""")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _candidate_table(fitted: Fitted) -> str:
    rows = [
        [s.num_leaves, s.learning_rate, s.min_data_in_leaf, s.trees, f"{loss:.3f}", f"{accuracy:.3f}", mark]
        for s, loss, accuracy in fitted.candidates
        for mark in ["chosen" if s == fitted.settings else ""]
    ]
    return table(["leaves", "rate", "least rows", "trees", "log-loss", "balanced accuracy", ""], rows)


def _subset_table(test: Evaluation) -> str:
    rows = [
        [s.label, s.balanced_accuracy, s.classes, s.objects] for s in [*test.by_detections, test.in_stream]
    ]
    return table(["detections", "balanced accuracy", "classes present", "objects"], rows)


def _control_table(controls: Sequence[Control]) -> str:
    rows = [
        [
            c.question,
            ", ".join(map(" ".join, zip(c.answers, map(str, c.objects), strict=True))),
            c.balanced_accuracy,
            f"{c.chance:.2f}",
        ]
        for c in controls
    ]
    return table(["question", "objects", "balanced accuracy", "a guess"], rows)
