"""Does the flux wander like an active nucleus: the damped random walk that describes it best."""

from __future__ import annotations

import numpy as np

from broker.features.measurements import F64, I64
from broker.features.series import Series
from broker.measured import compiled

MIN_POINTS = 10
TAU_STEPS = 12
SIGMA_STEPS = 10
"""The first grid: relaxation times and amplitudes, evenly spaced in their logarithms."""
SHORTEST_TAU_DAYS = 0.3
LONGEST_TAU_SPANS = 10.0
"""A relaxation time much longer than the series cannot be told from a longer one."""
SIGMA_RANGE = (0.1, 10.0)
"""Amplitudes tried, in units of the standard deviation of the fluxes."""
REFINEMENTS = 4


def random_walk(s: Series) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    walk = fit_walk(s.time, s.flux, s.err, s.starts)
    return {"drw_tau_days": walk[:, 0], "drw_sigma": walk[:, 1], "drw_gain": walk[:, 2]}


@compiled
def fit_walk(time: F64, flux: F64, err: F64, starts: I64) -> F64:
    """Relaxation time and amplitude of the most likely damped random walk in the best-sampled band.

    time : (m,) ordered [day];  flux, err : (m,) [nJy], err > 0;  starts : (2n+1,) the two bands of n rows.
    Returns (n, 3): tau [day], sigma [nJy] (standard deviation on long time scales), and by how much the log
    likelihood exceeds that of white noise of the best amplitude (>= 0 up to the grid: correlated); NaN where
    a row has fewer than MIN_POINTS points or no scatter. Covariance sigma^2 exp(-|dt| / tau) plus the errors.
    Source: Kelly, Bechtold & Siemiginowska 2009, ApJ 698, 895.
    """
    rows = (starts.shape[0] - 1) // 2
    result = np.full((rows, 3), np.nan)
    for row in range(rows):
        t = time[starts[2 * row] : starts[2 * row + 1]]
        y = flux[starts[2 * row] : starts[2 * row + 1]]
        e = err[starts[2 * row] : starts[2 * row + 1]]
        std = y.std() if t.shape[0] >= MIN_POINTS else 0.0
        if not std > 0.0 or not np.isfinite(std) or not t[-1] > t[0]:
            continue
        y, e = (y - y.mean()) / std, e / std
        low, high = np.log(SHORTEST_TAU_DAYS), np.log(LONGEST_TAU_SPANS * max(t[-1] - t[0], 1.0))
        tau_step = (high - low) / (TAU_STEPS - 1)
        sigma_step = (np.log(SIGMA_RANGE[1]) - np.log(SIGMA_RANGE[0])) / (SIGMA_STEPS - 1)
        best, white, tau, sigma = -np.inf, -np.inf, 0.0, 0.0
        for b in range(SIGMA_STEPS):
            trial_sigma = np.log(SIGMA_RANGE[0]) + b * sigma_step
            white = max(white, log_likelihood(t, y, e, 0.0, np.exp(trial_sigma)))
            for a in range(TAU_STEPS):
                likely = log_likelihood(t, y, e, np.exp(low + a * tau_step), np.exp(trial_sigma))
                if likely > best:
                    best, tau, sigma = likely, low + a * tau_step, trial_sigma
        for _ in range(REFINEMENTS):
            tau_step, sigma_step = 0.5 * tau_step, 0.5 * sigma_step
            centre_tau, centre_sigma = tau, sigma
            for a in range(-1, 2):
                for b in range(-1, 2):
                    trial_tau = min(max(centre_tau + a * tau_step, low), high)
                    trial_sigma = centre_sigma + b * sigma_step
                    likely = log_likelihood(t, y, e, np.exp(trial_tau), np.exp(trial_sigma))
                    if likely > best:
                        best, tau, sigma = likely, trial_tau, trial_sigma
        result[row, 0], result[row, 1], result[row, 2] = np.exp(tau), std * np.exp(sigma), best - white
    return result


@compiled
def log_likelihood(time: F64, flux: F64, err: F64, tau: float, sigma: float) -> float:
    """Log likelihood of fluxes under a damped random walk about the most likely mean, without its constant.

    time : (m,) ordered [day];  flux, err : (m,) [nJy];  tau : [day], 0 for white noise;  sigma : [nJy].
    -1/2 (r' C^-1 r + ln det C), by a Kalman filter run over the fluxes and over ones at once: in one pass.
    """
    variance = sigma * sigma
    state_y, state_1, spread = 0.0, 0.0, variance
    square_y, square_1, product, log_det = 0.0, 0.0, 0.0, 0.0
    for i in range(time.shape[0]):
        if i > 0:
            keep = np.exp(-(time[i] - time[i - 1]) / tau) if tau > 0.0 else 0.0
            state_y, state_1 = keep * state_y, keep * state_1
            spread = keep * keep * spread + variance * (1.0 - keep * keep)
        total = spread + err[i] * err[i]
        off_y, off_1 = flux[i] - state_y, 1.0 - state_1
        square_y += off_y * off_y / total
        square_1 += off_1 * off_1 / total
        product += off_y * off_1 / total
        log_det += np.log(total)
        gain = spread / total
        state_y, state_1 = state_y + gain * off_y, state_1 + gain * off_1
        spread *= 1.0 - gain
    return -0.5 * (square_y - product * product / square_1 + log_det)
