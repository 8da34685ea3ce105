"""The figures of the report. The only file that needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from broker.training.evaluate import Calibrated, Evaluation

F64 = npt.NDArray[np.float64]

DPI = 110


def draw_confusion(path: Path, test: Evaluation) -> None:
    """Confusion matrix as an image."""
    figure, axes = _figure()
    axes.imshow(test.confusion, vmin=0, vmax=1, cmap="Blues")
    ticks = range(len(test.classes))
    axes.set_xticks(ticks, test.classes, rotation=45)
    axes.set_yticks(ticks, [f"{leaf} ({n})" for leaf, n in zip(test.classes, test.objects, strict=True)])
    for i in ticks:
        for j in ticks:
            ink = "white" if test.confusion[i, j] > 0.5 else "black"
            axes.text(j, i, f"{test.confusion[i, j]:.2f}", ha="center", va="center", color=ink)
    axes.set_xlabel("most probable class")
    axes.set_ylabel("true class (test objects)")
    _save(figure, path)


def draw_reliability(path: Path, test: Evaluation) -> None:
    """Accuracy against confidence: on the diagonal where the model knows how sure it may be."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.plot(test.balanced.reliability[:, 0], test.balanced.reliability[:, 1], marker="o")
    axes.set_xlabel("confidence in the most probable class")
    axes.set_ylabel("fraction right (equal classes)")
    axes.set_title(f"calibration error {test.balanced.ece:.3f}")
    _save(figure, path)


def draw_nights(path: Path, test: Evaluation) -> None:
    """Balanced accuracy as nights come in."""
    figure, axes = _figure()
    labels = [subset.label for subset in test.by_nights]
    values = np.array([[f.value, f.low, f.high] for f in (s.balanced_accuracy for s in test.by_nights)])
    spread = np.maximum(np.abs(values[:, 1:] - values[:, :1]), 0.0).T
    axes.errorbar(range(len(labels)), values[:, 0], yerr=spread, marker="o")
    axes.axhline(1 / len(test.classes), color="grey", linestyle=":")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("nights with a detection")
    axes.set_ylabel("balanced accuracy (dotted: a guess)")
    axes.set_ylim(0, 1)
    _save(figure, path)


def draw_reliability_of(path: Path, calibration: Calibrated) -> None:
    """As `draw_reliability`, of two classes."""
    figure, axes = _figure()
    axes.plot([0.5, 1], [0.5, 1], color="grey", linestyle=":")
    axes.plot(calibration.reliability[:, 0], calibration.reliability[:, 1], marker="o")
    axes.set_xlabel("confidence")
    axes.set_ylabel("fraction right")
    axes.set_title(f"calibration error {calibration.ece:.3f}")
    _save(figure, path)


def draw_curves(path: Path, curves: Mapping[str, tuple[F64, F64]]) -> None:
    """Share of the real that is kept against share of the bogus that passes, on a logarithmic scale."""
    figure, axes = _figure()
    for name, (false, true) in curves.items():
        axes.plot(np.maximum(false, 1e-4), true, label=name.replace("*", ""))
    axes.set_xscale("log")
    axes.set_xlim(1e-3, 1)
    axes.set_xlabel("share of the bogus that passes")
    axes.set_ylabel("share of the real that is kept")
    axes.legend(loc="lower right")
    _save(figure, path)


def _figure() -> tuple[Any, Any]:
    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def draw_drift(path: Path, rows: Sequence[Mapping[str, Any]], high: float) -> None:
    """Index of each column against the nights before and against the training sample; a line at `high`."""
    figure, axes = _figure()
    places = np.arange(len(rows))
    for shift, key, name in ((-0.2, "psi", "nights before"), (0.2, "psi_training", "training sample")):
        axes.barh(places + shift, [row[key] or 0.0 for row in rows], 0.4, label=name)
    axes.axvline(high, color="grey", linestyle=":")
    axes.set_yticks(places, [row["column"] for row in rows], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("population stability index")
    axes.legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    # No name of the program in the file: two runs with one seed give the same bytes.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
