"""Which points of a light curve count as measurements, and their layout for the feature kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from broker.astro.bands import BAND_INDEX
from broker.astro.photometry import njy_err_to_mag_err, njy_to_mag
from broker.lightcurves import DETECTION, FLAG_UNUSED, FLAG_WITHDRAWN, FORCED, LIMIT, LightCurves

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

FEATURE_BANDS = ("g", "r")
"""Bands with features of their own; detections in every band count in the features without a band."""
SAME_EXPOSURE_DAYS = 1e-4
"""Points of one band closer than this (8.6 s) are one exposure."""
UNUSED = 255
"""Role of a point that no feature looks at."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a kernel once (kept on disk), without the interpreter lock, with NaN for 0/0."""
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@dataclass(frozen=True)
class Measurements:
    """Detections of n objects, of all bands and by band, and every point with its role.

    Times are days relative to each row's reference (so <= 0, and a shift of the clock changes nothing);
    fluxes are nJy, magnitudes AB. Each group has `starts` as LightCurves has: rows of the `band_*` group
    are the n objects in g, then the n objects in r. Magnitudes are NaN where the flux is not positive.
    """

    point_time: F64
    point_flux: F64
    point_err: F64
    role: U8
    """DETECTION, FORCED or LIMIT; UNUSED for all else."""
    point_starts: I64

    time: F64
    flux: F64
    starts: I64

    band_time: F64
    band_flux: F64
    band_err: F64
    band_mag: F64
    band_mag_err: F64
    band_starts: I64

    def __len__(self) -> int:
        return len(self.starts) - 1


def measure(curves: LightCurves, ref_mjd: F64) -> Measurements:
    """One measurement an exposure, none later than the reference, none doubtful or withdrawn.

    curves : n rows, time-ordered;  ref_mjd : (n,) [MJD, TAI]. A detection needs a finite flux. In an exposure
    with several points of a band the detection is kept before the forced point, else the first.
    """
    points, starts = curves.points, np.asarray(curves.starts, dtype=np.int64)
    time = points["midpoint_mjd_tai"] - np.repeat(np.asarray(ref_mjd, dtype=np.float64), np.diff(starts))
    # astype copies always: a read-only or strided view would make numba compile another variant.
    flux, err = points["psf_flux"].astype(np.float64), points["psf_flux_err"].astype(np.float64)
    err = np.where(np.isfinite(err), err, np.nan)
    band, kind, flags = points["band"].astype(np.uint8), points["kind"].astype(np.uint8), points["flags"]
    doubtful = (flags & (FLAG_UNUSED | FLAG_WITHDRAWN)) != 0
    role = roles(time, flux, band, kind, doubtful, starts)
    keep = role == DETECTION
    detections = _select(keep, time, flux, starts=starts)
    by_band = [
        _select(keep & (band == BAND_INDEX[name]), time, flux, err, starts=starts) for name in FEATURE_BANDS
    ]
    band_flux = np.concatenate([columns[1] for columns, _ in by_band])
    band_err = np.concatenate([columns[2] for columns, _ in by_band])
    return Measurements(
        point_time=time,
        point_flux=flux,
        point_err=err,
        role=role,
        point_starts=starts,
        time=detections[0][0],
        flux=detections[0][1],
        starts=detections[1],
        band_time=np.concatenate([columns[0] for columns, _ in by_band]),
        band_flux=band_flux,
        band_err=band_err,
        band_mag=njy_to_mag(band_flux),
        band_mag_err=njy_err_to_mag_err(band_flux, band_err),
        band_starts=_chain([rows for _, rows in by_band]),
    )


def row_counts(mask: npt.NDArray[np.bool_], starts: I64) -> I64:
    """How many of each row's values are true.  mask : (m,);  starts : (n+1,);  returns (n,)."""
    return np.diff(_starts_of(mask, starts))


def split_bands(name: str, values: F64) -> dict[str, F64]:
    """(2n,) values of the g rows and the r rows as two named columns; '{b}' in the name is the band."""
    parts = np.split(values, len(FEATURE_BANDS))
    return {name.format(b=band): part for band, part in zip(FEATURE_BANDS, parts, strict=True)}


def _select(keep: npt.NDArray[np.bool_], *columns: F64, starts: I64) -> tuple[list[F64], I64]:
    return [column[keep] for column in columns], _starts_of(keep, starts)


def _starts_of(keep: npt.NDArray[np.bool_], starts: I64) -> I64:
    """Row boundaries after only the points of the mask are kept."""
    total = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=total[1:])
    return total[starts]


def _chain(parts: list[I64]) -> I64:
    """Row boundaries of several ragged columns laid one after the other."""
    lengths = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


@compiled
def roles(time: F64, flux: F64, band: U8, kind: U8, doubtful: npt.NDArray[np.bool_], starts: I64) -> U8:
    """What each point counts as: DETECTION, FORCED, LIMIT or UNUSED.

    time : (m,) [day, relative to the reference], ordered within a row;  flux : (m,) [nJy];  the rest (m,).
    """
    role = np.full(time.shape[0], UNUSED, dtype=np.uint8)
    for row in range(starts.shape[0] - 1):
        for i in range(starts[row], starts[row + 1]):
            late = not (time[i] <= SAME_EXPOSURE_DAYS)
            if late or doubtful[i] or kind[i] > LIMIT or (kind[i] != LIMIT and not np.isfinite(flux[i])):
                continue
            role[i] = kind[i]
        for i in range(starts[row], starts[row + 1]):
            if role[i] == DETECTION or role[i] == FORCED:
                _drop_repeats(i, starts[row + 1], time, band, role)
    return role


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
