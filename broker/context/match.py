"""Which of many positions are near each of a few: sorted by HEALPix cell, so a search reads almost nothing.

A small cone touches one to four cells of a size of its own, and each is a range of rows, found by bisection.
Where a range is long it is divided, cell by cell, down to what the cone reaches. A cone across the border of
two base cells (one in ten thousand of a few arcseconds) begins with all twelve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, log2, radians
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from broker.astro.healpix import (
    CELL_RADIUS_DEG,
    MAX_ORDER,
    REACH_PER_RADIAN,
    cell_at,
    cells_of,
    centre_of,
    place,
    separation_one,
)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MAX_RADIUS_DEG = 90.0
"""A larger cone is not answered."""

_FEW = 16
"""Rows of a cell that are looked at one by one rather than divided further."""
_ROUNDING_DEG = 1e-10
"""Larger than any error of a separation up to 140 degrees, smaller than a cell of the finest order."""
_STACK = 128
"""Cells that wait at most: 12 to begin with, then 3 more for each of 29 divisions."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


def sky_order(ra: F64, dec: F64) -> tuple[I64, I64]:
    """How to sort positions for a SkyIndex: the order of the rows, and the cells in that order.

    ra, dec : (n,) [deg];  returns order (n,) and cells (n,) of order 29, ascending; rows of one cell keep
    their order. Raises ValueError where a position is NaN or no declination: the caller knows what to name.
    """
    cells = cells_of(MAX_ORDER, ra, dec)
    if len(cells) and cells.min() < 0:
        raise ValueError(f"row {int(np.argmin(cells))} has no position")
    order = np.argsort(cells, kind="stable")
    return order, cells[order]


@dataclass(frozen=True, eq=False)
class SkyIndex:
    """n positions in the order of their HEALPix cells; rows are numbered in that order.

    cells : (n,) nested, order 29, ascending;  ra, dec : (n,) [deg]. Arrays may be memory-mapped files: a
    search reads a few dozen pages of them.

    All searches take ra, dec : (k,) [deg] and radius_deg : () or (k,) [deg, 0..90]. A position within the
    radius counts, one at the radius too. NaN in any of them, a radius outside its limits or a declination
    beyond 90 is a search that is not answered. Right ascension may be any finite number.
    """

    cells: I64
    ra: F64
    dec: F64

    def __post_init__(self) -> None:
        # One kind of array, whether mapped, writable or not: each other kind would be compiled anew.
        kinds = (("cells", np.int64), ("ra", np.float64), ("dec", np.float64))
        for name, kind in kinds:
            array = np.ascontiguousarray(getattr(self, name), dtype=kind).view(np.ndarray)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not len(self.cells) == len(self.ra) == len(self.dec):
            raise ValueError("cells, ra and dec are of different lengths")

    @classmethod
    def of(cls, ra: F64, dec: F64) -> tuple[SkyIndex, I64]:
        """The index of positions in any order, and which position each of its rows is.

        ra, dec : (n,) [deg];  returns the index and order (n,): row r of it is position order[r]
        Raises ValueError where a position is NaN or no declination.
        """
        order, cells = sky_order(ra, dec)
        return cls(cells, np.asarray(ra, np.float64)[order], np.asarray(dec, np.float64)[order]), order

    def __len__(self) -> int:
        return len(self.cells)

    def nearest(
        self, ra: F64, dec: F64, radius_deg: F64 | float, own_deg: F64 | None = None
    ) -> tuple[I64, F64]:
        """The nearest position within the radius: its row and how far it is.

        own_deg : (n,) [deg] a row counts within its own radius only

        Returns rows (k,), -1 where there is none or the search is not answered, and separations (k,) [deg],
        NaN there. Of positions equally far the lowest row.
        """
        asked = _asked(ra, dec, radius_deg)
        rows, separations = np.empty(len(asked[0]), np.int64), np.empty(len(asked[0]))
        own = np.empty(0) if own_deg is None else own_deg
        _nearest(self.cells, self.ra, self.dec, *asked, CELL_RADIUS_DEG, own, rows, separations)
        return rows, separations

    def count(self, ra: F64, dec: F64, radius_deg: F64 | float, most: int = 2**62) -> I64:
        """How many positions are within the radius, counted up to `most`: (k,), -1 where not answered."""
        asked = _asked(ra, dec, radius_deg)
        counts = np.empty(len(asked[0]), np.int64)
        _count(self.cells, self.ra, self.dec, *asked, CELL_RADIUS_DEG, most, counts)
        return counts

    def any_within(self, ra: F64, dec: F64, radius_deg: F64 | float) -> F64:
        """Whether any position is within the radius: (k,) 1 or 0, NaN where not answered."""
        counts = self.count(ra, dec, radius_deg, 1)
        return np.where(counts < 0, np.nan, counts > 0)

    def pairs(self, ra: F64, dec: F64, radius_deg: F64 | float) -> tuple[I64, I64, F64]:
        """All positions within the radius.

        Returns starts (k+1,), rows (m,) and separations (m,) [deg]: those of search i are
        rows[starts[i]:starts[i+1]], ascending; none where not answered.
        """
        asked = _asked(ra, dec, radius_deg)
        counts = np.empty(len(asked[0]), np.int64)
        _count(self.cells, self.ra, self.dec, *asked, CELL_RADIUS_DEG, 2**62, counts)
        starts = np.concatenate([[0], np.cumsum(np.maximum(counts, 0))]).astype(np.int64)
        rows, separations = np.empty(starts[-1], np.int64), np.empty(starts[-1])
        _pairs(self.cells, self.ra, self.dec, *asked, CELL_RADIUS_DEG, starts, rows, separations)
        return starts, rows, separations


