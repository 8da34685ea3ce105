"""The model card: what the model knows, on what it was trained, when not to trust it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from broker.training.classifier import Fitted
from broker.training.controls import Control
from broker.training.dataset import F64, LABELS, MIN_SNR, STREAM_SOURCE, WINDOW_DAYS, Windows
from broker.training.evaluate import Evaluation


@dataclass(frozen=True)
class Results:
    """All that the card and the report tell."""

    name: str
    leaves: tuple[str, ...]
    parts: dict[str, Windows]
    untaught: dict[str, tuple[int, F64]]
    """Labels that no class was made of: objects, and the mean probabilities (c,) that the model gives."""
    fitted: Fitted
    test: Evaluation
    controls: list[Control]
    source_alone: float
    anomaly_objects: int
    anomaly_quantiles: tuple[float, ...]
    """5 %, 50 %, 95 % and 99 % of the anomaly score over the windows it was grown on."""


def card(results: Results) -> str:
    """The card as Markdown."""
    return "\n\n".join(_paragraphs(results)) + "\n"


def warnings(results: Results) -> Iterator[str]:
    """When not to trust the model, a sentence each."""
    weak = [leaf for leaf, own in zip(results.leaves, results.test.recall, strict=True) if own.low < 0.5]
    if weak:
        yield f"{', '.join(weak)}: fewer than half may be recognised (see the test table); take as hints."
    yield "One detection: nearly all inputs are missing and the answer is little more than a prior."
    yield f"History beyond {WINDOW_DAYS:.0f} days: rates and scatter then cover more time than any example."
    yield "Any survey but ZTF, Rubin too: not trained, not tested."
    names = ", ".join(sorted(results.untaught)) or "any other class"
    yield f"Asteroids, artefacts and what else it was not taught ({names}): it deals them to what it knows."
    yield flow("""Faint or poorly covered objects: the SN Ia of the sample are bright with the peak observed
        (BTS quality cuts), the SLSN and TDE are published ones, which observers had chosen to follow.""")
    yield flow(f"""Class and source are entangled: almost all SN Ia, SLSN and TDE come from collections of
        their own, Other only from alert histories. The name of the source alone, best used,
        would reach a balanced accuracy of {results.source_alone:.2f}.""")
    yield "Labels of AGN and variable stars are mostly positional matches with a catalogue, not spectra."
    yield "Negative differences: most sources lost the sign, so all their detections count as positive."
    yield f"The anomaly score knows {results.anomaly_objects} ZTF objects; strange means unlike these."


def pooled(leaves: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Trained leaf to the published labels that count as it."""
    return {leaf: tuple(label for label, own in LABELS.items() if own == leaf) for leaf in leaves}


def sources(results: Results) -> str:
    """The sources with their numbers of objects, all parts together."""
    every = {
        (str(source), str(group))
        for windows in results.parts.values()
        for source, group in zip(windows.source, windows.group, strict=True)
    }
    names = sorted({source for source, _ in every})
    return ", ".join(f"{name} ({sum(source == name for source, _ in every)})" for name in names)


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines) or "- nothing"


def flow(text: str) -> str:
    """Text as one line, however it was broken."""
    return " ".join(text.split())


def _paragraphs(results: Results) -> Iterator[str]:
    test, count = results.test, len(results.leaves)
    yield f"# Model card: {results.name}"
    yield "A first model: it works from end to end and says what it is worth. It is not a good one yet."
    yield flow(f"""**Gives** probabilities of {", ".join(results.leaves)} from the shape, rates and colour
        of the g and r difference light curve, and an anomaly score (0 ordinary, 1 strange). All other
        `prob_` columns are null: it does not know these classes. Published labels counted as one leaf:
        {_pools(results)}.""")
    yield flow("""**Population.** The probabilities are calibrated for a sample in which all trained classes
        are equally frequent, which the stream is not. For other frequencies multiply each probability by
        its class's frequency and divide by the sum.""")
    yield flow(f"""**Trained on** ZTF light curves only, by objects: {sources(results)}. Each object is seen
        at random detections, with the {WINDOW_DAYS:.0f} days before; g and r detections of at least
        {MIN_SNR:.0f} sigma. Labels: spectra (BTS, TNS, manyTDE, Gomez et al. 2024), published lists, SIMBAD
        positions.""")
    yield flow(f"""**On test objects**: balanced accuracy {test.balanced_accuracy} over {count} classes
        (a guess: {1 / count:.2f}), log-loss {test.log_loss}, expected calibration error {test.ece};
        brackets hold 90 %. {_inside(results)}""")
    yield "**When not to trust it**\n\n" + bullets(warnings(results))


def _pools(results: Results) -> str:
    pools = {leaf: labels for leaf, labels in pooled(results.leaves).items() if labels != (leaf,)}
    return "; ".join(f"{leaf} = {', '.join(labels)}" for leaf, labels in pools.items()) or "none"


def _inside(results: Results) -> str:
    """What is left where the source cannot help."""
    return " ".join(
        f"Trained and tested inside {STREAM_SOURCE} alone, where the source cannot help: "
        f"{c.balanced_accuracy} over {len(c.answers)} classes (a guess: {c.chance:.2f})."
        for c in results.controls
        if c.question.startswith("Which class")
    )
