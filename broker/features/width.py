"""How wide the light curve is around its peak: what tells a plateau from a quick decline."""

from __future__ import annotations

import numpy as np

from broker.features.measurements import F64, I64, Measurements
from broker.measured import compiled

SAME_NIGHT_DAYS = 0.5
"""Detections within this of the first of them are averaged: the peak should not be one noisy point."""
FADES_DAYS = (15.0, 30.0)
FAINTEST = 0.01
"""Share of the peak flux (5 mag) below which a fading is not told."""
COLUMNS = (
    "rise_50_days", "rise_75_days", "fall_75_days", "fall_50_days", "fall_25_days",
    "fade_15d", "fade_30d", "width_days",
)  # fmt: skip


def width(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,): of the better sampled of g and r, g if they are equal."""
    columns = widths(m.band_time, m.band_flux, m.band_err, m.band_starts)
    return dict(zip(COLUMNS, columns.T, strict=True))


@compiled
def widths(time: F64, flux: F64, err: F64, starts: I64) -> F64:
    """Days from fractions of the peak flux to the peak and back, fading after the peak, equivalent width.

    time : (m,) [day], ordered within each row;  flux, err : (m,) [nJy], only points with an error > 0 count;
    starts : (2n+1,) n rows of g, then n rows of r. Returns (n, len(COLUMNS)) in their order: linear between
    the nightly means, fading in mag up to -2.5 log10(FAINTEST), width = integral of the positive flux over
    the peak [day]. NaN where the light curve does not reach so far, has fewer than 3 nights or no flux > 0.
    """
    rows = (starts.shape[0] - 1) // 2
    result = np.full((rows, 8), np.nan)
    for row in range(rows):
        g, r = row, rows + row
        band = g if starts[g + 1] - starts[g] >= starts[r + 1] - starts[r] else r
        begin, end = starts[band], starts[band + 1]
        t, f = np.empty(end - begin), np.empty(end - begin)
        count = _nightly(time, flux, err, begin, end, t, f)
        if count < 3:
            continue
        peak = int(np.argmax(f[:count]))
        if not f[peak] > 0.0:
            continue
        result[row, 0] = _crossing(t, f, count, peak, 0.5, -1)
        result[row, 1] = _crossing(t, f, count, peak, 0.75, -1)
        result[row, 2] = _crossing(t, f, count, peak, 0.75, 1)
        result[row, 3] = _crossing(t, f, count, peak, 0.5, 1)
        result[row, 4] = _crossing(t, f, count, peak, 0.25, 1)
        for k in range(2):
            result[row, 5 + k] = _fade(t, f, count, peak, FADES_DAYS[k])
        area = 0.0
        for i in range(count - 1):
            area += 0.5 * (t[i + 1] - t[i]) * (max(f[i], 0.0) + max(f[i + 1], 0.0))
        result[row, 7] = area / f[peak]
    return result


@compiled
def _nightly(time: F64, flux: F64, err: F64, begin: int, end: int, t: F64, f: F64) -> int:
    """Inverse-variance means of time and flux of each night into `t` and `f`; gives their number."""
    count = 0
    first, total = -np.inf, 0.0
    for i in range(begin, end):
        if not err[i] > 0.0:
            continue
        weight = 1.0 / err[i] ** 2
        if time[i] - first >= SAME_NIGHT_DAYS:
            first, total = time[i], 0.0
            t[count], f[count] = 0.0, 0.0
            count += 1
        total += weight
        t[count - 1] += (time[i] - t[count - 1]) * weight / total
        f[count - 1] += (flux[i] - f[count - 1]) * weight / total
    return count


@compiled
def _crossing(t: F64, f: F64, count: int, peak: int, share: float, step: int) -> float:
    """Days between the peak and where the flux first falls below a share of it, going one way; else NaN."""
    level = share * f[peak]
    i = peak
    while 0 <= i + step < count:
        if f[i + step] < level:
            return float(abs(t[i] + (t[i + step] - t[i]) * (f[i] - level) / (f[i] - f[i + step]) - t[peak]))
        i += step
    return np.nan


@compiled
def _fade(t: F64, f: F64, count: int, peak: int, days: float) -> float:
    """Magnitudes by which the flux has faded so many days after the peak; NaN if not seen so late."""
    moment = t[peak] + days
    for i in range(peak, count - 1):
        if t[i + 1] >= moment:
            flux = f[i] + (f[i + 1] - f[i]) * (moment - t[i]) / (t[i + 1] - t[i])
            return float(-2.5 * np.log10(max(flux / f[peak], FAINTEST)))
    return np.nan