def _asked(ra: F64, dec: F64, radius_deg: F64 | float) -> tuple[F64, F64, F64]:
    """The searches as the kernels take them; a radius of -1 where one cannot be answered."""
    ra, dec = np.ascontiguousarray(ra, np.float64), np.ascontiguousarray(dec, np.float64)
    radius = np.broadcast_to(np.asarray(radius_deg, np.float64), ra.shape)
    good = np.isfinite(ra) & (np.abs(dec) <= 90.0) & (radius >= 0.0) & (radius <= MAX_RADIUS_DEG)
    return ra, dec, np.where(good, radius, -1.0)


@_compiled
def _first_from(cells: I64, cell: int, low: int, high: int) -> int:
    """First of the rows low..high whose cell is at least this one."""
    while low < high:
        middle = (low + high) >> 1
        if cells[middle] < cell:
            low = middle + 1
        else:
            high = middle
    return low


@_compiled
def _first_soon(cells: I64, cell: int, low: int, high: int) -> int:
    """The same where it is probably near low."""
    step = 1
    while low + step < high and cells[low + step] < cell:
        low += step
        step *= 2
    return _first_from(cells, cell, low, min(high, low + step))


@_compiled
def _push(cells: I64, order: int, cell: int, stack: I64, top: int) -> int:
    """Put a cell on the stack unless it is empty; the height of the stack then."""
    shift = 2 * (MAX_ORDER - order)
    low = _first_from(cells, cell << shift, 0, cells.shape[0])
    high = _first_soon(cells, (cell + 1) << shift, low, cells.shape[0])
    if low < high:
        stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = order, cell, low, high
        top += 1
    return top


@_compiled
def _begin(cells: I64, ra: float, dec: float, radius_deg: float, stack: I64) -> int:
    """Put cells on the empty stack that hold everything a cone touches; their number."""
    reach = REACH_PER_RADIAN * radians(radius_deg + _ROUNDING_DEG)
    face, x, y = place(ra, dec)
    top = 0
    if x < reach or y < reach or x + reach >= 1.0 or y + reach >= 1.0:
        for base in range(12):
            top = _push(cells, 0, base, stack, top)
        return top
    order = min(MAX_ORDER, floor(log2(0.5 / reach)))
    sides = 1 << order
    for row in range(int((y - reach) * sides), int((y + reach) * sides) + 1):
        for column in range(int((x - reach) * sides), int((x + reach) * sides) + 1):
            top = _push(cells, order, cell_at(order, face, column, row), stack, top)
    return top


@_compiled
def _divide(
    cells: I64,
    ra: float,
    dec: float,
    reach_deg: float,
    cell_radius: F64,
    stack: I64,
    apart: F64,
    top: int,
) -> int:
    """Replace the cell above the top by those of its quarters that a cone reaches; the height then.

    The nearest comes last, so that it is looked at first and what it holds leaves the others out of reach.
    apart : at least how far the position is from each cell of the stack [deg]
    """
    order, cell, low, last = stack[top, 0] + 1, stack[top, 1], stack[top, 2], stack[top, 3]
    shift, bottom = 2 * (MAX_ORDER - order), top
    for quarter in range(4 * cell, 4 * cell + 4):
        high = last if quarter == 4 * cell + 3 else _first_from(cells, (quarter + 1) << shift, low, last)
        if low < high:
            centre_ra, centre_dec = centre_of(order, quarter)
            distance = separation_one(ra, dec, centre_ra, centre_dec) - cell_radius[order] - _ROUNDING_DEG
            if distance <= reach_deg:
                at = top
                while at > bottom and apart[at - 1] < distance:
                    stack[at], apart[at] = stack[at - 1], apart[at - 1]
                    at -= 1
                stack[at, 0], stack[at, 1], stack[at, 2], stack[at, 3] = order, quarter, low, high
                apart[at] = distance
                top += 1
        low = high
    return top


