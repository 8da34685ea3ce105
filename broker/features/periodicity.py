"""Does the flux repeat: the period, how sure it is, and the shape of a cycle."""

from __future__ import annotations

import math

import numba
import numpy as np

from broker.features.measurements import F64, I64, compiled
from broker.features.series import Series

MIN_BAND_POINTS = 5
"""A band with fewer points is left out: its offset, amplitude and phase would fit any of them."""
MIN_POINTS = 10
MIN_SPAN_DAYS = 2.0
"""Shorter series cannot tell a period from the rhythm of the nights."""
MAX_SPAN_DAYS = 400.0
"""Older points are left out: with MAX_FREQUENCIES this bounds the time a row can take."""
MAX_FREQUENCY = 20.0
"""Per day; lower where MAX_FREQUENCIES would not reach it: from a span of 200 days on."""
OVERSAMPLING = 4.0
MAX_FREQUENCIES = 16000
ALIAS_HALF_WIDTH = 0.02
"""Per day: so close to a whole number of cycles a day, or half the resolution, no period is accepted."""
HARMONICS = 3
SMALLEST_LOG10_FAP = -99.0
REFINEMENTS = 40
_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)


def periodicity(s: Series) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    found = best_period(s.time, s.flux, s.err, s.starts)
    period = np.ascontiguousarray(found[:, 0])  # of a column numba would compile another variant
    shape = fourier_shape(s.time, s.flux, s.err, s.starts, period)
    return {
        "period_days": found[:, 0],
        "period_power": found[:, 1],
        "period_log10_fap": found[:, 2],
        "fourier_amplitude": shape[:, 0],
        "fourier_r21": shape[:, 1],
        "fourier_r31": shape[:, 2],
        "fourier_phi21": shape[:, 3],
        "fourier_phi31": shape[:, 4],
    }


@compiled
def best_period(time: F64, flux: F64, err: F64, starts: I64) -> F64:
    """The period that a sinusoid of its own in each band fits best, whatever their offsets.

    time : (m,) [day];  flux, err : (m,) [nJy];  starts : (2n+1,) the two bands of n rows, as in Series.
    Returns (n, 3): period [day], power (share of the chi2 about the means that the sinusoids remove, 0..1)
    and log10 of the probability that noise alone reaches it; NaN where fewer than MIN_POINTS points span
    MIN_SPAN_DAYS, or no frequency of the grid is a peak. Frequencies from 1 / span to MAX_FREQUENCY, without
    those near whole cycles a day; the grid's peak is refined by golden section.
    Source: Lomb 1976, Ap&SS 39, 447; Zechmeister & Kürster 2009, A&A 496, 577 (floating mean); bands joined
    by their chi2: VanderPlas & Ivezić 2015, ApJ 812, 18.
    """
    rows = (starts.shape[0] - 1) // 2
    result = np.full((rows, 3), np.nan)
    for row in range(rows):
        first, middle, second, end = _usable(time, starts[2 * row], starts[2 * row + 1], starts[2 * row + 2])
        split = middle - first
        count, bands = split + end - second, 1 + (end > second)
        if count < MIN_POINTS:
            continue
        t = np.concatenate((time[first:middle], time[second:end]))
        y = np.concatenate((flux[first:middle], flux[second:end]))
        w = 1.0 / np.concatenate((err[first:middle], err[second:end])) ** 2
        span = t.max() - t.min()
        scatter = _centre(y[:split], w[:split]) + (_centre(y[split:], w[split:]) if bands > 1 else 0.0)
        if not (span >= MIN_SPAN_DAYS and scatter > 0.0 and np.isfinite(scatter)):
            continue
        step = 1.0 / (OVERSAMPLING * span)
        grid = int(min(MAX_FREQUENCY * OVERSAMPLING * span, MAX_FREQUENCIES))
        power = periodogram(t, y, w, split, step, grid) / scatter
        peak = _highest_peak(power, step)
        if peak < 0:
            continue
        frequency = _refine(t, y, w, split, (peak - 1) * step, (peak + 1) * step)
        z = min(_power_at(t, y, w, split, frequency) / scatter, 1.0)
        result[row, 0], result[row, 1] = 1.0 / frequency, z
        result[row, 2] = log10_false_alarm(z, count, bands, (grid * step - 1.0 / span) * span)
    return result


