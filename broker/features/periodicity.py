"""Does the flux repeat: the period, how sure it is, and the shape of a cycle."""

from __future__ import annotations

import math

import numba
import numpy as np

from broker.features.cycle import fold
from broker.features.harmonics import harmonics_chi2, normal_equations, solve_symmetric
from broker.features.measurements import F64, I64
from broker.features.series import Series
from broker.measured import compiled

MIN_BAND_POINTS = 5
"""A band with fewer points is left out: its offset, amplitude and phase would fit any of them."""
MIN_POINTS = 10
MIN_SPAN_DAYS = 2.0
"""Shorter series cannot tell a period from the rhythm of the nights."""
MAX_FREQUENCY = 33.0
"""Per day: the fastest delta Scuti stars."""
OVERSAMPLING = 4.0
MAX_WORK = 12e6
"""Points times frequencies of the whole range: what bounds the time that a row can take. A longer or richer
series is searched in windows that keep to it, whose powers add up, and then near their peaks as a whole."""
CANDIDATES = 12
"""Peaks that are looked at again: as a whole those of the windows, and with harmonics."""
SERIOUS = 0.5
"""Share of the highest peak's power from which on a peak's harmonics are asked."""
SLOW_CYCLES = 8.0
"""Periods of which a window holds fewer are searched in the whole series at once: they are few."""
ALIAS_HALF_WIDTH = 0.02
"""Per day: so close to a whole number of cycles a day, or half the resolution, no period is accepted."""
HARMONICS = 3
SMALLEST_LOG10_FAP = -99.0
FINER = 8
"""Steps of the grid are divided by this about a peak: its third harmonic must not run out of phase."""
REFINEMENTS = 14
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
        **fold(s.time, s.flux, s.err, s.starts, found[:, 0]),
    }


@compiled
def best_period(time: F64, flux: F64, err: F64, starts: I64) -> F64:
    """The period that a sinusoid of its own in each band fits best, whatever their offsets.

    time : (m,) [day];  flux, err : (m,) [nJy];  starts : (2n+1,) the two bands of n rows, as in Series.
    Returns (n, 3): period [day], power (share of the chi2 about the means that the sinusoids remove, 0..1)
    and log10 of the probability that noise alone reaches it; NaN where fewer than MIN_POINTS points span
    MIN_SPAN_DAYS, or no frequency of the grid is a peak. Frequencies from 1 / span to MAX_FREQUENCY, without
    those near whole cycles a day; of its highest peaks, refined by golden section, the one whose harmonics
    explain most. The probability is that of the highest peak of noise.
    Source: Lomb 1976, Ap&SS 39, 447; Zechmeister & Kürster 2009, A&A 496, 577 (floating mean); bands joined
    by their chi2: VanderPlas & Ivezić 2015, ApJ 812, 18.
    """
    rows = (starts.shape[0] - 1) // 2
    result = np.full((rows, 3), np.nan)
    for row in range(rows):
        first, middle, end = starts[2 * row], starts[2 * row + 1], starts[2 * row + 2]
        if end - middle < MIN_BAND_POINTS:
            end = middle
        count, bands = end - first, 1 + (end > middle)
        if count < MIN_POINTS:
            continue
        t, y = time[first:end], flux[first:end]
        w = 1.0 / err[first:end] ** 2
        whole = np.array([0, middle - first, count])[: bands + 1]
        span = t.max() - t.min()
        scatter = _scatter(y, w, whole)
        if not (span >= MIN_SPAN_DAYS and scatter > 0.0 and np.isfinite(scatter)):
            continue
        frequency = _best_frequency(t, y, w, whole, span)
        if not frequency > 0.0:
            continue
        z = min(_power_at(t, y, w, whole, frequency) / scatter, 1.0)
        result[row, 0], result[row, 1] = 1.0 / frequency, z
        result[row, 2] = log10_false_alarm(z, count, bands, MAX_FREQUENCY * span - 1.0)
    return result


