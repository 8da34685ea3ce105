"""How bright the object is and was, on the difference image."""

from __future__ import annotations

import numpy as np

from broker.astro.photometry import njy_to_mag
from broker.features.measurements import F64, I64, OTHER_BANDS, Measurements, split_bands
from broker.measured import compiled


def brightness(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    peak = peak_index(m.band_flux, m.band_starts)
    last = np.where(np.diff(m.band_starts) > 0, m.band_starts[1:] - 1, -1)
    return {
        **split_bands("peak_mag_{b}", at(m.band_mag, peak)),
        **split_bands("last_mag_{b}", at(m.band_mag, last)),
        **split_bands("max_flux_{b}", at(m.band_flux, peak)),
        **split_bands("min_flux_{b}", at(m.band_flux, peak_index(-m.band_flux, m.band_starts))),
        **split_bands("mean_flux_{b}", weighted_mean(m.band_flux, m.band_err, m.band_starts)),
        **split_bands("max_snr_{b}", max_snr(m.band_flux, m.band_err, m.band_starts)),
        **split_bands(
            "peak_mag_{b}",
            njy_to_mag(at(m.other_flux, peak_index(m.other_flux, m.other_starts))),
            OTHER_BANDS,
        ),
        **split_bands("median_flux_{b}", quantile(m.band_sorted, m.band_starts, 0.5)),
    }


def at(values: F64, index: I64) -> F64:
    """Values at some positions; NaN where the position is -1.  values : (m,);  index : (n,);  gives (n,)."""
    return np.append(values, np.nan)[index]


@compiled
def peak_index(flux: F64, starts: I64) -> I64:
    """Where each row is brightest: the first of equals; -1 for an empty row.

    flux : (m,) finite [nJy];  starts : (n+1,);  returns (n,) positions in `flux`.
    """
    peak = np.full(starts.shape[0] - 1, -1)
    for row in range(peak.shape[0]):
        for i in range(starts[row], starts[row + 1]):
            if peak[row] < 0 or flux[i] > flux[peak[row]]:
                peak[row] = i
    return peak


@compiled
def weighted_mean(flux: F64, err: F64, starts: I64) -> F64:
    """Mean flux, each point weighted by its inverse variance.

    flux, err : (m,) [nJy];  starts : (n+1,). Returns (n,) [nJy]; NaN where no point has an error > 0.
    """
    mean = np.full(starts.shape[0] - 1, np.nan)
    for row in range(mean.shape[0]):
        weighted, weight = 0.0, 0.0
        for i in range(starts[row], starts[row + 1]):
            if err[i] > 0.0:
                weighted += flux[i] / err[i] ** 2
                weight += 1.0 / err[i] ** 2
        if weight > 0.0:
            mean[row] = weighted / weight
    return mean


@compiled
def max_snr(flux: F64, err: F64, starts: I64) -> F64:
    """Significance of the most significant detection, of either sign.

    flux, err : (m,) [nJy];  starts : (n+1,). Returns (n,) [sigma, >= 0]; NaN where no point has an error > 0.
    """
    best = np.full(starts.shape[0] - 1, np.nan)
    for row in range(best.shape[0]):
        for i in range(starts[row], starts[row + 1]):
            if err[i] > 0.0 and not abs(flux[i]) / err[i] <= best[row]:
                best[row] = abs(flux[i]) / err[i]
    return best


@compiled
def quantile(ordered: F64, starts: I64, fraction: float) -> F64:
    """The value that a fraction of the points stays below.

    ordered : (m,) ascending within each row;  starts : (n+1,);  fraction : 0..1. Returns (n,) in the unit of
    the values; NaN for an empty row. Between points k - 1/2 = fraction N it is interpolated, and beyond the
    outermost it is constant: definition 5 of Hyndman & Fan 1996, Am. Stat. 50, 361.

    >>> quantile(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 4, 4]), 0.25).tolist()
    [1.5, nan]
    """
    result = np.full(starts.shape[0] - 1, np.nan)
    for row in range(result.shape[0]):
        first, count = starts[row], starts[row + 1] - starts[row]
        if count > 0:
            place = min(max(fraction * count - 0.5, 0.0), count - 1.0)
            below = int(place)
            above = min(below + 1, count - 1)
            low, high = ordered[first + below], ordered[first + above]
            result[row] = low + (place - below) * (high - low)
    return result