@compiled
def log10_false_alarm(power: float, count: int, bands: int, frequencies: float) -> float:
    """How surprising a peak would be in noise: log10 of its false-alarm probability, >= SMALLEST_LOG10_FAP.

    power : 0..1;  count : points;  frequencies : independent ones searched (the range times the span).
    One frequency: (1 - z)^b for one band, (1 - z)^b (1 + b z) for two, b = (N - 3 bands) / 2 (the power of
    noise is a Beta variable); then 1 - (1 - p)^M. Neighbouring frequencies are not quite so dependent as
    this counts, so in noise the true probability is two to three times larger.
    Source: Baluev 2008, MNRAS 385, 1279.
    """
    b = 0.5 * (count - 3 * bands)
    single = max(1.0 - power, 0.0) ** b * (1.0 + b * power if bands > 1 else 1.0)
    if single < 1e-200:
        return SMALLEST_LOG10_FAP
    several = -math.expm1(frequencies * math.log1p(-single)) if single < 1.0 else 1.0
    return max(math.log10(several), SMALLEST_LOG10_FAP) if several > 0.0 else SMALLEST_LOG10_FAP


@compiled
def _usable(time: F64, first: int, middle: int, end: int) -> tuple[int, int, int, int]:
    """Bounds of each band without what is too old, and an empty second one if it is too poor."""
    newest = -np.inf
    for i in range(first, end):
        newest = max(newest, time[i])
    second = middle
    while first < middle and time[first] < newest - MAX_SPAN_DAYS:
        first += 1
    while second < end and time[second] < newest - MAX_SPAN_DAYS:
        second += 1
    return first, middle, second if end - second >= MIN_BAND_POINTS else end, end


@compiled
def _centre(y: F64, w: F64) -> float:
    """Take the weighted mean off `y`, in place; gives the chi2 about it."""
    y -= (w * y).sum() / w.sum()
    return float((w * y * y).sum())


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def periodogram(t, y, w, split, step, grid):  # type: ignore[no-untyped-def]
    """Chi2 that a floating-mean sinusoid of its own in each band removes, at (j + 1) * step, j < grid.

    t, y, w : (m,) time, flux less its band's mean, 1 / error^2;  split : where the second band begins.
    The phase of each point is advanced by a rotation from one frequency to the next, not by sines.
    """
    power = np.zeros(grid)
    first = 0
    for end in (split, t.shape[0]):
        if end == first:
            continue
        angle = 2.0 * np.pi * step * t[first:end]
        turn_c, turn_s = np.cos(angle), np.sin(angle)
        c, s = np.ones(end - first), np.zeros(end - first)
        weight = w[first:end]
        value = weight * y[first:end]
        total = weight.sum()
        for j in range(grid):
            yc = ys = mc = ms = cc = cs = 0.0
            for i in range(c.shape[0]):
                cosine = c[i] * turn_c[i] - s[i] * turn_s[i]
                sine = s[i] * turn_c[i] + c[i] * turn_s[i]
                c[i], s[i] = cosine, sine
                yc += value[i] * cosine
                ys += value[i] * sine
                mc += weight[i] * cosine
                ms += weight[i] * sine
                cc += weight[i] * cosine * cosine
                cs += weight[i] * cosine * sine
            ss = total - cc - ms * ms / total
            cc -= mc * mc / total
            cs -= mc * ms / total
            determinant = cc * ss - cs * cs
            if determinant > 1e-12 * total * total:
                power[j] += (ss * yc * yc + cc * ys * ys - 2.0 * cs * yc * ys) / determinant
        first = end
    return power


@compiled
def _power_at(t: F64, y: F64, w: F64, split: int, frequency: float) -> float:
    """The periodogram at one frequency."""
    return float(periodogram(t, y, w, split, frequency, 1)[0])


