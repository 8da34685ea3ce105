"""Which points of a light curve count as measurements: one an exposure, none doubtful, none later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from broker.lightcurves import DETECTION, FLAG_UNUSED, FLAG_WITHDRAWN, FORCED, LIMIT, POINT, LightCurves

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
F32 = npt.NDArray[np.float32]

SAME_EXPOSURE_DAYS = 1e-4
"""Points of one band closer than this (8.6 s) are one exposure."""
NIGHT_GAP_DAYS = 0.5
"""A longer gap than this between detections starts a new night, whatever the site's longitude."""
UNUSED = 255
"""Role of a point that no feature looks at."""


def _place(name: str, size: int) -> int:
    """Where a field of POINT is, in units of its size."""
    return int(POINT.fields[name][1]) // size if POINT.fields else 0


_TIME, _FLUX, _ERR = _place("midpoint_mjd_tai", 8), _place("psf_flux", 4), _place("psf_flux_err", 4)
_FLAGS, _BAND, _KIND = _place("flags", 2), _place("band", 1), _place("kind", 1)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a kernel once (kept on disk), without the interpreter lock, with NaN for 0/0."""
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@dataclass(frozen=True)
class MeasuredPoints:
    """Every point of n rows as plain columns: time [day, relative to the reference], flux and error [nJy]."""

    time: F64
    flux: F64
    err: F64
    band: U8
    role: U8
    starts: I64


def reference_times(curves: LightCurves, midpoint_mjd_tai: F64) -> F64:
    """What features refer to: each alert's own time, or that of a newer point where its light curve has one.

    curves : n rows;  midpoint_mjd_tai : (n,) of the alerts;  returns (n,) [MJD, TAI]. The light curve of an
    alert ends with it; that of an alert that is judged again goes on, and ages and gaps are then those of the
    day from which the newest point is, not of the day on which somebody said something.
    """
    used = np.flatnonzero((curves.points["flags"] & FLAG_UNUSED) == 0)
    row = np.searchsorted(curves.starts, used, side="right") - 1
    times = midpoint_mjd_tai.astype(np.float64)
    np.maximum.at(times, row, curves.points["midpoint_mjd_tai"][used])
    return times


def points_with_roles(curves: LightCurves, ref_mjd: F64) -> MeasuredPoints:
    """One measurement an exposure, none later than the reference, none doubtful or withdrawn.

    curves : n rows, time-ordered;  ref_mjd : (n,) [MJD, TAI]. A detection needs a finite flux. In an exposure
    with several points of a band the detection is kept before the forced point, else the first.
    """
    points, starts = curves.points, np.asarray(curves.starts, dtype=np.int64)
    if not (points.flags.c_contiguous and points.flags.writeable):
        points = points.copy()  # of another kind of array numba would compile another variant
    time, flux, err, band, role = unpack(
        _as_rows(points, np.float64), _as_rows(points, np.float32), _as_rows(points, np.uint16),
        _as_rows(points, np.uint8), starts, np.asarray(ref_mjd, dtype=np.float64),
    )  # fmt: skip
    return MeasuredPoints(time, flux, err, band, role, starts)


def _as_rows(points: npt.NDArray[np.void], kind: type[np.generic]) -> npt.NDArray[Any]:
    """Points as rows of plain numbers, (m, 32 / size of the number), without a copy."""
    return points.view(kind).reshape(len(points), POINT.itemsize // np.dtype(kind).itemsize)


@compiled
def unpack(
    doubles: F64, singles: F32, words: U16, octets: U8, starts: I64, ref: F64
) -> tuple[F64, F64, F64, U8, U8]:
    """Points as plain columns, with what each counts as: DETECTION, FORCED, LIMIT or UNUSED.

    doubles, singles, words, octets : (m, 4), (m, 8), (m, 16), (m, 32) four views of the same points, ordered
    by time within each row;  ref : (n,) [MJD, TAI].
    Returns time [day, relative to it], flux, error [nJy; NaN if not finite], band, role.
    """
    count = doubles.shape[0]
    time, flux, err = np.empty(count), np.empty(count), np.empty(count)
    band, role = np.empty(count, dtype=np.uint8), np.empty(count, dtype=np.uint8)
    for row in range(starts.shape[0] - 1):
        for i in range(starts[row], starts[row + 1]):
            time[i] = doubles[i, _TIME] - ref[row]
            flux[i], err[i] = singles[i, _FLUX], singles[i, _ERR]
            if not np.isfinite(err[i]):
                err[i] = np.nan
            band[i], kind = octets[i, _BAND], octets[i, _KIND]
            in_time = time[i] <= SAME_EXPOSURE_DAYS
            good = in_time and not words[i, _FLAGS] & (FLAG_UNUSED | FLAG_WITHDRAWN)
            role[i] = kind if good and (kind == LIMIT or (kind < LIMIT and np.isfinite(flux[i]))) else UNUSED
        for i in range(starts[row], starts[row + 1]):
            if role[i] == DETECTION or role[i] == FORCED:
                _drop_repeats(i, starts[row + 1], time, band, role)
    return time, flux, err, band, role


@compiled
def _drop_repeats(first: int, end: int, time: F64, band: U8, role: U8) -> None:
    """Keep one of the measurements that share an exposure with `first`."""
    for j in range(first + 1, end):
        if time[j] - time[first] >= SAME_EXPOSURE_DAYS:
            return
        if role[j] > FORCED or band[j] != band[first]:
            continue
        if role[j] < role[first]:
            role[first] = UNUSED
            return
        role[j] = UNUSED
