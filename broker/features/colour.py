"""The colour g - r of the difference flux, and how it changes."""

from __future__ import annotations

import numpy as np

from broker.features.measurements import F64, I64, Measurements
from broker.measured import compiled

SAME_NIGHT_DAYS = 0.5
"""A g and an r detection closer than this make a colour of one night."""


def colour(m: Measurements) -> dict[str, F64]:
    """The family's columns, each (n,)."""
    latest = colour_pair(m.band_time, m.band_mag, m.band_starts, True)
    first = colour_pair(m.band_time, m.band_mag, m.band_starts, False)
    color, err, gap, time = pair_colour(m, latest)
    color_first, _, gap_first, time_first = pair_colour(m, first)
    spans = (time - time_first >= SAME_NIGHT_DAYS) & (gap < SAME_NIGHT_DAYS) & (gap_first < SAME_NIGHT_DAYS)
    rate = np.full(len(m), np.nan)
    np.divide(color - color_first, time - time_first, out=rate, where=spans)
    return {
        "color_gr": color,
        "color_gr_err": err,
        "color_gr_gap_days": gap,
        "color_gr_first": color_first,
        "color_gr_rate": rate,
    }


def pair_colour(m: Measurements, pair: I64) -> tuple[F64, F64, F64, F64]:
    """Colour g - r, its error [mag], the epochs' gap and mean time [day] of one pair a row, each (n,).

    pair : (n, 2) positions of a g and an r detection in the band columns, -1 for none (then NaN).
    """
    index_g, index_r = pair[:, 0], pair[:, 1]
    mag, err, time = (np.append(x, np.nan) for x in (m.band_mag, m.band_mag_err, m.band_time))
    return (
        mag[index_g] - mag[index_r],
        np.hypot(err[index_g], err[index_r]),
        np.abs(time[index_g] - time[index_r]),
        0.5 * (time[index_g] + time[index_r]),
    )


@compiled
def colour_pair(time: F64, mag: F64, starts: I64, latest: bool) -> I64:
    """The g and the r detection that give an object's colour: of one night if any, else the closest in time.

    time : (m,) [day], ordered within each row;  mag : (m,) [AB mag], NaN left out;  starts : (2n+1,) n rows
    of g, then n rows of r;  latest : the last night with both bands, else the first. Returns (n, 2)
    positions, -1 where a band lacks.
    """
    n = (starts.shape[0] - 1) // 2
    pair = np.full((n, 2), -1)
    for row in range(n):
        best, g = np.inf, -1
        following = _next_known(starts[row], starts[row + 1], mag)
        for r in range(starts[n + row], starts[n + row + 1]):
            if np.isnan(mag[r]):
                continue
            # Both bands are in order of time: the nearest g only moves on, and of equals the earlier stays.
            while following >= 0 and (g < 0 or abs(time[following] - time[r]) < abs(time[g] - time[r])):
                g = following
                following = _next_known(g + 1, starts[row + 1], mag)
            gap = abs(time[r] - time[g]) if g >= 0 else np.inf
            same_night = gap < SAME_NIGHT_DAYS
            if gap < best or (same_night and latest):
                pair[row, 0], pair[row, 1] = g, r
                best = min(best, gap)
            if same_night and not latest:
                break
    return pair


@compiled
def _next_known(begin: int, end: int, mag: F64) -> int:
    """Position of the first detection with a magnitude; -1 if there is none."""
    for i in range(begin, end):
        if not np.isnan(mag[i]):
            return i
    return -1