@compiled
def _best_frequency(t: F64, y: F64, w: F64, whole: I64, span: float) -> float:
    """The frequency [1 / day] of the peak whose harmonics explain most, 0 if there is no peak.

    whole : bounds of the bands. Of the peaks that are SERIOUS as sinusoids: what is a sinusoid's alias of a
    day or a year has other harmonics.
    """
    step = 1.0 / (OVERSAMPLING * span)
    peaks, power = _peaks(t, y, w, whole, span, step)
    best, highest = 0.0, 0.0
    for k in range(peaks.shape[0]):
        if power[k] > SERIOUS * power.max():
            begin = int((peaks[k] / step - 1.0) * FINER)
            around = periodogram(t, y, w, whole, step / FINER, begin, 2 * FINER + 1)
            near = (begin + np.argmax(around)) * step / FINER
            explained = 0.0
            for band in range(whole.shape[0] - 1):
                i, j = whole[band], whole[band + 1]
                explained += harmonics_chi2(t[i:j], y[i:j], w[i:j], near, HARMONICS)
            if explained > highest:
                best, highest = near, explained
    return _refine(t, y, w, whole, best - step / FINER, best + step / FINER) if best > 0.0 else 0.0


@compiled
def _peaks(t: F64, y: F64, w: F64, whole: I64, span: float, step: float) -> tuple[F64, F64]:
    """Frequencies [1 / day] of the highest peaks and their power; power 0 where there are fewer."""
    window = min(span, MAX_WORK / (OVERSAMPLING * MAX_FREQUENCY * t.shape[0]))
    coherent = window >= span
    slow = int(MAX_FREQUENCY / step) if coherent else int(SLOW_CYCLES / window / step)
    power = periodogram(t, y, w, whole, step, 1, slow)
    found = _highest_peaks(power, step, 1, CANDIDATES)
    frequency, height = np.zeros(2 * CANDIDATES), np.zeros(2 * CANDIDATES)
    for k in range(CANDIDATES):
        if found[k] > 0:
            frequency[k], height[k] = found[k] * step, power[found[k] - 1]
    if coherent:
        return frequency, height
    wide = 1.0 / (OVERSAMPLING * window)
    first = int(SLOW_CYCLES / window / wide) - 1
    summed = periodogram(t, y, w, _windows(t, whole, window), wide, first, int(MAX_FREQUENCY / wide) - first)
    found = _highest_peaks(summed, wide, first, CANDIDATES)
    for k in range(CANDIDATES):
        if found[k] > 0:
            begin = int((found[k] - 1) * wide / step)
            near = periodogram(t, y, w, whole, step, begin, int(2.0 * wide / step) + 2)
            j = np.argmax(near)
            frequency[CANDIDATES + k], height[CANDIDATES + k] = (begin + j) * step, near[j]
    return frequency, height


@compiled
def _windows(t: F64, whole: I64, window: float) -> I64:
    """Bounds of stretches of up to `window` days within each band."""
    bounds = np.zeros(t.shape[0] + 1, dtype=np.int64)
    count = 0
    for band in range(whole.shape[0] - 1):
        begin = whole[band]
        for i in range(whole[band], whole[band + 1]):
            if t[i] - t[begin] > window:
                count += 1
                bounds[count] = begin = i
        count += 1
        bounds[count] = whole[band + 1]
    return bounds[: count + 1].copy()


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
def _scatter(y: F64, w: F64, bounds: I64) -> float:
    """Chi2 about the weighted mean of each group."""
    total = 0.0
    for group in range(bounds.shape[0] - 1):
        value, weight = y[bounds[group] : bounds[group + 1]], w[bounds[group] : bounds[group + 1]]
        mean = (weight * value).sum() / weight.sum()
        total += (weight * (value - mean) ** 2).sum()
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def periodogram(t, y, w, bounds, step, first, grid):  # type: ignore[no-untyped-def]
    """Chi2 that a floating-mean sinusoid of its own in each group removes, at (first + j) * step, j < grid.

    t, y, w : (m,) time, flux, 1 / error^2;  bounds : (groups+1,) where they begin and end; a group with fewer
    than MIN_BAND_POINTS points is left out: a sinusoid fits any.
    The phase of each point is advanced by a rotation from one frequency to the next, not by sines.
    """
    power = np.zeros(grid)
    for group in range(bounds.shape[0] - 1):
        begin, end = bounds[group], bounds[group + 1]
        if end - begin < MIN_BAND_POINTS:
            continue
        angle = 2.0 * np.pi * step * t[begin:end]
        turn_c, turn_s = np.cos(angle), np.sin(angle)
        c, s = np.cos((first - 1) * angle), np.sin((first - 1) * angle)
        weight = w[begin:end]
        total = weight.sum()
        value = weight * (y[begin:end] - (weight * y[begin:end]).sum() / total)
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
    return power


