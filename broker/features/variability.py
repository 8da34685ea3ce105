"""How much, and how irregularly, the flux varies around its mean."""

from __future__ import annotations

import numpy as np

from broker.features.brightness import weighted_mean
from broker.features.measurements import F64, I64, Measurements, compiled, split_bands


def variability(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    flux, err, starts = m.band_flux, m.band_err, m.band_starts
    centre = weighted_mean(flux, err, starts)
    return {
        **split_bands("std_flux_{b}", standard_deviation(flux, starts)),
        **split_bands("mad_flux_{b}", median_absolute_deviation(flux, starts)),
        **split_bands("reduced_chi2_{b}", reduced_chi2(flux, err, centre, starts)),
        **split_bands("excess_variance_{b}", excess_variance(flux, err, starts)),
        **split_bands("von_neumann_{b}", von_neumann(flux, starts)),
        **split_bands("stetson_k_{b}", stetson_k(flux, err, centre, starts)),
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
def median_absolute_deviation(flux: F64, starts: I64) -> F64:
    """Median distance from the median: scatter that one wild point cannot change.

    flux : (m,) [nJy];  starts : (n+1,). Returns (n,) [nJy, >= 0]; NaN where a row has fewer than 2 points.
    """
    mad = np.full(starts.shape[0] - 1, np.nan)
    for row in range(mad.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        if values.shape[0] > 1:
            mad[row] = np.median(np.abs(values - np.median(values)))
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
        rows = slice(starts[row], starts[row + 1])
        good = err[rows] > 0.0
        values, errors = flux[rows][good], err[rows][good]
        if values.shape[0] > 1 and values.mean() != 0.0:
            mean = values.mean()
            variance = ((values - mean) ** 2).sum() / (values.shape[0] - 1)
            excess[row] = (variance - (errors**2).mean()) / mean**2
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
