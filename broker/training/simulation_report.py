"""The report on the simulation: its mix, how real its supernovae look, and whether it teaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from broker.simulate.like import LEAST_DAYS, read_like
from broker.simulate.populations import expected_mix
from broker.training.card import bullets, flow
from broker.training.realism import BAR, FAINTEST_PEAK, Realism, realism
from broker.training.sample import F64
from broker.training.tasks import rare, transient
from broker.training.teachers import TEACHERS, Compared, families, rare_classes, supernovae

PAGE, FIGURE = "simulation.md", "simulation.png"
LISTS = "ztf_label_lists.parquet"
SURVEYED = ("haffet_bts_meta_2022", "hse_bts_2021")
"""Lists of the Bright Transient Survey, which gave a spectrum to nearly all that peak brighter than 18.5."""
MIX_FAINTEST = 18.5
SHOWN_GUILTY = 12
OBSERVED_AS = {
    "SNIa": ("SN Ia",),
    "SNIIn": ("SN IIn", "SN Ibn"),
    "SNII": ("SN II",),
    "SNIbc": ("SN Ib", "SN Ic"),
    "SLSN": ("SLSN-I",),
    "TDE": ("TDE",),
}
"""Beginnings of the published types of each class, the first that fits counts; SLSN-II are not simulated."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Findings:
    """All that the report tells.

    mix     : (list, objects, share of each class), the simulated one first
    compared : what simulation, real objects and both teach;  histories, found : of the real survey
    """

    mix: list[tuple[str, int, dict[str, float]]]
    realism: Realism
    compared: list[Compared]
    histories: int
    found: float


def simulation_report(
    data: Path, folder: Path, seed: int, progress: Progress = lambda fraction, text: None
) -> str:
    """Markdown about the simulation, written to `folder` with its figure; returns the text.

    data : folder of labelled light curves. Raises BrokerError if it lacks histories to observe like.
    """
    findings = find(data, seed, progress)
    text = "\n\n".join(_paragraphs(findings)) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    draw_guilty(folder / FIGURE, findings.realism)
    (folder / PAGE).write_text(text)
    return text


def find(data: Path, seed: int, progress: Progress = lambda fraction, text: None) -> Findings:
    """Simulate, compare and teach."""
    progress(0.0, "simulation: reading real histories")
    like = read_like(data)
    mix = [("simulated", 0, expected_mix(MIX_FAINTEST, seed))]
    if (data / LISTS).exists():
        mix += observed_mix(data / LISTS)
    progress(0.1, "simulation: simulated against real SNe Ia")
    against = realism(data, transient.INPUTS, seed)
    progress(0.2, "simulation: what it teaches of supernovae")
    compared = supernovae(data, like, seed)
    progress(0.8, "simulation: what it teaches of families and rare classes")
    compared += families(data, like, seed) + rare_classes(data, seed)
    return Findings(mix, against, compared, len(like.began), like.found)


def observed_mix(path: Path) -> list[tuple[str, int, dict[str, float]]]:
    """(list, objects, share of each class) of each list of SURVEYED, of peaks brighter than MIX_FAINTEST."""
    rows = pq.read_table(path, columns=["object", "label", "list", "peakmag"]).to_pylist()
    found = []
    for name in SURVEYED:
        labels = {
            row["object"]: observed_class(row["label"] or "")
            for row in rows
            if row["list"] == name and row["peakmag"] is not None and row["peakmag"] < MIX_FAINTEST
        }
        counts = Counter(label for label in labels.values() if label)
        if total := sum(counts.values()):
            found.append((name, total, {label: counts[label] / total for label in OBSERVED_AS}))
    return found


def observed_class(published: str) -> str:
    """The class of a published type, '' if it is none of the simulated ones or doubtful.

    >>> [observed_class(name) for name in ("SN Ic-BL", "SN IIn", "SN IIb", "SLSN-II", "SN Ia?")]
    ['SNIbc', 'SNIIn', 'SNII', '', '']
    """
    if published.endswith("?") or published.startswith("SLSN-II"):
        return ""
    return next((label for label, begins in OBSERVED_AS.items() if published.startswith(begins)), "")