@_compiled
def _nearest(
    cells: I64,
    ra: F64,
    dec: F64,
    asked_ra: F64,
    asked_dec: F64,
    radius_deg: F64,
    cell_radius: F64,
    own: F64,
    rows: I64,
    separations: F64,
) -> None:
    stack, apart = np.empty((_STACK, 4), np.int64), np.zeros(_STACK)
    for search in range(asked_ra.shape[0]):
        here_ra, here_dec = asked_ra[search], asked_dec[search]
        best, limit = -1, radius_deg[search]
        apart[:12] = -1.0
        top = 0 if limit < 0 else _begin(cells, here_ra, here_dec, limit, stack)
        while top > 0:
            top -= 1
            if apart[top] > limit:
                continue
            if stack[top, 3] - stack[top, 2] > _FEW and stack[top, 0] < MAX_ORDER:
                top = _divide(cells, here_ra, here_dec, limit, cell_radius, stack, apart, top)
                continue
            for row in range(stack[top, 2], stack[top, 3]):
                if abs(dec[row] - here_dec) > limit + _ROUNDING_DEG:
                    continue
                separation = separation_one(here_ra, here_dec, ra[row], dec[row])
                if own.shape[0] > 0 and separation > own[row]:
                    continue
                if separation < limit or (separation == limit and (best < 0 or row < best)):
                    best, limit = row, separation
        rows[search], separations[search] = best, limit if best >= 0 else np.nan


@_compiled
def _count(
    cells: I64,
    ra: F64,
    dec: F64,
    asked_ra: F64,
    asked_dec: F64,
    radius_deg: F64,
    cell_radius: F64,
    most: int,
    counts: I64,
) -> None:
    stack, apart = np.empty((_STACK, 4), np.int64), np.zeros(_STACK)
    for search in range(asked_ra.shape[0]):
        here_ra, here_dec, limit = asked_ra[search], asked_dec[search], radius_deg[search]
        found = -1 if limit < 0 else 0
        top = 0 if limit < 0 else _begin(cells, here_ra, here_dec, limit, stack)
        while top > 0 and found < most:
            top -= 1
            if stack[top, 3] - stack[top, 2] > _FEW and stack[top, 0] < MAX_ORDER:
                top = _divide(cells, here_ra, here_dec, limit, cell_radius, stack, apart, top)
                continue
            for row in range(stack[top, 2], stack[top, 3]):
                if abs(dec[row] - here_dec) <= limit + _ROUNDING_DEG:
                    found += separation_one(here_ra, here_dec, ra[row], dec[row]) <= limit
        counts[search] = min(found, most)


@_compiled
def _pairs(
    cells: I64,
    ra: F64,
    dec: F64,
    asked_ra: F64,
    asked_dec: F64,
    radius_deg: F64,
    cell_radius: F64,
    starts: I64,
    rows: I64,
    separations: F64,
) -> None:
    stack, apart = np.empty((_STACK, 4), np.int64), np.zeros(_STACK)
    for search in range(asked_ra.shape[0]):
        here_ra, here_dec, limit = asked_ra[search], asked_dec[search], radius_deg[search]
        first, end = starts[search], starts[search]
        top = 0 if limit < 0 else _begin(cells, here_ra, here_dec, limit, stack)
        while top > 0:
            top -= 1
            if stack[top, 3] - stack[top, 2] > _FEW and stack[top, 0] < MAX_ORDER:
                top = _divide(cells, here_ra, here_dec, limit, cell_radius, stack, apart, top)
                continue
            for row in range(stack[top, 2], stack[top, 3]):
                if abs(dec[row] - here_dec) > limit + _ROUNDING_DEG:
                    continue
                separation = separation_one(here_ra, here_dec, ra[row], dec[row])
                if separation <= limit:
                    rows[end], separations[end] = row, separation
                    end += 1
        ascending = np.argsort(rows[first:end])
        rows[first:end] = rows[first:end][ascending]
        separations[first:end] = separations[first:end][ascending]
