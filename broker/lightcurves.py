"""Light curves of many objects as flat columns: ragged rows bounded by `starts`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Points = npt.NDArray[np.void]

POINT = np.dtype(
    [
        ("midpoint_mjd_tai", "<f8"),  # MJD, TAI, mid-exposure [day]
        ("source_id", "<i8"),  # with `kind` (and band, if forced) the point's identity
        ("psf_flux", "<f4"),  # signed difference flux [nJy]; NaN for a limit
        ("psf_flux_err", "<f4"),  # one sigma [nJy]
        ("known_at", "<u4"),  # Unix second at which we could first know the point
        ("band", "u1"),  # index into astro.bands.BANDS
        ("kind", "u1"),  # DETECTION, FORCED or LIMIT
        ("flags", "<u2"),  # the FLAG_* bits below
    ]
)
"""One point, 32 bytes, little-endian: the layout in memory is the layout in Redis (history/pack.py)."""

DETECTION, FORCED, LIMIT = 0, 1, 2
KINDS = ("detection", "forced", "limit")

FLAG_OWN = 1
"""From the alert's own record; without it, a copy in a later packet's history."""
FLAG_TIME_ASSUMED = 2
"""The exposure time was not given, so mid-exposure assumes the survey's standard exposure."""
FLAG_PRIVATE = 4
"""Proprietary data: never leaves in a public topic."""
FLAG_WITHDRAWN = 8
"""The survey took this measurement back."""
FLAG_UNUSED = 16
"""Doubtful quality: kept, published with its flag, not used in features."""


@dataclass(frozen=True)
class LightCurves:
    """n light curves as one array of points.

    points : (m,) of POINT; within a row ordered by time, then kind, then source id (once merged)
    starts : (n+1,) int64 row boundaries: row i is points[starts[i]:starts[i+1]]
    """

    points: Points
    starts: I64

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> Points:
        """The points of one object."""
        return self.points[self.starts[index] : self.starts[index + 1]]

    def take(self, rows: npt.NDArray[Any]) -> LightCurves:
        """The light curves of some rows, in the order asked for.  rows : indices or boolean mask."""
        index = np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, dtype=np.int64)
        lengths = np.diff(self.starts)[index]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.arange(starts[-1]) - np.repeat(starts[:-1] - self.starts[:-1][index], lengths)
        # as plain numbers: numpy copies records field by field
        words = self.points.view(np.int64).reshape(-1, POINT.itemsize // 8)
        return LightCurves(words[flat].reshape(-1).view(POINT), starts)

    def where(self, keep: npt.NDArray[np.bool_]) -> LightCurves:
        """The points that are to be kept, in the same rows.  keep : (m,)"""
        if keep.all():
            return self
        seen = np.concatenate([[0], np.cumsum(keep)])
        return LightCurves(self.points[keep], seen[self.starts].astype(np.int64))


def empty_points(count: int) -> Points:
    """`count` points of zeros."""
    return np.zeros(count, dtype=POINT)


def empty_light_curves(rows: int) -> LightCurves:
    """`rows` light curves without a point."""
    return LightCurves(empty_points(0), np.zeros(rows + 1, dtype=np.int64))


def without_private(curves: LightCurves) -> LightCurves:
    """Light curves without the points of proprietary programmes."""
    return curves.where((curves.points["flags"] & FLAG_PRIVATE) == 0)
