"""A rise and a decline fitted to the fluxes: Bazin's function, one shape for both bands."""

from __future__ import annotations

import numpy as np

from broker.astro.bands import BAND_INDEX
from broker.features.harmonics import solve_symmetric
from broker.features.measurements import F64, FEATURE_BANDS, I64
from broker.features.series import Series
from broker.measured import compiled

MIN_POINTS = 6
"""One more than the parameters of two bands."""
LOG_RISE = (np.log(0.2), np.log(200.0))
"""Bounds of ln(rise time / day)."""
LOG_RATIO = (-3.0, 7.0)
"""Bounds of ln(decline time / rise time - 1)."""
START_RISE = (1.0, 3.0, 8.0, 25.0)
START_FALL = (6.0, 20.0, 60.0, 200.0)
START_DELAY = (-1.0, 0.0, 2.0)
"""Where fits begin: rise and decline times [day], and peak after the brightest point in units of the rise."""
STEPS = 40
TOLERANCE = 1e-6
BEYOND = 3.0
"""The peak may lie this many rise times after, or decline times before, the points."""
EXTRAPOLATED = 100.0
"""A peak flux so many times the largest flux seen in its band is no measurement."""
_WIDTH = 3


def model_fit(s: Series) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    fit = fit_bazin(s.time, s.flux, s.err, s.starts)
    peaks = {f"fit_peak_flux_{name}": _of_band(s, name, fit[:, 3:5]) for name in FEATURE_BANDS}
    peak_errors = {f"fit_peak_flux_{name}_err": _of_band(s, name, fit[:, 10:12]) for name in FEATURE_BANDS}
    return {
        "fit_days_since_peak": 0.0 - fit[:, 0],
        "fit_rise_days": fit[:, 1],
        "fit_fall_days": fit[:, 2],
        **peaks,
        "fit_chi2": fit[:, 5],
        "fit_gain": fit[:, 6],
        "fit_days_since_peak_err": fit[:, 7],
        "fit_rise_days_err": fit[:, 8],
        "fit_fall_days_err": fit[:, 9],
        **peak_errors,
    }


def _of_band(s: Series, name: str, both: F64) -> F64:
    """(n,) what belongs to a band of the two that were fitted (n, 2); NaN if it is neither."""
    second = np.where(s.band[:, 1] == BAND_INDEX[name], both[:, 1], np.nan)
    return np.where(s.band[:, 0] == BAND_INDEX[name], both[:, 0], second)


@compiled
def fit_bazin(time: F64, flux: F64, err: F64, starts: I64) -> F64:
    """Bazin's function through both bands, with common times and a peak flux for each band.

    time : (m,) [day];  flux, err : (m,) [nJy], err > 0;  starts : (2n+1,) the two bands of n rows.
    Returns (n, 12): time of the peak [day, as `time`], rise and decline times [day], peak flux of the first
    and of the second band [nJy], chi2 per degree of freedom, and the share of the chi2 about each band's mean
    that the fit removes (near 1: it is such a transient; <= 0: a constant does as well); then the standard
    errors of the first five. NaN where there are fewer than MIN_POINTS points, or not more than parameters.
    The errors follow from those of the fluxes and the curvature of chi2 at its least: they know neither of
    other minima nor of a wrong model (look at chi2); NaN if a time lies at its bound, or does not matter.
    f = A exp(-(t - t0)/fall) / (1 + exp(-(t - t0)/rise)); no offset: the difference flux is 0 without it.
    Peak fluxes follow linearly from the times; those by Levenberg and Marquardt's method from the best of a
    grid of beginnings.  Source: Bazin et al. 2009, A&A 499, 653.
    """
    rows = (starts.shape[0] - 1) // 2
    result = np.full((rows, 12), np.nan)
    for row in range(rows):
        first, middle, end = starts[2 * row], starts[2 * row + 1], starts[2 * row + 2]
        count, split = end - first, middle - first
        bands = 1 + (end > middle)
        free = count - _WIDTH - bands
        if count < MIN_POINTS or free < 1:
            continue
        t, y, w = time[first:end].copy(), flux[first:end].copy(), 1.0 / err[first:end]
        y *= w
        theta, chi2 = _descend(t, y, w, split, _beginning(t, y, w, split))
        if not np.isfinite(chi2):
            continue
        constant = _chi2_about_mean(y[:split], w[:split]) + _chi2_about_mean(y[split:], w[split:])
        scratch = np.empty(count)
        rise = np.exp(theta[1])
        result[row, 0], result[row, 1] = theta[0], rise
        result[row, 2] = rise * (1.0 + np.exp(theta[2]))
        peaks = _residuals(t, y, w, split, theta, scratch)
        result[row, 3] = _measured(peaks[0], y[:split], w[:split])
        result[row, 4] = _measured(peaks[1], y[split:], w[split:])
        result[row, 5] = chi2 / free
        result[row, 6] = 1.0 - chi2 / constant if constant > 0.0 else np.nan
        result[row, 7:] = _errors(t, y, w, split, theta)
        for band in range(2):
            if np.isnan(result[row, 3 + band]):
                result[row, 10 + band] = np.nan
    return result


