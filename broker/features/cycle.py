"""What a folded light curve looks like: how well it repeats, how steep, how deep, whether every other cycle differs.

All from the best-sampled band and free of the flux scale and of any constant offset, so that they mean the
same in every survey, on difference flux and on total flux.
"""

from __future__ import annotations

import numpy as np

from broker.features.measurements import F64, I64, compiled
from broker.features.periodicity import MIN_POINTS, normal_equations, periodicity, solve_symmetric
from broker.features.series import Series

HARMONICS = 3
DOUBLE_HARMONICS = 6
"""Of twice the period: the even ones are those of the period itself."""
STIFFNESS = 3e-3
"""Added to the diagonal, times the sum of the weights and the square of the harmonic: a gap in phase is
bridged, not overshot."""
PHASES = 100
_COLUMNS = 12


def cycle(s: Series) -> dict[str, F64]:
    """The family's columns, each (n,), and those of `periodicity` whose period it folds with."""
    columns = periodicity(s)
    folded = fold(s.time, s.flux, s.err, s.starts, columns["period_days"])
    names = (
        "cycle_power", "cycle_double_gain", "cycle_rise", "cycle_level", "cycle_half_ratio", "cycle_width",
        "cycle_eta", "cycle_double_eta", "cycle_skew", "cycle_residual_eta", "series_eta", "series_skew",
    )  # fmt: skip
    return columns | dict(zip(names, folded.T, strict=True))


@compiled
def fold(time: F64, flux: F64, err: F64, starts: I64, period: F64) -> F64:
    result = np.full((period.shape[0], _COLUMNS), np.nan)
    for row in range(period.shape[0]):
        first, end = starts[2 * row], starts[2 * row + 1]
        if not period[row] > 0.0 or end - first < MIN_POINTS:
            continue
        t, y, w = time[first:end], flux[first:end], 1.0 / err[first:end] ** 2
        mean = (w * y).sum() / w.sum()
        chi2 = (w * (y - mean) ** 2).sum()
        single, single_chi2 = _smooth_cycle(t, y - mean, w, 1.0 / period[row], HARMONICS)
        double, double_chi2 = _smooth_cycle(t, y - mean, w, 0.5 / period[row], DOUBLE_HARMONICS)
        if not (chi2 > 0.0 and single_chi2 > 0.0 and single.max() > single.min()):
            continue
        low, high = np.argmin(single), np.argmax(single)
        span = single[high] - single[low]
        result[row, 0] = 1.0 - single_chi2 / chi2
        result[row, 1] = 1.0 - double_chi2 / single_chi2
        result[row, 2] = ((high - low) % PHASES) / PHASES
        result[row, 3] = (single.mean() - single[low]) / span
        result[row, 4] = _half_ratio(double)
        result[row, 5] = (single > single[low] + 0.5 * span).sum() / PHASES
        result[row, 6] = _eta(y[np.argsort(t / period[row] % 1.0)])
        result[row, 7] = _eta(y[np.argsort(0.5 * t / period[row] % 1.0)])
        result[row, 8] = _skew(single)
        model = _at(single, t / period[row])
        result[row, 9] = _eta(y - mean - model)
        result[row, 10] = _eta(y)
        result[row, 11] = _skew(y)
    return result


@compiled
def _smooth_cycle(t: F64, y: F64, w: F64, frequency: float, harmonics: int) -> tuple[F64, float]:
    """The cycle at PHASES phases from 0 on, and the chi2 about it.  y : less its mean."""
    normal, right, square = normal_equations(t, y, w, frequency, harmonics)
    gram, wanted = normal.copy(), right.copy()
    for k in range(1, right.shape[0]):
        normal[k, k] += STIFFNESS * gram[0, 0] * ((k + 1) // 2) ** 2
    cycle = np.zeros(PHASES)
    if not solve_symmetric(normal, right):
        return cycle, np.nan
    chi2 = square
    for a in range(right.shape[0]):
        chi2 += right[a] * (gram[a, a] * right[a] - 2.0 * wanted[a])
        for b in range(a):
            chi2 += 2.0 * right[a] * gram[a, b] * right[b]
    for j in range(PHASES):
        angle = 2.0 * np.pi * j / PHASES
        cycle[j] = right[0]
        for k in range(1, harmonics + 1):
            cycle[j] += right[2 * k - 1] * np.cos(k * angle) + right[2 * k] * np.sin(k * angle)
    return cycle, chi2


@compiled
def _at(cycle: F64, phase: F64) -> F64:
    """A cycle at any phases [cycles], by straight lines."""
    value = np.empty(phase.shape[0])
    for i in range(phase.shape[0]):
        place = (phase[i] % 1.0) * PHASES
        j = int(place) % PHASES
        value[i] = cycle[j] + (place - int(place)) * (cycle[(j + 1) % PHASES] - cycle[j])
    return value


@compiled
def _half_ratio(double: F64) -> float:
    """Depth of the shallower minimum over that of the deeper one, half of the two cycles away from it: 0..1."""
    low, high = np.argmin(double), double.max()
    second = np.inf
    for j in range(PHASES // 4, 3 * PHASES // 4 + 1):
        second = min(second, double[(low + j) % PHASES])
    return (high - second) / (high - double[low])


@compiled
def _eta(values: F64) -> float:
    """Von Neumann's ratio of values in their order."""
    total = ((values - values.mean()) ** 2).sum()
    return ((values[1:] - values[:-1]) ** 2).sum() / total if total > 0.0 else np.nan


@compiled
def _skew(values: F64) -> float:
    offsets = values - values.mean()
    variance = (offsets**2).mean()
    return (offsets**3).mean() / variance**1.5 if variance > 0.0 else np.nan
