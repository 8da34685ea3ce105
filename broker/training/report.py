"""The report of a training run as Markdown with figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.training.card import bullets, flow, warnings
from broker.training.controls import Control
from broker.training.evaluate import Evaluation
from broker.training.questions import CELL_DEG, Untaught
from broker.training.results import Results, StageResult
from broker.training.selection import FOLDS
from broker.training.tasks import peak


def write_report(folder: Path, results: Results) -> Path:
    """Write `report.md` and its figures; returns the page."""
    parts = [part for stage in results.stages for part in stage_sections(stage)]
    parts += [*_counterpart(results), *_peaks(results)]
    return page_of(folder, results, results.stages, parts)


def page_of(folder: Path, results: Results, drawn: Sequence[StageResult], parts: Sequence[str]) -> Path:
    """Write a page of some parts about a bundle, and figures of some of its stages; returns the page."""
    # Imported here: serving never has matplotlib.
    from broker.training.figures import draw_confusion, draw_nights, draw_reliability  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    for stage in drawn:
        name = stage.task.name
        draw_confusion(folder / f"{name}-confusion.png", stage.figures)
        draw_reliability(folder / f"{name}-reliability.png", stage.figures)
        draw_nights(folder / f"{name}-nights.png", stage.figures)
    page = folder / "report.md"
    head = [f"# {results.name}: training report", _INTRODUCTION, "When not to trust it:"]
    head.append(bullets(warnings(results)))
    page.write_text("\n\n".join([*head, *parts, *_anomaly(results), *results.sections]) + "\n")
    return page


_MOST_IMPORTANT = 12

_INTRODUCTION = flow(f"""Training, validation and test share no object. A fifth of the objects of each class
    is the test part, looked at once. The rest is dealt to {FOLDS} folds, each in turn validating models that
    were fitted to the others: there hyper-parameters are chosen, then the kind of model, then the calibration
    and the sizes of the class sets. Kind and settings are not chosen on test: the best of many on any part is
    partly luck, and a figure that was used to choose no longer measures anything. Every class counts the
    same, and in it every object; brackets hold 95 % of the values when objects are drawn again.""")


def stage_sections(stage: StageResult) -> Iterator[str]:
    """All about one stage."""
    yield f"## Stage {stage.task.name}"
    yield from _sample(stage)
    yield from _choice(stage)
    yield from _test(stage)
    yield from _importances(stage)
    yield from _controls(stage)
    yield from _novelty(stage)


def _sample(stage: StageResult) -> Iterator[str]:
    yield "### Sample"
    header = ["class", "development: objects (rows)", "test: objects (rows)"]
    test, learnt = stage.figures, stage.learnt
    rows = []
    for place, name in enumerate(test.classes):
        own = learnt.take(learnt.label == name)
        rows.append(
            [
                name,
                f"{len(set(own.group.tolist()))} ({len(own)})",
                f"{test.objects[place]} ({test.rows[place]})",
            ]
        )
    yield table(header, rows)
    if stage.left_out:
        yield "Labels without a class: " + ", ".join(f"{k} ({n})" for k, n in stage.left_out.items()) + "."
    yield "Inputs: " + ", ".join(f"`{name}`" for name in stage.chosen.inputs) + "."


def _choice(stage: StageResult) -> Iterator[str]:
    yield "### Choice on validation"
    best = stage.chosen.candidate
    rows = [
        [
            c.kind.name,
            ", ".join(f"{name} {value}" for name, value in c.settings.items()),
            f"{c.log_loss:.3f}",
            f"{c.balanced_accuracy:.3f}",
            "promoted" if c is best else "",
        ]
        for c in stage.chosen.candidates
    ]
    yield table(["kind", "its best settings", "log-loss", "balanced accuracy", ""], rows)
    yield flow(f"""{stage.chosen.tried} candidates, each judged on the same folds. Temperature
        {stage.chosen.calibration.temperature:.2f} (over 1: the raw answers were too sure).""")


def _test(stage: StageResult) -> Iterator[str]:
    test, name = stage.figures, stage.task.name
    yield "### Test"
    rows = [["**the stage**", test.balanced_accuracy, f"{test.log_loss}"]]
    rows += [[b.name, b.balanced_accuracy, f"{b.log_loss:.2f}"] for b in stage.baselines]
    yield table(["model", "balanced accuracy", "log-loss"], rows)
    columns = (test.classes, test.objects, test.precision, test.recall)
    yield table(["class", "objects", "precision", "recall"], zip(*columns, strict=True))
    yield _calibration(test)
    yield f"![Confusion matrix]({name}-confusion.png)\n\n![Reliability]({name}-reliability.png)"
    yield table(
        ["rows", "balanced accuracy", "classes present", "objects"],
        [[s.label, s.balanced_accuracy, s.classes, s.objects] for s in [*test.by_nights, *test.by_source]],
    )
    yield f"![Balanced accuracy by nights]({name}-nights.png)"


def _calibration(test: Evaluation) -> str:
    by_class = ", ".join(f"{name} {value:.2f}" for name, value in test.coverage_of.items())
    return flow(f"""Calibration error {test.balanced.ece:.3f} where all classes are equally frequent (chance
        alone: up to {test.balanced.chance:.3f}), {test.natural.ece:.3f} re-weighted to the sample's own mix
        (up to {test.natural.chance:.3f}), both over objects in their last state. Brier score {test.brier}.
        The class set holds the truth for {test.coverage} of the objects, with {test.set_size:.2f} classes
        on average ({by_class or "no class has 50 test objects"}); this holds for objects like the
        sample's.""")