def _paragraphs(found: Findings) -> Iterator[str]:
    yield "# The simulation as a teacher"
    yield flow(f"""Times, bands and depth are drawn from {found.histories} real alert histories of
        {LEAST_DAYS:.0f} days or more, errors from their detections: how an error grows with light, how it
        differs from place to place, and how far smooth light curves scatter in units of it.
        {1.0 - found.found:.0%} of the exposures with light enough made no alert; so it is here. Explosions
        come at published rates and luminosities in a volume cut by brightness. Everything below is judged
        on real objects; brackets hold 95 % of the values when objects are drawn again.""")
    yield f"## Mix of what peaks brighter than {MIX_FAINTEST} mag"
    header = ["", "objects", *OBSERVED_AS]
    yield _table(
        header,
        [
            [name, count or "", *(f"{mix[label]:.1%}" for label in OBSERVED_AS)]
            for name, count, mix in found.mix
        ],
    )
    yield "SNe IIb count as SNII, Ibn as SNIIn; nothing of this mix was fitted."
    yield from _realism(found.realism)
    yield "## What it teaches"
    yield flow(f"""Boosted trees of one fixed setting, taught in three ways; {TEACHERS[0]} never saw a real
        object. No published list holds a real flare or microlensing event: nothing is known of these.""")
    for one in found.compared:
        yield from _compared(one)
    yield bullets(f"{rare.NAME}: {caveat}" for caveat in rare.CAVEATS)


def _realism(found: Realism) -> Iterator[str]:
    count = len(np.unique(found.real.group))
    verdict = "within" if found.matched.value <= BAR else "above"
    yield "## Can simulated SNe Ia be told from real ones?"
    yield flow(f"""By boosted trees on the inputs of the supernova stage, 5-fold by object, in random 30-day
        windows of {count} real and as many simulated SNe Ia: AUC **{found.matched}**, {verdict} the bar of
        {BAR}. Both peak brighter than {FAINTEST_PEAK:.0f} mag, are covered and have, object for object, as
        many nights and detections in each band about the peak. Without that last cut: {found.unmatched}; how
        often a survey looks changes from year to year, and no input says it. The mean light curve, the spread
        of colours and the way objects are matched were settled with this figure and these SNe Ia in view: it
        flatters the simulation. What tells most:""")
    yield _table(
        ["feature", "share of the gain", "AUC alone"],
        [[f"`{g.name}`", f"{g.gain:.2f}", f"{g.alone:.2f}"] for g in found.guilty[:SHOWN_GUILTY]],
    )
    yield f"![Simulated and real]({FIGURE})"


def _compared(one: Compared) -> Iterator[str]:
    yield f"### {one.task}, judged on {one.judged_on}"
    yield _table(
        ["taught by", "balanced accuracy", *(f"AUC {name} ({n})" for name, n in one.objects.items())],
        [[name, one.balanced[name], *one.areas[name].values()] for name in TEACHERS],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def draw_guilty(path: Path, found: Realism) -> None:
    """The six features that tell most, simulated over real."""
    # Imported here: serving never has matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure as Page  # noqa: PLC0415

    page = Page(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(page)
    for axes, guilty in zip(page.subplots(2, 3).flat, found.guilty, strict=False):
        pair = [sample.columns([guilty.name])[:, 0] for sample in (found.real, found.simulated)]
        edges = _edges(np.concatenate(pair))
        for values, name in zip(pair, ("real", "simulated"), strict=True):
            axes.hist(values[np.isfinite(values)], edges, histtype="step", density=True, label=name)
        axes.set_xlabel(f"{guilty.name} (alone: {guilty.alone:.2f})")
    page.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    page.savefig(path, dpi=110, metadata={"Software": None})


def _edges(values: F64) -> F64:
    """Bins over the middle 98 % of the finite values."""
    low, high = np.nanquantile(values, [0.01, 0.99])
    return np.linspace(low, high if high > low else low + 1.0, 31)
