"""Features too expensive for every alert: computed when a light curve has grown enough, kept with its cache.

What is kept of an object (`pack`, little-endian): 8 bytes naming the list of these features, u4 how many
measured fluxes there were, f8 the reference time [MJD, TAI], then f4 a feature. Kept values serve an alert
only if they were computed from its past: at an earlier or the same reference, from no more points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.features.measurements import F64, I64
from broker.features.model_fit import model_fit
from broker.features.periodicity import periodicity
from broker.features.random_walk import random_walk
from broker.features.series import Series, flux_counts, measured_series
from broker.lightcurves import LightCurves
from broker.measured import points_with_roles

GATED_FAMILIES: list[Callable[[Series], dict[str, F64]]] = [periodicity, model_fit, random_walk]
GATED_NAMES = (
    "period_days", "period_power", "period_log10_fap", "fourier_amplitude", "fourier_r21", "fourier_r31",
    "fourier_phi21", "fourier_phi31", "fit_days_since_peak", "fit_rise_days", "fit_fall_days",
    "fit_peak_flux_g", "fit_peak_flux_r", "fit_chi2", "fit_gain", "drw_tau_days", "drw_sigma", "drw_gain",
    "cycle_power", "cycle_double_gain", "cycle_half_ratio", "cycle_rise", "cycle_level", "cycle_width",
    "cycle_skew", "cycle_eta", "cycle_double_eta", "cycle_residual_eta", "series_eta",
    "fit_days_since_peak_err", "fit_rise_days_err", "fit_fall_days_err", "fit_peak_flux_g_err",
    "fit_peak_flux_r_err",
)  # fmt: skip
"""Their order in the cache."""
AGES = tuple(GATED_NAMES.index(name) for name in ("fit_days_since_peak",))
"""Those that grow by a day each day: kept values are brought up to the alert's time."""

MIN_POINTS = 6
"""With fewer measured fluxes none of them can be known."""
GROWTH = 0.1
MIN_GROWTH = 2
"""They are computed again after so many new points: a tenth of those of the last time, but at least two."""

_LIST = hashlib.sha256("\n".join(GATED_NAMES).encode()).digest()[:8]
_VALUES = np.dtype("<f4")
_ROW = np.dtype(
    [("list", "S8"), ("count", "<u4"), ("moment", "<f8"), ("values", _VALUES, (len(GATED_NAMES),))]
)


@dataclass(frozen=True)
class Gated:
    """What `extract_gated` gives.

    values : (n, len(GATED_NAMES)), NaN where unknown;  computed : (n,) rows that were computed now;
    blobs : (n,) what the store should keep of them, b"" for the others
    """

    values: F64
    computed: npt.NDArray[np.bool_]
    blobs: list[bytes]


def extract_gated(
    curves: LightCurves, ref_mjd: F64, kept: Sequence[bytes] | None = None, budget_rows: int | None = None
) -> Gated:
    """The expensive features: kept ones where they still serve, new ones for up to `budget_rows` rows.

    curves : n rows;  ref_mjd : (n,) [MJD, TAI];  kept : (n,) what the store holds, b"" if nothing;
    budget_rows : None computes every row that wants it; those with the most new points go first.
    """
    ref = np.asarray(ref_mjd, dtype=np.float64)
    counts = flux_counts(points_with_roles(curves, ref))
    held = [blob if _is_ours(blob) else b"" for blob in kept] if kept else [b""] * len(curves)
    known, values = _recall(held, ref, counts)
    new = np.where(counts >= MIN_POINTS, counts - known, 0)
    wants = new >= np.where(known > 0, np.maximum(GROWTH * known, MIN_GROWTH), 1)
    rows = np.flatnonzero(wants)
    rows = rows[np.argsort(-new[rows], kind="stable")][:budget_rows]
    values[rows] = compute(curves.take(rows), ref[rows])
    blobs = [b""] * len(curves)
    for row in rows.tolist():
        # An alert that came late must not put its past over what a newer one left.
        if not held[row] or _moment(held[row]) <= ref[row]:
            blobs[row] = pack(int(counts[row]), float(ref[row]), values[row])
    computed = np.zeros(len(curves), dtype=np.bool_)
    computed[rows] = True
    return Gated(values, computed, blobs)


def compute(curves: LightCurves, ref_mjd: F64) -> F64:
    """All of them for every row, as training sees them: (n, len(GATED_NAMES)), to the cache's precision."""
    with np.errstate(all="ignore"):
        series = measured_series(curves, ref_mjd)
        columns = {name: values for family in GATED_FAMILIES for name, values in family(series).items()}
    matrix = np.empty((len(curves), len(GATED_NAMES)))
    for index, name in enumerate(GATED_NAMES):
        matrix[:, index] = columns[name]
    return matrix.astype(_VALUES).astype(np.float64)


def pack(count: int, ref_mjd: float, values: F64) -> bytes:
    """One object's row as it is kept."""
    return np.array((_LIST, count, ref_mjd, values), dtype=_ROW).tobytes()


def _is_ours(blob: bytes) -> bool:
    """Whether a kept row is of this list of features."""
    return len(blob) == _ROW.itemsize and blob.startswith(_LIST)


def _moment(blob: bytes) -> float:
    """The reference [MJD, TAI] that a kept row was computed at."""
    return float(np.frombuffer(blob, dtype=_ROW)["moment"][0])


def _recall(held: Sequence[bytes], ref: F64, counts: I64) -> tuple[I64, F64]:
    """How many points the kept rows saw (0 if they do not serve) and their values as of the reference."""
    known = np.zeros(len(held), dtype=np.int64)
    values = np.full((len(held), len(GATED_NAMES)), np.nan)
    rows = np.array([row for row, blob in enumerate(held) if blob], dtype=np.int64)
    kept = np.frombuffer(b"".join(held), dtype=_ROW)
    serves = (kept["moment"] <= ref[rows]) & (kept["count"] <= counts[rows])
    rows, kept = rows[serves], kept[serves]
    with np.errstate(all="ignore"):  # what is damaged may be any number
        known[rows], values[rows] = kept["count"], kept["values"]
        for column in AGES:
            values[rows, column] += ref[rows] - kept["moment"]
        return known, values.astype(_VALUES).astype(np.float64)
