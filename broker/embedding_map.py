"""Embeddings on paper: two dimensions of eight, and a picture of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_NEIGHBOURS = 15
_DPI = 110
_COLOURS = 20


@dataclass(frozen=True)
class MapPoints:
    """Objects on a map.  place : (n, 2);  label : (n,), '' if none;  method : how they came there."""

    place: F64
    label: npt.NDArray[np.str_]
    method: str


def flatten(points: F64, label: npt.NDArray[np.str_], seed: int = 1) -> MapPoints:
    """The objects in two dimensions: by UMAP where umap-learn is installed, else their first two components.

    points : (n, d) embeddings, the components in their order. UMAP (McInnes, Healy & Melville 2018,
    arXiv:1802.03426) keeps neighbours together; how far groups are apart on it means little.
    """
    if find_spec("umap") is None or len(points) <= _NEIGHBOURS:
        return MapPoints(np.asarray(points[:, :2]), label, "The first two principal components")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a seed means one thread, and of its own libraries
        from umap import UMAP  # noqa: PLC0415

        place = UMAP(n_neighbors=_NEIGHBOURS, random_state=seed, n_jobs=1).fit_transform(points)
    return MapPoints(np.asarray(place, dtype=np.float64), label, "UMAP")


def draw_map(path: Path, points: MapPoints, title: str) -> None:
    """The map as an image, a colour for each label, grey where there is none; needs matplotlib."""
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    none = points.label == ""
    x, y = points.place.T
    axes.scatter(x[none], y[none], s=6, color="lightgrey", label=f"none ({none.sum()})")
    names, counts = np.unique(points.label[~none], return_counts=True)
    colours = colormaps["tab20"]
    for number, place in enumerate(np.argsort(-counts, kind="stable")):
        own = points.label == names[place]
        colour = colours(number % _COLOURS)
        axes.scatter(x[own], y[own], s=18, color=colour, label=f"{names[place]} ({counts[place]})")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{points.method}, {title}")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    # No name of the program in the file: the same points give the same bytes.
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
