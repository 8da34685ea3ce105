"""Which points of a light curve count as measurements, and their layout for the feature kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.astro.bands import BAND_INDEX, NO_BAND
from broker.astro.photometry import njy_err_to_mag_err, njy_to_mag
from broker.lightcurves import DETECTION, FORCED, LightCurves
from broker.measured import compiled, points_with_roles

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
F32 = npt.NDArray[np.float32]

FEATURE_BANDS = ("g", "r")
"""Bands with features of their own; detections in every band count in the features without a band."""
OTHER_BANDS = ("u", "i", "z", "y")
"""Bands with a few features: how often, how bright, how fast."""
LONG_ROW = 64
"""Rows of up to so many values are sorted by insertion, longer ones by the library, a call each."""


@dataclass(frozen=True)
class Reference:
    """What the reference image holds at each object's place, in the band of its alert.

    band : (n,) index into BANDS;  flux : (n,) [nJy], NaN where no source is within reach. A packet gives the
    reference flux of its own band alone, so total flux is known in that band alone.
    """

    band: U8
    flux: F64


@dataclass(frozen=True)
class Measurements:
    """Detections of n objects, of all bands and by band, and every point with its role.

    Times are days relative to each row's reference (so <= 0, and a shift of the clock changes nothing);
    fluxes are nJy, magnitudes AB. Each group has `starts` as LightCurves has: rows of the `band_*` group
    are the n objects in g, then the n objects in r; the `other_*` group has u, i, z and y so. Magnitudes are
    NaN where the flux is not positive.
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
    band_sorted: F64
    """`band_flux` in ascending order within each row."""

    other_time: F64
    other_flux: F64
    other_err: F64
    other_starts: I64

    total_flux: F64
    """Reference plus difference of detections and forced points in the band of the alert [nJy]."""
    total_err: F64
    """Error of the difference: the reference's own is common to all points."""
    total_starts: I64

    def __len__(self) -> int:
        return len(self.starts) - 1


def measure(curves: LightCurves, ref_mjd: F64, reference: Reference | None = None) -> Measurements:
    """The columns that the families work on.  curves, reference : n rows;  ref_mjd : (n,) [MJD, TAI]."""
    p = points_with_roles(curves, ref_mjd)
    none = Reference(np.full(len(curves), NO_BAND, dtype=np.uint8), np.full(len(curves), np.nan))
    known = reference or none
    time, flux, _, starts = by_band(p.time, p.flux, p.err, p.band, p.role, p.starts, _ALL_TOGETHER)
    band_time, band_flux, band_err, band_starts = by_band(
        p.time, p.flux, p.err, p.band, p.role, p.starts, _BAND_SLOT
    )
    rows = len(FEATURE_BANDS) * len(curves)
    end = band_starts[rows]
    total_flux, total_err, total_starts = total(
        p.flux, p.err, p.band, p.role, p.starts, known.band.astype(np.uint8), known.flux.astype(np.float64)
    )
    return Measurements(
        point_time=p.time,
        point_flux=p.flux,
        point_err=p.err,
        role=p.role,
        point_starts=p.starts,
        time=time,
        flux=flux,
        starts=starts,
        band_time=band_time[:end],
        band_flux=band_flux[:end],
        band_err=band_err[:end],
        band_mag=njy_to_mag(band_flux[:end]),
        band_mag_err=njy_err_to_mag_err(band_flux[:end], band_err[:end]),
        band_starts=band_starts[: rows + 1],
        band_sorted=sorted_rows(band_flux[:end], band_starts[: rows + 1]),
        other_time=band_time[end:],
        other_flux=band_flux[end:],
        other_err=band_err[end:],
        other_starts=band_starts[rows:] - end,
        total_flux=total_flux,
        total_err=total_err,
        total_starts=total_starts,
    )