@compiled
def _highest_peak(power: F64, step: float) -> int:
    """The highest local maximum of the grid away from whole cycles a day; -1 if there is none.

    A maximum only: the foot of a masked peak is no period. The grid begins at 1 / span.
    """
    half = max(ALIAS_HALF_WIDTH, 0.5 * OVERSAMPLING * step)
    best, highest = -1, 0.0
    for j in range(int(OVERSAMPLING) - 1, power.shape[0] - 1):
        frequency = (j + 1) * step
        nearest = np.round(frequency)
        masked = nearest >= 1.0 and abs(frequency - nearest) < half
        if not masked and power[j] > highest and power[j] >= power[j - 1] and power[j] >= power[j + 1]:
            best, highest = j + 1, power[j]
    return best


@compiled
def _refine(t: F64, y: F64, w: F64, split: int, low: float, high: float) -> float:
    """The frequency of the highest power between two, by golden section."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    power_left, power_right = _power_at(t, y, w, split, left), _power_at(t, y, w, split, right)
    for _ in range(REFINEMENTS):
        if power_left >= power_right:
            high, right, power_right = right, left, power_left
            left = high - _GOLDEN * (high - low)
            power_left = _power_at(t, y, w, split, left)
        else:
            low, left, power_left = left, right, power_right
            right = low + _GOLDEN * (high - low)
            power_right = _power_at(t, y, w, split, right)
    return 0.5 * (low + high)


@compiled
def fourier_shape(time: F64, flux: F64, err: F64, starts: I64, period: F64) -> F64:
    """Shape of the cycle in the best-sampled band, from three harmonics of the period.

    Arguments as `best_period`;  period : (n,) [day]. Returns (n, 5): amplitude A1 [nJy], A2/A1, A3/A1, and
    phi2 - 2 phi1, phi3 - 3 phi1 [rad, 0..2 pi), of f = f0 + sum A_k cos(2 pi k t / P + phi_k); NaN where
    there is no period or MIN_POINTS is not reached.  Source: Simon & Lee 1981, ApJ 248, 291.
    """
    result = np.full((period.shape[0], 5), np.nan)
    size = 2 * HARMONICS + 1
    for row in range(period.shape[0]):
        first, middle, _, _ = _usable(time, starts[2 * row], starts[2 * row + 1], starts[2 * row + 2])
        if not period[row] > 0.0 or middle - first < MIN_POINTS:
            continue
        normal, right = np.zeros((size, size)), np.zeros(size)
        terms = np.ones(size)
        for i in range(first, middle):
            for k in range(1, HARMONICS + 1):
                angle = 2.0 * np.pi * k * time[i] / period[row]
                terms[2 * k - 1], terms[2 * k] = np.cos(angle), np.sin(angle)
            for a in range(size):
                right[a] += terms[a] * flux[i] / err[i] ** 2
                for b in range(a + 1):
                    normal[a, b] += terms[a] * terms[b] / err[i] ** 2
        if not solve_symmetric(normal, right):
            continue
        amplitude, phase = np.zeros(HARMONICS), np.zeros(HARMONICS)
        for k in range(HARMONICS):
            amplitude[k] = np.hypot(right[2 * k + 1], right[2 * k + 2])
            phase[k] = np.arctan2(-right[2 * k + 2], right[2 * k + 1])
        if not amplitude[0] > 0.0:
            continue
        result[row, 0] = amplitude[0]
        for k in range(1, HARMONICS):
            result[row, k] = amplitude[k] / amplitude[0]
            result[row, 2 + k] = (phase[k] - (k + 1) * phase[0]) % (2.0 * np.pi)
    return result


@compiled
def solve_symmetric(matrix: F64, right: F64) -> bool:
    """Solve a positive definite system by Cholesky's method, in place; False if it is (nearly) singular.

    matrix : (k, k), its lower triangle is read and replaced;  right : (k,), replaced by the solution.
    """
    size = right.shape[0]
    for a in range(size):
        diagonal = matrix[a, a]
        for b in range(a + 1):
            for c in range(b):
                matrix[a, b] -= matrix[a, c] * matrix[b, c]
            if b < a:
                matrix[a, b] /= matrix[b, b]
        if not matrix[a, a] > 1e-10 * diagonal:
            return False
        matrix[a, a] = np.sqrt(matrix[a, a])
        for c in range(a):
            right[a] -= matrix[a, c] * right[c]
        right[a] /= matrix[a, a]
    for a in range(size - 1, -1, -1):
        for c in range(a + 1, size):
            right[a] -= matrix[c, a] * right[c]
        right[a] /= matrix[a, a]
    return True