@compiled
def _errors(t: F64, y: F64, w: F64, split: int, theta: F64) -> F64:
    """Standard errors of the time of the peak, rise and decline times and both peak fluxes, (5,).

    The inverse of the slopes' squares is the times' covariance with the peak fluxes left free; to the error
    that a peak flux has at fixed times comes what the times' errors do to it.
    """
    result = np.full(5, np.nan)
    inside = LOG_RISE[0] < theta[1] < LOG_RISE[1] and LOG_RATIO[0] < theta[2] < LOG_RATIO[1]
    slopes, moves = _slopes(t, y, w, split, theta)
    squares = slopes @ slopes.T
    covariance = np.empty((_WIDTH, _WIDTH))
    for k in range(_WIDTH):
        unit = np.zeros(_WIDTH)
        unit[k] = 1.0
        if not inside or not solve_symmetric(squares.copy(), unit):
            return result
        covariance[k] = unit
    rise, ratio = np.exp(theta[1]), np.exp(theta[2])
    to_fall = np.array([0.0, rise * (1.0 + ratio), rise * ratio])
    result[0] = np.sqrt(covariance[0, 0])
    result[1] = rise * np.sqrt(covariance[1, 1])
    result[2] = np.sqrt(to_fall @ covariance @ to_fall)
    scratch = np.empty(t.shape[0])
    first = 0
    for band, end in enumerate((split, t.shape[0])):
        if end > first:
            for i in range(first, end):
                scratch[i] = w[i] * _bazin(t[i], theta)
            square = (scratch[first:end] ** 2).sum()
            own = moves[:, band].copy()
            if square > 0.0:
                result[3 + band] = np.sqrt(1.0 / square + own @ covariance @ own)
        first = end
    return result


@compiled
def _slopes(t: F64, y: F64, w: F64, split: int, theta: F64) -> tuple[F64, F64]:
    """By how much each of theta moves the residuals (3, m) and both peak fluxes (3, 2), by differences."""
    slopes, moves = np.empty((_WIDTH, t.shape[0])), np.zeros((_WIDTH, 2))
    before, after = np.empty(t.shape[0]), np.empty(t.shape[0])
    for k in range(_WIDTH):
        step = 1e-4 * (np.exp(theta[1]) if k == 0 else 1.0)
        moved = theta.copy()
        moved[k] += step
        high = _residuals(t, y, w, split, moved, after)
        moved[k] -= 2.0 * step
        low = _residuals(t, y, w, split, moved, before)
        slopes[k] = (after - before) / (2.0 * step)
        for band in range(2):
            moves[k, band] = (high[band] - low[band]) / (2.0 * step)
    return slopes, moves


@compiled
def _bazin(t: float, theta: F64) -> float:
    """Bazin's function with a peak of 1.  theta : time of the peak, ln rise, ln(fall / rise - 1)."""
    rise = np.exp(theta[1])
    slow = 1.0 + np.exp(theta[2])
    x = (t - theta[0]) / rise + theta[2]
    x = min(max(x, -300.0), 300.0 * slow)
    # exp(-x/slow) / (1 + exp(-x)) over its value at the peak, where x = ln(fall / rise - 1).
    value = np.exp(-(x - theta[2]) / slow) * (1.0 + np.exp(-theta[2])) / (1.0 + np.exp(-x))
    return float(value)


