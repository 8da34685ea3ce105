"""The distribution of the fluxes: range, asymmetry, tails."""

from __future__ import annotations

import math

import numpy as np

from broker.features.brightness import quantile
from broker.features.measurements import F64, I64, Measurements, split_bands
from broker.measured import compiled

TINY = 1e-300
"""Smallest probability whose logarithm is taken."""
EXACT_BELOW = 3.0
"""In units of sqrt 2 std: up to here one minus the probability loses no digit that counts."""


def shape(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    amplitudes = split_bands("amplitude_{b}", half_range(m.band_mag, m.band_starts))
    return {
        **amplitudes,
        "amplitude": np.fmax(amplitudes["amplitude_g"], amplitudes["amplitude_r"]),
        **split_bands("skew_{b}", skew(m.band_flux, m.band_starts)),
        **split_bands("beyond_1_std_{b}", beyond_one_std(m.band_flux, m.band_starts)),
        **split_bands("kurtosis_{b}", kurtosis(m.band_flux, m.band_starts)),
        **split_bands("range_50_flux_{b}", quantile_range(m, 0.25)),
        **split_bands("range_80_flux_{b}", quantile_range(m, 0.1)),
        **split_bands("percentile_ratio_mid20_{b}", mid_ratio(m)),
        **split_bands("anderson_darling_{b}", anderson_darling(m.band_sorted, m.band_starts)),
    }


def quantile_range(m: Measurements, below: float) -> F64:
    """Range of flux [nJy] with a fraction `below` of the points under it and as many over it, (2n,)."""
    high, low = (quantile(m.band_sorted, m.band_starts, fraction) for fraction in (1.0 - below, below))
    return np.where(np.diff(m.band_starts) > 1, high - low, np.nan)


def mid_ratio(m: Measurements) -> F64:
    """Range of the middle 20 % of the fluxes over that of 90 %: small if most points share a level, (2n,).

    NaN where the fluxes have no range. Source: Richards et al. 2011, ApJ 733, 10.
    """
    whole = quantile_range(m, 0.05)
    return quantile_range(m, 0.4) / np.where(whole > 0.0, whole, np.nan)


@compiled
def half_range(values: F64, starts: I64) -> F64:
    """Half the difference of the largest and smallest value: the amplitude of a variable star.

    values : (m,), NaN left out;  starts : (n+1,). Returns (n,) in the unit of the values, >= 0; NaN where
    fewer than 2 values are known.
    """
    half = np.full(starts.shape[0] - 1, np.nan)
    for row in range(half.shape[0]):
        low, high, count = np.inf, -np.inf, 0
        for i in range(starts[row], starts[row + 1]):
            if not np.isnan(values[i]):
                low, high, count = min(low, values[i]), max(high, values[i]), count + 1
        if count > 1:
            half[row] = 0.5 * (high - low)
    return half


@compiled
def skew(flux: F64, starts: I64) -> F64:
    """Asymmetry of the fluxes: positive for flares and supernovae, negative for eclipses.

    flux : (m,) [nJy];  starts : (n+1,). Returns (n,) [dimensionless]; NaN where a row has fewer than 3 points
    or no variance.  N / ((N - 1)(N - 2)) sum ((f - mean) / s)^3, the adjusted Fisher-Pearson coefficient.
    Source: Joanes & Gill 1998, The Statistician 47, 183.
    """
    result = np.full(starts.shape[0] - 1, np.nan)
    for row in range(result.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        count = values.shape[0]
        offsets = values - values.mean()
        variance = (offsets**2).sum() / (count - 1)
        if count > 2 and variance > 0.0:
            result[row] = count / ((count - 1) * (count - 2)) * (offsets**3).sum() / variance**1.5
    return result


@compiled
def beyond_one_std(flux: F64, starts: I64) -> F64:
    """Fraction of points more than one standard deviation from the mean: 0.32 for Gaussian noise.

    flux : (m,) [nJy];  starts : (n+1,). Returns (n,) [0..1]; NaN where a row has fewer than 2 points.
    Source: Richards et al. 2011, ApJ 733, 10.
    """
    fraction = np.full(starts.shape[0] - 1, np.nan)
    for row in range(fraction.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        count = values.shape[0]
        if count > 1:
            offsets = np.abs(values - values.mean())
            std = np.sqrt((offsets**2).sum() / (count - 1))
            fraction[row] = (offsets > std).sum() / count
    return fraction


@compiled
def kurtosis(flux: F64, starts: I64) -> F64:
    """Weight of the tails against a Gaussian's: 0 for Gaussian, positive for rare large excursions.

    flux : (m,) [nJy];  starts : (n+1,). Returns (n,) [dimensionless]; NaN where a row has fewer than 4 points
    or no variance.  G2 of Joanes & Gill 1998, The Statistician 47, 183.
    """
    result = np.full(starts.shape[0] - 1, np.nan)
    for row in range(result.shape[0]):
        values = flux[starts[row] : starts[row + 1]]
        count = values.shape[0]
        square = (values - values.mean()) ** 2
        total = square.sum()
        if count > 3 and total > 0.0:
            spread = (count - 1.0) / ((count - 2.0) * (count - 3.0))
            result[row] = spread * (
                count * (count + 1.0) * (square**2).sum() / total**2 - 3.0 * (count - 1.0)
            )
    return result


@compiled
def anderson_darling(ordered: F64, starts: I64) -> F64:
    """Distance of the flux distribution from a Gaussian: below 0.75 (5 % level) it may well be one.

    ordered : (m,) ascending within each row [nJy];  starts : (n+1,). Returns (n,) [dimensionless, >= 0]; NaN
    where a row has fewer than 4 points or no variance.
    (1 + 4/N - 25/N^2)(-N - 1/N sum [(2i - 1) ln P(x_i) + (2(N - i) + 1) ln P(-x_i)]), P the normal
    distribution of x = (f - mean)/std.  Source: Stephens 1974, J. Am. Stat. Assoc. 69, 730.
    """
    result = np.full(starts.shape[0] - 1, np.nan)
    for row in range(result.shape[0]):
        values = ordered[starts[row] : starts[row + 1]]
        count = values.shape[0]
        mean = values.mean()
        scale = np.sqrt(2.0 * ((values - mean) ** 2).sum() / (count - 1.0))
        if count < 4 or not scale > 0.0:
            continue
        total = 0.0
        for i in range(count):
            x = (values[i] - mean) / scale
            # One wild point among thousands is so unlikely that its probability is 0 in a float.
            below = max(0.5 * math.erfc(-x), TINY)
            above = 1.0 - below if x < EXACT_BELOW else max(0.5 * math.erfc(x), TINY)
            total += (2.0 * i + 1.0) * math.log(below) + (2.0 * (count - i) - 1.0) * math.log(above)
        result[row] = (1.0 + 4.0 / count - 25.0 / count**2) * (-count - total / count)
    return result
