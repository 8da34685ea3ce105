"""When the object was seen and not seen: counts, ages, limits."""

from __future__ import annotations

import numpy as np

from broker.astro.photometry import njy_err_to_limit
from broker.features.measurements import F64, I64, OTHER_BANDS, U8, Measurements, row_counts, split_bands
from broker.lightcurves import FORCED, LIMIT
from broker.measured import NIGHT_GAP_DAYS, compiled

SEEN_SIGMA = 3.0
"""A forced measurement below this significance shows that the object was not seen."""


def cadence(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    detections = np.diff(m.starts).astype(np.float64)
    first = first_time(m.time, m.starts)
    limits = last_limit(m.point_time, m.point_flux, m.point_err, m.role, m.point_starts, first)
    negative = row_counts(m.flux < 0.0, m.starts)
    return {
        "n_detections": detections,
        "n_nights": nights(m.time, m.starts),
        "n_forced": row_counts(m.role == FORCED, m.point_starts).astype(np.float64),
        "age_days": 0.0 - first,
        "frac_negative": negative / np.where(detections > 0, detections, np.nan),
        "last_limit_mag": njy_err_to_limit(limits[:, 1]),
        "last_limit_age_days": 0.0 - limits[:, 0],
        "forced_snr_before": forced_snr_before(
            m.point_time, m.point_flux, m.point_err, m.role, m.point_starts, first
        ),
        **split_bands("n_det_{b}", np.diff(m.band_starts).astype(np.float64)),
        **split_bands("n_det_{b}", np.diff(m.other_starts).astype(np.float64), OTHER_BANDS),
    }


@compiled
def first_time(time: F64, starts: I64) -> F64:
    """Time of the first detection: where an object's age begins.

    time : (m,) [day], ordered within each row;  starts : (n+1,);  returns (n,) [day]; NaN for an empty row.
    """
    first = np.full(starts.shape[0] - 1, np.nan)
    for row in range(first.shape[0]):
        if starts[row + 1] > starts[row]:
            first[row] = time[starts[row]]
    return first


@compiled
def nights(time: F64, starts: I64) -> F64:
    """On how many nights the object was detected: two or more tell it from a passing asteroid.

    time : (m,) [day], ordered within each row;  starts : (n+1,);  returns (n,) [count]; 0 for an empty row.
    A night ends where the next detection is more than NIGHT_GAP_DAYS later.
    """
    count = np.zeros(starts.shape[0] - 1)
    for row in range(count.shape[0]):
        for i in range(starts[row], starts[row + 1]):
            if i == starts[row] or time[i] - time[i - 1] > NIGHT_GAP_DAYS:
                count[row] += 1.0
    return count


@compiled
def last_limit(time: F64, flux: F64, err: F64, role: U8, starts: I64, first: F64) -> F64:
    """When and how deep the place was last seen empty before the first detection.

    time [day], flux, err [nJy], role : (m,) all points, ordered;  first : (n,) first detection [day].
    Returns (n, 2): time [day] and one-sigma error [nJy] of the latest upper limit, or forced measurement
    below SEEN_SIGMA, before the first detection; NaN where there is none. A point needs an error > 0.
    """
    limit = np.full((first.shape[0], 2), np.nan)
    for row in range(first.shape[0]):
        for i in range(starts[row], starts[row + 1]):
            empty = role[i] == LIMIT or (role[i] == FORCED and flux[i] < SEEN_SIGMA * err[i])
            if empty and err[i] > 0.0 and time[i] < first[row]:
                limit[row, 0] = time[i]
                limit[row, 1] = err[i]
    return limit


@compiled
def forced_snr_before(time: F64, flux: F64, err: F64, role: U8, starts: I64, first: F64) -> F64:
    """Significance of the mean forced flux before the first detection: a precursor, or a poor template.

    Arguments as `last_limit`. Returns (n,) [sigma, signed]; NaN without forced points before.
    sum(f / e^2) / sqrt(sum(1 / e^2)): the inverse-variance mean over its error.
    """
    snr = np.full(first.shape[0], np.nan)
    for row in range(first.shape[0]):
        weighted, weight = 0.0, 0.0
        for i in range(starts[row], starts[row + 1]):
            if role[i] == FORCED and err[i] > 0.0 and time[i] < first[row]:
                weighted += flux[i] / err[i] ** 2
                weight += 1.0 / err[i] ** 2
        if weight > 0.0:
            snr[row] = weighted / np.sqrt(weight)
    return snr
