"""When an SN Ia peaks and how bright, with 80 % intervals: boosted trees on shape and colour.

The answer is that of a type Ia supernova: of anything else it means nothing, so read it beside `prob_SNIa`.
Learnt on bright supernovae whose peak was covered; no brightness is looked at, the magnitude is told relative
to the brightest detection so far.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.bundle import Manifest, column_indices
from broker.scores.models import Model, load_model
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FILE = "peak.json"
TARGETS = ("days", "mag")
"""Days from now to the peak; magnitude of the peak minus that of the brightest detection so far."""
QUANTILES = (0.1, 0.5, 0.9)
LEAST_DETECTIONS = 3
OLDEST_DAYS = 100.0
"""Longer after the first detection, or with fewer detections, there is no answer."""
NEEDED = ("n_detections", "age_days", "peak_mag_g", "peak_mag_r")
"""Columns that are looked at besides the models' inputs."""

PEAK_SPECS: tuple[ColumnSpec, ...] = (
    ColumnSpec("peak_in_days", "day", "if it is an SN Ia: time from now to its peak, < 0 if it is past"),
    ColumnSpec("peak_in_days_low", "day", "80 % interval of that time: lower end"),
    ColumnSpec("peak_in_days_high", "day", "80 % interval of that time: upper end"),
    ColumnSpec("peak_mag_expected", "AB mag", "if it is an SN Ia: its peak in the brighter of g and r"),
    ColumnSpec("peak_mag_expected_low", "AB mag", "80 % interval of that magnitude: bright end"),
    ColumnSpec("peak_mag_expected_high", "AB mag", "80 % interval of that magnitude: faint end"),
)


@dataclass(frozen=True)
class Interval:
    """The quantiles of one target, and by how much the outer two are widened to hold their share.

    models : of the QUANTILES;  margins : (bins, 2) added outwards at the lower and the upper end
    """

    models: tuple[Model, ...]
    margins: F64

    def estimate(self, inputs: F64, bins: I64) -> F64:
        """(n, 3) median, lower and upper end.  inputs : (n, k), NaN = unknown;  bins : (n,) of `margins`."""
        low, middle, high = (value(model, inputs) for model in self.models)
        return ordered(low - self.margins[bins, 0], middle, high + self.margins[bins, 1])


@dataclass(frozen=True)
class Peak:
    """Time and brightness of the peak.

    inputs, needed : columns of the bundle's matrix;  edges : (bins - 1,) numbers of detections at which the
    next bin of the margins begins;  intervals : of the TARGETS
    """

    inputs: list[int]
    needed: list[int]
    edges: F64
    intervals: tuple[Interval, ...]

    def score(self, matrix: F64) -> F64:
        """Columns of PEAK_SPECS for each row; NaN for too few or too old detections, or none in g and r.

        matrix : (n, k) of the bundle's columns, NaN where unknown
        """
        found = np.full((len(matrix), len(PEAK_SPECS)), np.nan)
        count, age, mag_g, mag_r = matrix[:, self.needed].T
        brightest = np.fmin(mag_g, mag_r)
        rows = np.flatnonzero((count >= LEAST_DETECTIONS) & (age <= OLDEST_DAYS) & np.isfinite(brightest))
        if not len(rows):
            return found
        inputs = matrix[rows][:, self.inputs]
        bins = np.searchsorted(self.edges, count[rows], side="right")
        days, change = (interval.estimate(inputs, bins) for interval in self.intervals)
        found[rows] = np.hstack([days, brightest[rows, np.newaxis] + change])
        return found


@dataclass(frozen=True)
class NoPeak:
    """What stands in where a bundle has no such models: every column is NaN."""

    def score(self, matrix: F64) -> F64:
        """(n, len(PEAK_SPECS)) NaN."""
        return np.full((len(matrix), len(PEAK_SPECS)), np.nan)


def value(model: Model, inputs: F64) -> F64:
    """(n,) what a model with one output says: `raw` gives each of two classes half of it, with signs."""
    raw = model.raw(inputs)
    return np.asarray(raw[:, 1] - raw[:, 0])


def ordered(low: F64, middle: F64, high: F64) -> F64:
    """(n, 3) middle, low, high: models fitted one by one may cross, the middle one then is believed."""
    return np.stack([middle, np.minimum(low, middle), np.maximum(high, middle)], axis=1)


def model_name(target: str, quantile: float) -> str:
    """Name of a model's file in the bundle, without its ending.

    >>> model_name("days", 0.1)
    'peak_days_q10'
    """
    return f"peak_{target}_q{round(100 * quantile)}"


def load_peak(folder: Path, manifest: Manifest) -> Peak | NoPeak:
    """The models of a bundle whose files have been checked; BundleError if its parts disagree."""
    if not (folder / FILE).exists():
        return NoPeak()
    content = json.loads((folder / FILE).read_text())
    inputs = column_indices(manifest, content["inputs"])
    edges = np.array(content["edges"], dtype=np.float64)
    intervals = []
    for target in TARGETS:
        models = tuple(load_model(folder, model_name(target, quantile)) for quantile in QUANTILES)
        margins = np.array(content["margins"][target], dtype=np.float64)
        widths = {model.raw(np.full((1, len(inputs)), np.nan)).shape[1] for model in models}
        if margins.shape != (len(edges) + 1, 2) or not np.isfinite(margins).all() or widths != {2}:
            raise BundleError(
                f"bundle {folder}: {FILE} does not fit the models of {target!r}; train it again"
            )
        intervals.append(Interval(models, margins))
    return Peak(inputs, column_indices(manifest, NEEDED), edges, tuple(intervals))