@compiled
def _residuals(t: F64, y: F64, w: F64, split: int, theta: F64, out: F64) -> tuple[float, float]:
    """What a model leaves, in sigma, into `out`; gives the two peak fluxes that leave least.

    y : flux / error;  w : 1 / error;  split : where the second band begins.
    """
    peaks = (np.nan, np.nan)
    first = 0
    for end in (split, t.shape[0]):
        if end == first:
            continue
        product, square = 0.0, 0.0
        for i in range(first, end):
            out[i] = w[i] * _bazin(t[i], theta)
            product += out[i] * y[i]
            square += out[i] * out[i]
        peak = product / square if square > 0.0 else 0.0
        for i in range(first, end):
            out[i] = y[i] - peak * out[i]
        peaks = (peak, np.nan) if end == split else (peaks[0], peak)
        first = end
    return peaks


@compiled
def _measured(peak: float, y: F64, w: F64) -> float:
    """A peak flux; NaN if the points of its band are all so far from the peak that they do not tell."""
    largest = 0.0
    for i in range(y.shape[0]):
        largest = max(largest, abs(y[i] / w[i]))
    return peak if abs(peak) <= EXTRAPOLATED * largest else np.nan


@compiled
def _chi2_about_mean(y: F64, w: F64) -> float:
    """Chi2 of a constant.  y : flux / error;  w : 1 / error."""
    if y.shape[0] == 0:
        return 0.0
    mean = (w * y).sum() / (w * w).sum()
    return float(((y - mean * w) ** 2).sum())


@compiled
def _beginning(t: F64, y: F64, w: F64, split: int) -> F64:
    """The best of a grid of models around the brightest point, brightness in units of each band's largest."""
    brightest = t[np.argmax(y[:split] / w[:split])]
    out, theta = np.empty(t.shape[0]), np.empty(_WIDTH)
    best, least = np.array([brightest, 1.0, 1.0]), np.inf
    for rise in START_RISE:
        for fall in START_FALL:
            if fall <= 1.5 * rise:
                continue
            for delay in START_DELAY:
                theta[0], theta[1] = brightest + delay * rise, np.log(rise)
                theta[2] = np.log(fall / rise - 1.0)
                _residuals(t, y, w, split, theta, out)
                chi2 = (out * out).sum()
                if chi2 < least:
                    least = chi2
                    best[:] = theta
    return best


@compiled
def _descend(t: F64, y: F64, w: F64, split: int, theta: F64) -> tuple[F64, float]:
    """Levenberg and Marquardt's descent of chi2 over the three times, the peak fluxes projected out."""
    count = t.shape[0]
    now, trial = np.empty(count), np.empty(count)
    slopes = np.empty((_WIDTH, count))
    _residuals(t, y, w, split, theta, now)
    chi2 = (now * now).sum()
    damping = 1e-2
    early, late = t.min(), t.max()
    for _ in range(STEPS):
        for k in range(_WIDTH):
            moved = theta.copy()
            step = 1e-5 * (np.exp(theta[1]) if k == 0 else 1.0)
            moved[k] += step
            _residuals(t, y, w, split, moved, trial)
            slopes[k] = (trial - now) / step
        gained = False
        while damping < 1e8:
            matrix, right = np.empty((_WIDTH, _WIDTH)), np.empty(_WIDTH)
            for a in range(_WIDTH):
                right[a] = -(slopes[a] * now).sum()
                for b in range(_WIDTH):
                    matrix[a, b] = (slopes[a] * slopes[b]).sum()
            for a in range(_WIDTH):
                matrix[a, a] *= 1.0 + damping
            if not solve_symmetric(matrix, right):
                damping *= 10.0
                continue
            moved = theta + right
            moved[1] = min(max(moved[1], LOG_RISE[0]), LOG_RISE[1])
            moved[2] = min(max(moved[2], LOG_RATIO[0]), LOG_RATIO[1])
            rise = np.exp(moved[1])
            fall = rise * (1.0 + np.exp(moved[2]))
            moved[0] = min(max(moved[0], early - BEYOND * fall), late + BEYOND * rise)
            _residuals(t, y, w, split, moved, trial)
            trial_chi2 = (trial * trial).sum()
            if trial_chi2 < chi2:
                gained = chi2 - trial_chi2 > TOLERANCE * chi2
                theta, chi2, damping = moved, trial_chi2, 0.1 * damping
                now[:] = trial
                break
            damping *= 10.0
        if not gained:
            break
    return theta, chi2
