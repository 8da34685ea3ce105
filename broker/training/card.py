"""The model card: what the model knows, on what it was trained, when not to trust it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from broker.training.results import Results, StageResult


def card(results: Results) -> str:
    """The card as Markdown."""
    return "\n\n".join(_paragraphs(results)) + "\n"


def _paragraphs(results: Results) -> Iterator[str]:
    yield f"# {results.name}"
    yield flow("""Class probabilities in two stages, family first and then leaf, from light curves and what
        the packet says of its surroundings; and an anomaly score. Figures: on test objects, every class
        counting the same, brackets hold 95 % of the values when objects are drawn again.""")
    for stage in results.stages:
        yield from _stage(stage)
    yield "## Population"
    yield flow("""The probabilities are for a population in which all classes of a stage are equally
        frequent, which no real stream is. `broker.scores.calibration.reweighted` gives them for another.
        Where no stage tells a family's leaves apart, or before it has enough detections, the family's
        probability is shared out evenly: then a leaf's probability says nothing beyond its family's.""")
    yield "## When not to trust it\n\n" + bullets(warnings(results))


def _stage(stage: StageResult) -> Iterator[str]:
    chosen, test = stage.chosen, stage.figures
    yield f"## Stage {stage.task.name}: {', '.join(chosen.classes)}"
    yield flow(f"""{chosen.candidate.kind.doc.capitalize()}, the best of {len(chosen.candidates)} kinds on
        validation. Learnt from {_sources(stage)}. Balanced accuracy {test.balanced_accuracy}; the class set
        holds the truth for {test.coverage} of the objects with {test.set_size:.1f} classes on average.""")
    if stage.task.least_detections > 1:
        yield f"Asked from {stage.task.least_detections} detections on."
    if stage.left_out:
        names = ", ".join(f"{name} ({count})" for name, count in stage.left_out.items())
        yield f"Labels without a class, too few or not meant: {names}."


def warnings(results: Results) -> Iterator[str]:
    """When not to trust the model, a sentence each."""
    for stage in results.stages:
        test = stage.figures
        weak = [name for name, own in zip(test.classes, test.recall, strict=True) if own.low < 0.5]
        if weak:
            yield f"{stage.task.name}: of {', '.join(weak)} fewer than half may be recognised."
        if stage.source_alone > 0.6:
            yield flow(f"""{stage.task.name}: class and source are entangled: the name of the source alone
                would reach a balanced accuracy of {stage.source_alone:.2f}.""")
        for caveat in stage.task.caveats:
            yield f"{stage.task.name}: {caveat}"
    if results.survey != "ztf":
        yield flow(f"""{results.survey}: unvalidated. There are too few labelled objects of this survey to
            test any class; all figures above are of the objects that taught it.""")
    yield flow("""The labelled objects are brighter and better covered than the stream's: somebody had chosen
        to look at them. Labels of AGN and variable stars are mostly positional matches, not spectra.""")
    yield flow(f"""The anomaly score knows {results.anomaly_objects} objects of {results.survey}; strange
        means unlike these.""")


def _sources(stage: StageResult) -> str:
    sample = stage.learnt
    counts = {
        str(name): len(np.unique(sample.group[sample.source == name])) for name in np.unique(sample.source)
    }
    return ", ".join(f"{count} objects of {name}" for name, count in counts.items())


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"* {line}" for line in lines)


def flow(text: str) -> str:
    """A paragraph without the line breaks of the source code."""
    return " ".join(text.split())
