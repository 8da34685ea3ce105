"""The distribution of the fluxes: range, asymmetry, tails."""

from __future__ import annotations

import numpy as np

from broker.features.measurements import F64, I64, Measurements, compiled, split_bands


def shape(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    amplitudes = split_bands("amplitude_{b}", half_range(m.band_mag, m.band_starts))
    return {
        **amplitudes,
        "amplitude": np.fmax(amplitudes["amplitude_g"], amplitudes["amplitude_r"]),
        **split_bands("skew_{b}", skew(m.band_flux, m.band_starts)),
        **split_bands("beyond_1_std_{b}", beyond_one_std(m.band_flux, m.band_starts)),
    }


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
