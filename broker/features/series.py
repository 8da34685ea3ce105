"""The measured fluxes of an object in its two best-sampled bands: what the expensive features look at.

Detections and forced points together: a period or a model fit needs the faint phases, and detections alone
would show only the bright ones. Whatever the bands are, so that every survey's objects are served.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from broker.astro.bands import NO_BAND
from broker.features.measurements import F64, I64, U8
from broker.lightcurves import FORCED, LightCurves
from broker.measured import MeasuredPoints, compiled, points_with_roles

MAX_POINTS = 512
"""Points used a band, the newest: what bounds the time that a row can take."""


@dataclass(frozen=True)
class Series:
    """Fluxes of n objects: rows 2i and 2i+1 are object i in its best-sampled band and in the next.

    time [day, relative to the reference, ordered], flux, err [nJy, > 0] : (m,);  starts : (2n+1,);
    band : (n, 2) index into BANDS, NO_BAND where a band lacks.
    """

    time: F64
    flux: F64
    err: F64
    starts: I64
    band: U8

    def __len__(self) -> int:
        return len(self.band)


def measured_series(curves: LightCurves, ref_mjd: F64) -> Series:
    """The series of light curves as they stood at a moment.  curves : n rows;  ref_mjd : (n,) [MJD, TAI]."""
    p = points_with_roles(curves, ref_mjd)
    return Series(*best_bands(p.time, p.flux, p.err, p.band, p.role, p.starts))


def flux_counts(p: MeasuredPoints) -> I64:
    """How many measured fluxes each row has, of all bands, (n,)."""
    return usable_counts(p.err, p.role, p.starts)


@compiled
def usable_counts(err: F64, role: U8, starts: I64) -> I64:
    """Detections and forced points with an error > 0.  err [nJy], role : (m,);  starts : (n+1,)."""
    count = np.zeros(starts.shape[0] - 1, dtype=np.int64)
    for row in range(count.shape[0]):
        for i in range(starts[row], starts[row + 1]):
            count[row] += role[i] <= FORCED and err[i] > 0.0
    return count


@compiled
def best_bands(
    time: F64, flux: F64, err: F64, band: U8, role: U8, starts: I64
) -> tuple[F64, F64, F64, I64, U8]:
    """The columns of a Series: of equally sampled bands the bluer one comes first."""
    rows = starts.shape[0] - 1
    bands = np.full((rows, 2), NO_BAND, dtype=np.uint8)
    bounds = np.zeros(2 * rows + 1, dtype=np.int64)
    times, fluxes, errs = np.empty(time.shape[0]), np.empty(time.shape[0]), np.empty(time.shape[0])
    counts = np.zeros(256, dtype=np.int64)
    total = 0
    for row in range(rows):
        first, end = starts[row], starts[row + 1]
        counts[:] = 0
        for i in range(first, end):
            counts[band[i]] += role[i] <= FORCED and err[i] > 0.0
        counts[NO_BAND] = 0
        for slot in range(2):
            best = np.argmax(counts)
            if counts[best] > 0:
                bands[row, slot] = best
                skip = max(counts[best] - MAX_POINTS, 0)
                for i in range(first, end):
                    if band[i] == best and role[i] <= FORCED and err[i] > 0.0:
                        if skip > 0:
                            skip -= 1
                            continue
                        times[total], fluxes[total], errs[total] = time[i], flux[i], err[i]
                        total += 1
                counts[best] = 0
            bounds[2 * row + slot + 1] = total
    return times[:total].copy(), fluxes[:total].copy(), errs[:total].copy(), bounds, bands
