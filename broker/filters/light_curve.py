"""What a filter can ask of an alert's light curve: how often its object was seen lately.

Only measurements that features look at count: one an exposure, none doubtful, withdrawn or later than the
alert (broker/measured.py). So `last_days` over the object's whole age is `n_detections`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from broker.astro.bands import BAND_INDEX, BANDS
from broker.lightcurves import DETECTION, FORCED
from broker.measured import F64, I64, NIGHT_GAP_DAYS, U8, MeasuredPoints, compiled

Mask = npt.NDArray[np.bool_]

_ANY_BAND = np.ones(256, dtype=np.bool_)
_OWN_BAND = {band: np.arange(256) == BAND_INDEX[band] for band in BANDS}


def last_days(points: MeasuredPoints, days: F64) -> F64:
    """How many detections the last days hold, the alert's own among them.

    points : n light curves relative to their alerts;  days : () or (n,), NaN in, NaN out;  returns (n,).
    """
    return _counts(points, days, DETECTION, _ANY_BAND)


def last_days_in(points: MeasuredPoints, band: str, days: F64) -> F64:
    """The same in one band.  band : one of BANDS"""
    return _counts(points, days, DETECTION, _OWN_BAND[band])


def forced_in_last_days(points: MeasuredPoints, days: F64) -> F64:
    """How many forced measurements without a detection in their exposure the last days hold."""
    return _counts(points, days, FORCED, _ANY_BAND)


def nights_in_last_days(points: MeasuredPoints, days: F64) -> F64:
    """On how many nights of the last days there was a detection."""
    rows = len(points.starts) - 1
    return night_counts(points.time, points.role, points.starts, _each_row(days, rows))


def _counts(points: MeasuredPoints, days: F64, role: int, bands: Mask) -> F64:
    rows = len(points.starts) - 1
    return counts(points.time, points.band, points.role, points.starts, _each_row(days, rows), role, bands)


def _each_row(days: F64, rows: int) -> F64:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(days, dtype=np.float64), (rows,)))


@compiled
def counts(time: F64, band: U8, role: U8, starts: I64, days: F64, wanted: int, bands: Mask) -> F64:
    """Points of a role, in some bands, no older than so many days.

    time, band, role : (m,), time in days relative to the alert;  starts : (n+1,);  days : (n,)
    bands : (256,) whether a band's index counts;  returns (n,), NaN where `days` is.
    """
    found = np.full(days.shape[0], np.nan)
    for row in range(found.shape[0]):
        if np.isnan(days[row]):
            continue
        found[row] = 0.0
        for i in range(starts[row], starts[row + 1]):
            found[row] += role[i] == wanted and bands[band[i]] and time[i] >= -days[row]
    return found


@compiled
def night_counts(time: F64, role: U8, starts: I64, days: F64) -> F64:
    """Nights with a detection no older than so many days; arguments and result as `counts`.

    time : ordered within each row. A night ends where the next detection is more than NIGHT_GAP_DAYS later.
    """
    found = np.full(days.shape[0], np.nan)
    for row in range(found.shape[0]):
        if np.isnan(days[row]):
            continue
        found[row], before = 0.0, -np.inf
        for i in range(starts[row], starts[row + 1]):
            if role[i] != DETECTION or time[i] < -days[row]:
                continue
            found[row] += time[i] - before > NIGHT_GAP_DAYS
            before = time[i]
    return found


def warm_up() -> None:
    """Compile the kernels, or load them from disk, before the first alert has to wait for it."""
    times, octets = np.empty(0), np.empty(0, dtype=np.uint8)
    nothing = MeasuredPoints(times, times, times, octets, octets, np.zeros(2, dtype=np.int64))
    last_days(nothing, np.asarray(1.0))
    nights_in_last_days(nothing, np.asarray(1.0))
