"""The object as it shines, reference image included, in the band of its alert: what variable stars are about.

A packet gives the reference flux of its alert's own band alone, and a point has no room for one. The period
and the shape of its cycle need none: a constant offset does not change them.
"""

from __future__ import annotations

import numpy as np

from broker.astro.photometry import njy_to_mag
from broker.features.brightness import quantile
from broker.features.measurements import F64, I64, Measurements, sorted_rows
from broker.features.shape import half_range, skew
from broker.features.variability import excess_variance, standard_deviation
from broker.measured import compiled


def total_flux(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,). NaN where the packet names no reference source."""
    mean = plain_mean(m.total_flux, m.total_starts)
    std = standard_deviation(m.total_flux, m.total_starts)
    mag, starts = known_magnitudes(m.total_flux, m.total_starts)
    ordered = sorted_rows(mag, starts)
    range_90, level_90 = range_and_level(ordered, starts, 0.05)
    return {
        "total_std": standard_deviation(mag, starts),
        "total_range_90": range_90,
        "total_level_90": level_90,
        "total_level_96": range_and_level(ordered, starts, 0.02)[1],
        "total_skew": skew(mag, starts),
        "total_mean_mag": njy_to_mag(mean),
        "total_amplitude": half_range(mag, starts),
        "total_rel_std": std / np.where(mean > 0.0, mean, np.nan),
        "total_excess_variance": excess_variance(m.total_flux, m.total_err, m.total_starts),
    }


@compiled
def plain_mean(values: F64, starts: I64) -> F64:
    """Unweighted mean.  values : (m,);  starts : (n+1,). Returns (n,) in their unit; NaN for an empty row."""
    mean = np.full(starts.shape[0] - 1, np.nan)
    for row in range(mean.shape[0]):
        if starts[row + 1] > starts[row]:
            mean[row] = values[starts[row] : starts[row + 1]].mean()
    return mean


def known_magnitudes(flux: F64, starts: I64) -> tuple[F64, I64]:
    """AB magnitudes of the positive fluxes [nJy], and where their rows begin.  starts : (n+1,)."""
    positive = flux > 0.0
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(positive)])
    return njy_to_mag(flux[positive]), before[starts]


def range_and_level(ordered: F64, starts: I64, below: float) -> tuple[F64, F64]:
    """Range without the fractions `below` at either end, and where in it the median lies, each (n,).

    ordered : (m,) ascending within each row;  starts : (n+1,). NaN where a row has fewer than 2 values, and
    for the place of the median where all are the same.
    """
    low, middle, high = (quantile(ordered, starts, fraction) for fraction in (below, 0.5, 1.0 - below))
    span = np.where(np.diff(starts) > 1, high - low, np.nan)
    return span, (middle - low) / np.where(span > 0.0, span, np.nan)
