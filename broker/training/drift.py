"""The training sample's histograms for a bundle, and the report on how far a stream is from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker.drift.histogram import REFERENCE_FILE, Histograms, added, counted, reference_bytes
from broker.drift.look import HIGH_PSI, Look, rows
from broker.training.figures import draw_drift

F64 = npt.NDArray[np.float64]
_SHOWN = 25
"""Columns of the figure."""


def write_reference(folder: Path, *samples: tuple[Sequence[str], F64]) -> Path:
    """Write what a bundle has learnt from, for `broker drift`; to be called before the folder is sealed.

    samples : (names, (n, k) values, NaN where unknown) of each stage's inputs, a row an alert or the state of
              an object; n may differ. Of a column in several samples all values count.
    """
    whole: Histograms = {}
    for names, values in samples:
        whole = added(whole, counted(names, values))
    path = folder / REFERENCE_FILE
    path.write_bytes(reference_bytes(whole))
    return path


def write_drift_report(out: Path, looks: Sequence[Look]) -> Path:
    """A page and a figure for each survey; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / "drift.md"
    parts = ["# Drift of the stream\n", _LEGEND]
    for one in looks:
        figure = out / f"drift-{one.survey}.png"
        draw_drift(figure, rows(one)[:_SHOWN], HIGH_PSI)
        parts += [_section(one), f"![The most drifted columns of {one.survey}]({figure.name})\n", _table(one)]
    page.write_text("\n".join(parts))
    return page


_LEGEND = (
    f"PSI: population stability index, 0 alike; above {HIGH_PSI:g} drifted. Nulls: share of unknown values.\n"
)


def _section(one: Look) -> str:
    return (
        f"## {one.survey}, night {one.night} (MJD)\n\n{one.alerts:,} alerts; {one.alerts_before:,} in the "
        f"nights before. Model: {one.model}{'' if one.training else ', which names no training sample'}.\n"
    )


def _table(one: Look) -> str:
    heads = (
        "column", "PSI against the nights before", "against training", "nights before against training",
        "nulls", "before", "in training", "what to do",
    )  # fmt: skip
    keys = (
        "column", "psi", "psi_training", "psi_training_week", "nulls", "nulls_before", "nulls_training",
        "advice",
    )  # fmt: skip
    lines = [" | ".join(_cell(row[key]) for key in keys) for row in rows(one)]
    top = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*top, *(f"| {line} |" for line in lines), ""])


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
