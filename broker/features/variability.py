"""How much, and how irregularly, the flux varies around its mean."""

from __future__ import annotations

import numpy as np

from broker.features.brightness import weighted_mean
from broker.features.measurements import F64, I64, Measurements, split_bands
from broker.measured import compiled

PAIR_DAYS = 0.5
"""A g and an r point closer than this are a pair for Stetson's J."""


def variability(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    flux, err, starts = m.band_flux, m.band_err, m.band_starts
    centre = weighted_mean(flux, err, starts)
    scatter = split_bands("reduced_chi2_{b}", reduced_chi2(flux, err, centre, starts))
    return {
        **split_bands("std_flux_{b}", standard_deviation(flux, starts)),
        **split_bands("mad_flux_{b}", median_absolute_deviation(m.band_sorted, starts)),
        **scatter,
        "reduced_chi2": np.fmax(scatter["reduced_chi2_g"], scatter["reduced_chi2_r"]),
        **split_bands("excess_variance_{b}", excess_variance(flux, err, starts)),
        **split_bands("von_neumann_{b}", von_neumann(flux, starts)),
        **split_bands("stetson_k_{b}", stetson_k(flux, err, centre, starts)),
        **split_bands("eta_e_{b}", eta_e(m.band_time, flux, starts)),
        **split_bands("cusum_{b}", cusum(flux, starts)),
        "stetson_j": stetson_j(m.band_time, flux, err, centre, starts),
    }


@compiled
def standard_deviation(flux: F64, starts: I64) -> F64:
    """Sample standard deviation of the flux: its scatter, real and noise together.

    flux : (m,) [nJy];  starts : (n+1,). Returns (n,) [nJy, >= 0]; NaN where a row has fewer than 2 points.
    """
    std = np.full(starts.shape[0] - 1, np.nan)
    for row in range(std.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        if values.shape[0] > 1:
            std[row] = np.sqrt(((values - values.mean()) ** 2).sum() / (values.shape[0] - 1))
    return std


@compiled
def median_absolute_deviation(ordered: F64, starts: I64) -> F64:
    """Median distance from the median: scatter that one wild point cannot change.

    ordered : (m,) ascending within each row [nJy];  starts : (n+1,). Returns (n,) [nJy, >= 0]; NaN where a
    row has fewer than 2 points.
    """
    mad = np.full(starts.shape[0] - 1, np.nan)
    for row in range(mad.shape[0]):
        first, count = starts[row], starts[row + 1] - starts[row]
        if count < 2:
            continue
        median = 0.5 * (ordered[first + (count - 1) // 2] + ordered[first + count // 2])
        # The distances grow outwards from the median, so taking the nearer end each time sorts them.
        left, right, before, distance = first + (count - 1) // 2, first + (count - 1) // 2 + 1, 0.0, 0.0
        for _ in range(count // 2 + 1):
            before = distance
            near_left = median - ordered[left] if left >= first else np.inf
            near_right = ordered[right] - median if right < first + count else np.inf
            distance = min(near_left, near_right)
            if near_left <= near_right:
                left -= 1
            else:
                right += 1
        mad[row] = distance if count % 2 else 0.5 * (before + distance)
    return mad


@compiled
def reduced_chi2(flux: F64, err: F64, mean: F64, starts: I64) -> F64:
    """Scatter against the errors for a constant source: near 1 if constant, large if variable.

    flux, err : (m,) [nJy];  mean : (n,) weighted mean [nJy];  starts : (n+1,).
    Returns (n,) [dimensionless, >= 0]; NaN where fewer than 2 points have an error > 0.
    sum ((f - mean) / e)^2 / (N - 1).
    """
    chi2 = np.full(starts.shape[0] - 1, np.nan)
    for row in range(chi2.shape[0]):
        total, count = 0.0, 0
        for i in range(starts[row], starts[row + 1]):
            if err[i] > 0.0:
                total += ((flux[i] - mean[row]) / err[i]) ** 2
                count += 1
        if count > 1:
            chi2[row] = total / (count - 1)
    return chi2


@compiled
def excess_variance(flux: F64, err: F64, starts: I64) -> F64:
    """Variance beyond the noise, relative to the mean: negative if the errors explain all of it.

    flux, err : (m,) [nJy];  starts : (n+1,). Returns (n,) [dimensionless]; points without an error > 0 are
    left out, NaN where fewer than 2 remain or their mean is 0.
    (s^2 - <e^2>) / mean^2.  Source: Nandra et al. 1997, ApJ 476, 70.
    """
    excess = np.full(starts.shape[0] - 1, np.nan)
    for row in range(excess.shape[0]):
        count, total, noise, square = 0, 0.0, 0.0, 0.0
        for i in range(starts[row], starts[row + 1]):
            if err[i] > 0.0:
                count, total, noise = count + 1, total + flux[i], noise + err[i] ** 2
        if count < 2 or total == 0.0:
            continue
        mean = total / count
        for i in range(starts[row], starts[row + 1]):
            if err[i] > 0.0:
                square += (flux[i] - mean) ** 2
        excess[row] = (square / (count - 1) - noise / count) / mean**2
    return excess


@compiled
def von_neumann(flux: F64, starts: I64) -> F64:
    """Ratio of point-to-point to overall variance: small if smooth, near 2 for white noise.

    flux : (m,) time-ordered within each row [nJy];  starts : (n+1,) row boundaries
    Returns (n,) [dimensionless, >= 0]; NaN where a row has fewer than 2 points or no variance.
    sum (f[k+1] - f[k])^2 / sum (f[k] - mean)^2.  Source: von Neumann 1941, Ann. Math. Stat. 12, 367.

    >>> von_neumann(np.array([1.0, 2.0, 3.0, 5.0]), np.array([0, 3, 4])).tolist()
    [1.0, nan]
    """
    eta = np.full(starts.shape[0] - 1, np.nan)
    for row in range(eta.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        total = ((values - values.mean()) ** 2).sum()
        if total > 0.0:
            eta[row] = ((values[1:] - values[:-1]) ** 2).sum() / total
    return eta


@compiled
def stetson_k(flux: F64, err: F64, mean: F64, starts: I64) -> F64:
    """Peakedness of the scatter: 0.8 for Gaussian noise, 0.9 for a sinusoid, small for a single outlier.

    flux, err : (m,) [nJy];  mean : (n,) weighted mean [nJy];  starts : (n+1,).
    Returns (n,) [dimensionless, 0..1]; NaN where fewer than 2 points have an error > 0, or no scatter.
    sum |d| / sqrt(N sum d^2), d = (f - mean) / e.  Source: Stetson 1996, PASP 108, 851.
    """
    k = np.full(starts.shape[0] - 1, np.nan)
    for row in range(k.shape[0]):
        total, square, count = 0.0, 0.0, 0
        for i in range(starts[row], starts[row + 1]):
            if err[i] > 0.0:
                residual = abs(flux[i] - mean[row]) / err[i]
                total += residual
                square += residual**2
                count += 1
        if count > 1 and square > 0.0:
            k[row] = total / np.sqrt(count * square)
    return k


@compiled
def eta_e(time: F64, flux: F64, starts: I64) -> F64:
    """Von Neumann's ratio of slopes, for uneven sampling: small if smooth, large if it jumps between points.

    time : (m,) ordered [day];  flux : (m,) [nJy];  starts : (n+1,). Returns (n,) [dimensionless, >= 0]; NaN
    where a row has fewer than 2 points, no variance or two points at one time.
    (t_N - t_1)^2 / (N - 1)^3 sum (df/dt)^2 / s^2.  Source: Kim et al. 2014, A&A 566, A43.
    """
    eta = np.full(starts.shape[0] - 1, np.nan)
    for row in range(eta.shape[0]):
        first, end = starts[row], starts[row + 1]
        count = end - first
        values = flux[first:end]
        variance = ((values - values.mean()) ** 2).sum() / (count - 1.0)
        if count < 2 or not variance > 0.0:
            continue
        total = 0.0
        for i in range(first + 1, end):
            total += ((flux[i] - flux[i - 1]) / (time[i] - time[i - 1])) ** 2
        if np.isfinite(total):
            eta[row] = (time[end - 1] - time[first]) ** 2 * total / ((count - 1.0) ** 3 * variance)
    return eta


@compiled
def cusum(flux: F64, starts: I64) -> F64:
    """Range of the cumulative sum of deviations: large if the object stays off its mean for long.

    flux : (m,) time-ordered [nJy];  starts : (n+1,). Returns (n,) [dimensionless, >= 0]; NaN where a row has
    fewer than 2 points or no variance.  max S - min S, S_k = sum_(i <= k) (f_i - mean) / (N s).
    Source: Kim et al. 2014, A&A 566, A43.
    """
    result = np.full(starts.shape[0] - 1, np.nan)
    for row in range(result.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        count, mean = values.shape[0], values.mean()
        std = np.sqrt(((values - mean) ** 2).sum() / (count - 1.0))
        if count < 2 or not std > 0.0:
            continue
        total, low, high = 0.0, np.inf, -np.inf
        for i in range(count):
            total += values[i] - mean
            low, high = min(low, total), max(high, total)
        result[row] = (high - low) / (count * std)
    return result


@compiled
def stetson_j(time: F64, flux: F64, err: F64, mean: F64, starts: I64) -> F64:
    """Variability that g and r share: near 0 for noise, large if both bands move together.

    time : (m,) ordered [day];  flux, err : (m,) [nJy];  mean : (2n,) weighted mean [nJy];  starts : (2n+1,) n
    rows of g, then n rows of r. Returns (n,) [dimensionless]; NaN where fewer than 2 pairs or single points
    remain: a point needs an error > 0 and a second one in its band.
    Over pairs of a g and an r point within PAIR_DAYS, and single points:
    sum sgn(P) sqrt|P| / count, P = d_g d_r or d^2 - 1, d = sqrt(N / (N - 1)) (f - mean) / err.
    Source: Stetson 1996, PASP 108, 851, with equal weights.
    """
    n = (starts.shape[0] - 1) // 2
    result = np.full(n, np.nan)
    for row in range(n):
        g, g_end, r, r_end = starts[row], starts[row + 1], starts[n + row], starts[n + row + 1]
        if g_end - g < 2 and r_end - r < 2:
            continue
        scale_g, scale_r = _bias(g_end - g), _bias(r_end - r)
        total, count = 0.0, 0
        while g < g_end or r < r_end:
            d_g = scale_g * (flux[g] - mean[row]) / err[g] if g < g_end else np.nan
            d_r = scale_r * (flux[r] - mean[n + row]) / err[r] if r < r_end else np.nan
            gap = time[g] - time[r] if g < g_end and r < r_end else (-np.inf if g < g_end else np.inf)
            single = d_g**2 - 1.0 if gap < 0.0 else d_r**2 - 1.0
            product = d_g * d_r if abs(gap) < PAIR_DAYS else single
            g += gap < PAIR_DAYS
            r += gap > -PAIR_DAYS
            if np.isfinite(product):
                total += np.sign(product) * np.sqrt(abs(product))
                count += 1
        if count > 1:
            result[row] = total / count
    return result


@compiled
def _bias(count: int) -> float:
    """Factor for the mean having been taken from the same points; NaN for a single one."""
    return np.sqrt(count / (count - 1.0)) if count > 1 else np.nan