def split_bands(name: str, values: F64, bands: tuple[str, ...] = FEATURE_BANDS) -> dict[str, F64]:
    """Values of the rows of each band, band after band, as named columns; '{b}' in the name is the band."""
    parts = values.reshape(len(bands), len(values) // len(bands))
    return {name.format(b=band): part for band, part in zip(bands, parts, strict=True)}


_ALL_TOGETHER = np.zeros(256, dtype=np.int64)
_BAND_SLOT = np.full(256, -1, dtype=np.int64)
_BAND_SLOT[[BAND_INDEX[band] for band in FEATURE_BANDS + OTHER_BANDS]] = np.arange(
    len(FEATURE_BANDS + OTHER_BANDS)
)


@compiled
def row_counts(mask: npt.NDArray[np.bool_], starts: I64) -> I64:
    """How many of each row's values are true.  mask : (m,);  starts : (n+1,);  returns (n,)."""
    count = np.zeros(starts.shape[0] - 1, dtype=np.int64)
    for row in range(count.shape[0]):
        for i in range(starts[row], starts[row + 1]):
            count[row] += mask[i]
    return count


@compiled
def by_band(
    time: F64, flux: F64, err: F64, band: U8, role: U8, starts: I64, slot: I64
) -> tuple[F64, F64, F64, I64]:
    """Detections of some bands: the n rows of the first band, then those of the next.

    slot : (256,) which group a band's index goes to, -1 for none. Returns time, flux, error (k,) and starts.
    """
    rows = starts.shape[0] - 1
    out = np.zeros(rows * (slot.max() + 1) + 1, dtype=np.int64)
    for row in range(rows):
        for i in range(starts[row], starts[row + 1]):
            if role[i] == DETECTION and slot[band[i]] >= 0:
                out[slot[band[i]] * rows + row + 1] += 1
    for k in range(1, out.shape[0]):
        out[k] += out[k - 1]
    at = out.copy()
    times, fluxes, errs = np.empty(out[-1]), np.empty(out[-1]), np.empty(out[-1])
    for row in range(rows):
        for i in range(starts[row], starts[row + 1]):
            if role[i] == DETECTION and slot[band[i]] >= 0:
                k = slot[band[i]] * rows + row
                times[at[k]], fluxes[at[k]], errs[at[k]] = time[i], flux[i], err[i]
                at[k] += 1
    return times, fluxes, errs, out


@compiled
def total(
    flux: F64, err: F64, band: U8, role: U8, starts: I64, own_band: U8, reference: F64
) -> tuple[F64, F64, I64]:
    """Reference plus difference flux of the detections and forced points in each row's own band.

    flux, err : (m,) [nJy];  own_band, reference : (n,), [nJy]. Returns flux, error (k,) [nJy], starts (n+1,).
    """
    out = np.zeros(starts.shape[0], dtype=np.int64)
    fluxes, errs = np.empty(flux.shape[0]), np.empty(flux.shape[0])
    count = 0
    for row in range(starts.shape[0] - 1):
        for i in range(starts[row], starts[row + 1]):
            if role[i] <= FORCED and band[i] == own_band[row] and np.isfinite(reference[row]):
                fluxes[count], errs[count] = reference[row] + flux[i], err[i]
                count += 1
        out[row + 1] = count
    return fluxes[:count].copy(), errs[:count].copy(), out


def sorted_rows(values: F64, starts: I64) -> F64:
    """Each row in ascending order.  values : (m,) without NaN;  starts : (n+1,);  returns (m,)."""
    result = sort_short_rows(values, starts)
    lengths = np.diff(starts)
    for row in np.flatnonzero(lengths > LONG_ROW).tolist():
        result[starts[row] : starts[row + 1]].sort()
    return result


@compiled
def sort_short_rows(values: F64, starts: I64) -> F64:
    """The rows of up to LONG_ROW values in ascending order, the others as they are."""
    result = values.copy()
    for row in range(starts.shape[0] - 1):
        first, end = starts[row], starts[row + 1]
        if end - first > LONG_ROW:
            continue
        for i in range(first + 1, end):
            value, j = result[i], i
            while j > first and result[j - 1] > value:
                result[j] = result[j - 1]
                j -= 1
            result[j] = value
    return result
