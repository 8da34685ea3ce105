"""The report of the network, and the card that goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from broker.training.card import bullets, flow
from broker.training.figures import draw_curves, draw_reliability_of
from broker.training.report import table
from broker.training.stamps.judge import Judgement, Row
from broker.training.stamps.sample import WEAK_SHARE

CURVES, RELIABILITY = "curves.png", "reliability.png"


def write_report(folder: Path, judgement: Judgement) -> Path:
    """Write `report.md` and its figures, curves only: the images are the survey's; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_curves(folder / CURVES, judgement.curves)
    draw_reliability_of(folder / RELIABILITY, judgement.calibration)
    page = folder / "report.md"
    page.write_text("\n\n".join(_report(judgement)) + "\n")
    return page


def card(judgement: Judgement) -> str:
    """The card as Markdown."""
    return "\n\n".join(_card(judgement)) + "\n"


def _card(judgement: Judgement) -> Iterator[str]:
    yield f"# {judgement.name}"
    yield flow(f"""Real or bogus, by the science, template and difference images of a ZTF alert (27 x 27
        pixels around it): a convolutional network of {len(judgement.chosen.widths)} convolutions with
        {", ".join(map(str, judgement.chosen.widths))} channels. Off by default (`run.stamps`); the column is
        `stamp_score`, and no class score looks at it.""")
    yield flow(f"""Learnt from point sources and artefacts put into the real cutouts of
        {judgement.packets["train"][0]} ZTF alerts, and by {WEAK_SHARE:.0%} of the weight from these alerts
        as the survey's own score judges them. On {judgement.packets["test"][0]} alerts of other fields: area
        under the curve {judgement.injected[0].auc} on injections, {judgement.by_rb[0].auc} between
        {judgement.by_rb[0].bogus} alerts with rb under 0.3 and {judgement.by_rb[0].real} with drb over
        0.9.""")
    yield "## When not to trust it\n\n" + bullets(_warnings(judgement))
    yield "## Population"
    yield flow("""The score is the probability of being real where real and bogus are equally frequent, and
        bogus are of the injected kinds in the injected shares. In a survey's stream neither holds: take it as
        an order, not as a probability.""")


def _warnings(judgement: Judgement) -> Iterator[str]:
    network, *others = judgement.injected
    better = [row.score for row in others if row.auc.value >= network.auc.value]
    if better:
        yield f"On injections it is no better than: {', '.join(better)}."
    yield flow("""Trained on ZTF. Alerts of other surveys get none, nor do alerts at a detector's edge, whose
        cutouts are not 63 x 63 pixels, nor such as have more than half of an image masked.""")
    yield flow("""Injections are what we think goes wrong. The alerts as they are are a test sample of other
        brokers: bright, few bogus, and those called so by the survey's own score, which is wrong at
        times.""")
    yield flow("""It does not know trails: a fast asteroid may be called bogus. It was not shown
        satellite trails, ghosts or the wings of saturated stars as bogus either.""")
    yield "A detection that is off the centre of its cutout by 4 pixels or more is taught as bogus."


def _report(judgement: Judgement) -> Iterator[str]:
    yield f"# {judgement.name}: training report"
    yield flow("""Made by `broker train --stamps`. Alerts whose images may overlap (90 arcsec) are one field,
        and all images made of a field are in one part; the shapes of point sources are taken from the part's
        own stars. All fields with an alert of rb under 0.3 are in the test part. Validation chooses the
        network's size and sets the calibration; the test part is looked at once. Brackets hold 95 % of the
        values when fields are drawn again.""")
    yield "When not to trust it:"
    yield bullets(_warnings(judgement))
    yield from _samples(judgement)
    yield from _choice(judgement)
    yield from _test(judgement)


def _samples(judgement: Judgement) -> Iterator[str]:
    yield "## Sample"
    rows = [[name, *judgement.packets[name], *judgement.images[name]] for name in judgement.packets]
    yield table(["part", "alerts", "fields", "real images", "bogus images"], rows)
    yield flow(f"""Real: a new source, a star that is brighter or fainter than in the template (then the
        difference is turned over, as ZTF does), of significance 5 to 200. Bogus: a dipole (the star, or the
        alert's own template, off by a fraction of a pixel to two), a star sharper or broader than in the
        template, hot pixels and cosmic rays, bad or masked columns, the sky alone, a hole in it, an alert's
        own images cut off its centre. Point sources have the shape of bright isolated stars of the science
        images. Alerts as they are have {WEAK_SHARE:.0%} of the weight: real where drb is over 0.9, bogus
        where drb or rb is under 0.3.""")


def _choice(judgement: Judgement) -> Iterator[str]:
    yield "## Choice on validation"
    rows = [
        [", ".join(map(str, one.widths)), f"{one.log_loss:.4f}", f"{one.auc:.4f}",
         "taken" if one == judgement.chosen else ""]
        for one in judgement.candidates
    ]  # fmt: skip
    yield table(["channels", "log-loss", "area under the curve", ""], rows)
    yield f"Temperature {judgement.temperature:.2f} (over 1: the raw answers were too sure)."


def _test(judgement: Judgement) -> Iterator[str]:
    yield "## Test: injections"
    yield _areas([*judgement.injected])
    yield f"![Kept real against passed bogus]({CURVES})"
    rows = [
        [kind.name, "real" if kind.real else "bogus", kind.images, kind.called_real]
        for kind in judgement.kinds
    ]
    yield table(["kind", "label", "images", "share called real"], rows)
    yield flow(f"""Over all test images, alerts as they are with {WEAK_SHARE:.0%} of the weight: balanced
        accuracy {judgement.balanced_accuracy}, log-loss {judgement.log_loss}, Brier score {judgement.brier},
        calibration error {judgement.calibration.ece:.3f} (chance alone: up to
        {judgement.calibration.chance:.3f}).""")
    yield f"![Reliability]({RELIABILITY})"
    yield "## Test: alerts as they are"
    yield flow("""The labels are the survey's opinion, so its own scores cannot fail where they define the
        label: that is no measure of them. Real: drb over 0.9. Bogus: rb under 0.3.""")
    yield _areas(judgement.by_rb)
    yield "Bogus: drb or rb under 0.3."
    yield _areas(judgement.by_either)
    correlation, count = judgement.drb_rank
    yield f"Rank correlation of the score with drb over {count} test alerts: {correlation:.2f}."


def _areas(rows: list[Row]) -> str:
    found = [[row.score, _three(row), row.real, row.bogus, row.fields] for row in rows]
    return table(
        ["score", "area under the curve", "real", "bogus", "fields"],
        [*found, ["majority", "0.500", "", "", ""]],
    )


def _three(row: Row) -> str:
    """Three digits: areas near 1 differ in the third."""
    return f"{row.auc.value:.3f} ({row.auc.low:.3f}-{row.auc.high:.3f})"
