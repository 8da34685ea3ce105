"""The object as it shines, reference image included, in the band of its alert: what variable stars are about.

A packet gives the reference flux of its alert's own band alone, and a point has no room for one. The period
and the shape of its cycle need none: a constant offset does not change them.
"""

from __future__ import annotations

import numpy as np

from broker.astro.photometry import njy_to_mag
from broker.features.measurements import F64, I64, Measurements, compiled
from broker.features.shape import half_range
from broker.features.variability import excess_variance, standard_deviation


def total_flux(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,). NaN where the packet names no reference source."""
    mean = plain_mean(m.total_flux, m.total_starts)
    std = standard_deviation(m.total_flux, m.total_starts)
    return {
        "total_mean_mag": njy_to_mag(mean),
        "total_amplitude": half_range(njy_to_mag(m.total_flux), m.total_starts),
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