def _importances(stage: StageResult) -> Iterator[str]:
    yield "### What it looks at"
    rows = [[f"`{one.name}`", f"{one.growth:.3f}"] for one in stage.importances[:_MOST_IMPORTANT]]
    yield table(["input", "log-loss on the test part grows by"], rows)
    yield flow("""When this input alone is dealt anew among the test objects. Of several that say the same,
        each may look unimportant. What moved a single alert's answer: `broker explain`.""")


def _controls(stage: StageResult) -> Iterator[str]:
    yield "### Other sources"
    if stage.across:
        yield _control_table(stage.across)
    yield flow(f"""All objects, with the chosen kind, settings and inputs: 5-fold within a source; `a -> b` is
        learnt from a alone and judged on b. The name of the source alone, best used, gives a balanced
        accuracy of {stage.source_alone:.2f} on the classes.""")
    if stage.held_out:
        yield "### In another place, at another time"
        yield _control_table(stage.held_out)
        yield flow(f"""By folds of parts of the sky, cells {CELL_DEG:g} degrees wide, instead of objects; and
            the half of the objects that was seen first teaches, the other is judged.""")
    if stage.extras:
        yield "### Further questions"
        yield _control_table(stage.extras)
    if stage.untaught:
        yield "### What was not taught"
        yield taken_table(stage.untaught)
    yield "### Does the source give the class away?"
    yield _control_table(stage.controls) if stage.controls else "There is one source only."


def _novelty(stage: StageResult) -> Iterator[str]:
    if stage.left_out_novelty:
        yield "### Would a class that it never saw look new?"
        rows = [
            [one.name, one.objects, f"{one.auc:.2f} ({one.low:.2f}-{one.high:.2f})"]
            for one in stage.left_out_novelty
        ]
        yield table(["left out", "objects", "AUC of novelty against new objects of the others"], rows)


def _counterpart(results: Results) -> Iterator[str]:
    found = results.counterpart
    if found is None:
        return
    yield "## Counterpart: star, galaxy or quasar by griz colours"
    yield "Test objects: " + ", ".join(f"{name} {count}" for name, count in found.objects.items()) + "."
    yield table(["model", "balanced accuracy"], found.balanced.items())
    header = ["r [mag]", "objects", "completeness", "contamination"]

    def each(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.2f}" for name, value in values.items())

    yield table(
        header,
        [
            [
                f"{one.brightest:g}-{one.faintest:g}",
                ", ".join(f"{name} {count}" for name, count in one.objects.items()),
                each(one.completeness),
                each(one.contamination),
            ]
            for one in found.table
        ],
    )
    yield "Photometric redshift; dz = (z_phot - z) / (1 + z):"
    yield table(
        ["by", "of", "objects", "scatter of dz", "|dz| > 0.15", "in the 80 % interval"],
        [
            [way, name, one.objects, one.scatter, one.outliers, one.coverage]
            for way, rows in found.redshift.items()
            for name, one in rows.items()
        ],
    )


def _peaks(results: Results) -> Iterator[str]:
    if results.peaks:
        yield "## Peak of a type Ia supernova"
        yield peak.markdown(results.peaks)


def _anomaly(results: Results) -> Iterator[str]:
    yield "## Anomaly"
    scores = ", ".join(f"{value:.2f}" for value in results.anomaly_quantiles)
    yield flow(f"""Isolation forest on {results.anomaly_objects} objects of the survey's alerts, labelled or
        not; its score there at 5, 50, 95 and 99 %: {scores}. There is no truth to test it against here.""")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def taken_table(rows: Sequence[Untaught]) -> str:
    """What objects of some labels are taken for."""
    header = ["label", "objects", "taken for", "median novelty"]
    return table(
        header, [[row.label, row.objects, _counts(row.called), f"{row.novelty:.2f}"] for row in rows]
    )


def _control_table(controls: Sequence[Control]) -> str:
    """A row a question, a column for each model that answered any."""
    others = list(dict.fromkeys(name for one in controls for name in one.others))
    rows = [
        [
            one.question,
            _counts(one.answers),
            one.balanced_accuracy,
            f"{one.chance:.2f}",
            *(one.others.get(name, "") for name in others),
        ]
        for one in controls
    ]
    return table(["question", "objects", "balanced accuracy", "a guess", *others], rows)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
