"""What a cycle looks like: how well it repeats, how steep and deep it is, whether every other one differs.

All from the best-sampled band and free of the flux's scale and of any constant offset: they mean the same
in every survey, of difference flux and of total flux.
"""

from __future__ import annotations

import numpy as np

from broker.features.harmonics import normal_equations, solve_symmetric
from broker.features.measurements import F64, I64
from broker.measured import compiled

MIN_POINTS = 10
HARMONICS = 3
"""Of the period. Twice the period has twice as many: every other one is the period's own."""
STIFFNESS = 3e-3
"""Added to the diagonal, times the sum of the weights and the harmonic squared: a gap in phase is bridged,
not overshot."""
PHASES = 100
"""Steps at which the fitted cycle is looked at."""

NAMES = (
    "cycle_power", "cycle_double_gain", "cycle_half_ratio", "cycle_rise", "cycle_level", "cycle_width",
    "cycle_skew", "cycle_eta", "cycle_double_eta", "cycle_residual_eta", "series_eta",
)  # fmt: skip


def fold(time: F64, flux: F64, err: F64, starts: I64, period: F64) -> dict[str, F64]:
    """The columns NAMES, each (n,); arguments as `cycles`."""
    # Contiguous, so that one kernel serves: a column of one row is contiguous, one of many is not.
    found = cycles(time, flux, err, starts, np.ascontiguousarray(period))
    return dict(zip(NAMES, found.T, strict=True))


@compiled
def cycles(time: F64, flux: F64, err: F64, starts: I64, period: F64) -> F64:
    """Shape of the cycle that is fitted to the best-sampled band, and of the points about it.

    time : (m,) [day];  flux, err : (m,) [nJy];  starts : (2n+1,) the two bands of n rows, as in Series;
    period : (n,) [day]. Returns (n, len(NAMES)), NaN where there is no period, fewer than MIN_POINTS points
    or no scatter. With f the cycle of HARMONICS harmonics:
    power        share of the chi2 about the mean that f removes
    double_gain  share of the chi2 about f that a cycle of twice the period removes;  half_ratio: in that one,
                 depth of the other half's minimum over that of the deeper one (unequal eclipses: below 1)
    rise         fraction of the cycle from the minimum of f to its maximum
    level, width where the mean of f lies between minimum and maximum; how long f is above their middle
    skew         of f over the cycle
    eta          von Neumann's ratio in order of phase, double_eta: of the phase of twice the period
    residual_eta von Neumann's ratio in order of time about f, series_eta: of the flux itself
    """
    result = np.full((period.shape[0], len(NAMES)), np.nan)
    for row in range(period.shape[0]):
        first, end = starts[2 * row], starts[2 * row + 1]
        if not period[row] > 0.0 or end - first < MIN_POINTS:
            continue
        t, w = time[first:end], 1.0 / err[first:end] ** 2
        y = flux[first:end] - (w * flux[first:end]).sum() / w.sum()
        scatter = (w * y**2).sum()
        single, about_single = smooth_cycle(t, y, w, 1.0 / period[row], HARMONICS)
        double, about_double = smooth_cycle(t, y, w, 0.5 / period[row], 2 * HARMONICS)
        low, high = np.argmin(single), np.argmax(single)
        span = single[high] - single[low]
        if not (scatter > 0.0 and about_single > 0.0 and span > 0.0):
            continue
        phase = t / period[row] % 1.0
        result[row] = (
            1.0 - about_single / scatter,
            1.0 - about_double / about_single,
            _half_ratio(double),
            (high - low) % PHASES / PHASES,
            (single.mean() - single[low]) / span,
            (single > single[low] + 0.5 * span).sum() / PHASES,
            _skew(single),
            _eta(y[np.argsort(phase)]),
            _eta(y[np.argsort(0.5 * t / period[row] % 1.0)]),
            _eta(y - _at(single, phase)),
            _eta(y),
        )
    return result


@compiled
def smooth_cycle(t: F64, y: F64, w: F64, frequency: float, harmonics: int) -> tuple[F64, float]:
    """The stiffened cycle at PHASES phases from 0 on, and the chi2 about it (NaN: it cannot be fitted)."""
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
        cycle[j] = right[0]
        for k in range(1, harmonics + 1):
            angle = 2.0 * np.pi * k * j / PHASES
            cycle[j] += right[2 * k - 1] * np.cos(angle) + right[2 * k] * np.sin(angle)
    return cycle, chi2


@compiled
def _at(cycle: F64, phase: F64) -> F64:
    """A cycle's value at phases in [0, 1), by straight lines between its steps."""
    value = np.empty(phase.shape[0])
    for i in range(phase.shape[0]):
        place = phase[i] * PHASES
        j = int(place)
        value[i] = cycle[j % PHASES] + (place - j) * (cycle[(j + 1) % PHASES] - cycle[j % PHASES])
    return value


@compiled
def _half_ratio(double: F64) -> float:
    """Depth of the minimum a quarter to three quarters away from the deepest, over the deepest's: 0..1."""
    deepest, high, other = np.argmin(double), double.max(), np.inf
    for j in range(PHASES // 4, 3 * PHASES // 4 + 1):
        other = min(other, double[(deepest + j) % PHASES])
    return float((high - other) / (high - double[deepest]))


@compiled
def _eta(values: F64) -> float:
    """Von Neumann's ratio of values in their order; NaN if they are all the same."""
    total = ((values - values.mean()) ** 2).sum()
    return float(((values[1:] - values[:-1]) ** 2).sum() / total) if total > 0.0 else np.nan


@compiled
def _skew(values: F64) -> float:
    """Third moment about the mean in units of the standard deviation."""
    offsets = values - values.mean()
    return float((offsets**3).mean() / (offsets**2).mean() ** 1.5)