@compiled
def _power_at(t: F64, y: F64, w: F64, bounds: I64, frequency: float) -> float:
    """The periodogram at one frequency."""
    return float(periodogram(t, y, w, bounds, frequency, 1, 1)[0])


@compiled
def _highest_peaks(power: F64, step: float, first: int, count: int) -> I64:
    """The grid's highest local maxima away from whole cycles a day, as multiples of its step; 0 for none.

    power : (k,) at (first + j) * step;  returns (count,), highest first. A maximum only: the foot of a masked
    peak is no period. Nothing is slower than 1 / span, OVERSAMPLING steps of the grid.
    """
    half = max(ALIAS_HALF_WIDTH, 0.5 * OVERSAMPLING * step)
    best, highest = np.zeros(count, dtype=np.int64), np.zeros(count)
    for j in range(max(int(OVERSAMPLING) - first, 1), power.shape[0] - 1):
        if power[j] <= highest[-1] or power[j] < power[j - 1] or power[j] < power[j + 1]:
            continue
        frequency = (first + j) * step
        nearest = np.round(frequency)
        if nearest >= 1.0 and abs(frequency - nearest) < half:
            continue
        k = count - 1
        while k > 0 and highest[k - 1] < power[j]:
            highest[k], best[k] = highest[k - 1], best[k - 1]
            k -= 1
        highest[k], best[k] = power[j], first + j
    return best


@compiled
def _refine(t: F64, y: F64, w: F64, bounds: I64, low: float, high: float) -> float:
    """The frequency of the highest power between two, by golden section."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    power_left, power_right = _power_at(t, y, w, bounds, left), _power_at(t, y, w, bounds, right)
    for _ in range(REFINEMENTS):
        if power_left >= power_right:
            high, right, power_right = right, left, power_left
            left = high - _GOLDEN * (high - low)
            power_left = _power_at(t, y, w, bounds, left)
        else:
            low, left, power_left = left, right, power_right
            right = low + _GOLDEN * (high - low)
            power_right = _power_at(t, y, w, bounds, right)
    return 0.5 * (low + high)


@compiled
def fourier_shape(time: F64, flux: F64, err: F64, starts: I64, period: F64) -> F64:
    """Shape of the cycle in the best-sampled band, from three harmonics of the period.

    Arguments as `best_period`;  period : (n,) [day]. Returns (n, 5): amplitude A1 [nJy], A2/A1, A3/A1, and
    phi2 - 2 phi1, phi3 - 3 phi1 [rad, 0..2 pi), of f = f0 + sum A_k cos(2 pi k t / P + phi_k); NaN where
    there is no period or MIN_POINTS is not reached.  Source: Simon & Lee 1981, ApJ 248, 291.
    """
    result = np.full((period.shape[0], 5), np.nan)
    for row in range(period.shape[0]):
        first, end = starts[2 * row], starts[2 * row + 1]
        if not period[row] > 0.0 or end - first < MIN_POINTS:
            continue
        t, y, w = time[first:end], flux[first:end], 1.0 / err[first:end] ** 2
        normal, right, _ = normal_equations(t, y, w, 1.0 / period[row], HARMONICS)
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
