"""HEALPix cells (nested): which cell a position is in, where a cell is, and how far a cone reaches.

Compiled, because an alert is matched in about a microsecond. Source of the projection: Gorski et al. 2005,
ApJ 622, 759, section 5.1 and appendix B. A base cell is a square with coordinates x and y in 0..1; order k
divides it into 2^k by 2^k cells.
"""

from __future__ import annotations

from collections.abc import Callable
from math import asin, cos, degrees, floor, hypot, pi, radians, sin, sqrt
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MAX_ORDER = 29
"""The finest order whose cell numbers fit 64 bits; a cell is 0.4 milliarcseconds wide."""

REACH_PER_RADIAN = 1.4521
"""How far, at most, x or y of a base cell change on a path of one radian that stays within the cell.

The gradient is longest at the poles: sqrt(3/2 + 6/pi^2) = 1.4520.
"""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


def _cell_radius_deg(order: int) -> float:
    """Largest distance of a cell's centre from its corners [deg].  Source: max_pixrad of HEALPix C++."""
    sides = 2.0**order
    z = 1.0 - (1.0 - 1.0 / sides) ** 2 / 3.0
    phi = pi / (4.0 * sides)
    across = hypot(sqrt(5.0) / 3.0 * cos(phi) - sqrt(1.0 - z * z), sqrt(5.0) / 3.0 * sin(phi), 2.0 / 3.0 - z)
    return degrees(2.0 * asin(across / 2.0))


CELL_RADIUS_DEG = np.array([_cell_radius_deg(order) for order in range(MAX_ORDER + 1)])
"""(30,) by order; enlarged by nothing: who compares with it allows for rounding."""

_RING_OF_FACE = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_LONGITUDE_OF_FACE = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])
"""Of the southernmost corner of each base cell: ring, and longitude in eighths of a turn."""


@_compiled
def separation_one(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """As sky.separation_deg, of one pair of directions [deg], for compiled code."""
    lat1, lat2 = radians(dec1), radians(dec2)
    across = sin((radians(ra2) - radians(ra1)) / 2.0)
    along = sin((lat2 - lat1) / 2.0)
    half = along * along + cos(lat1) * cos(lat2) * across * across
    return degrees(2.0 * asin(sqrt(min(max(half, 0.0), 1.0))))


@_compiled
def place(ra: float, dec: float) -> tuple[int, float, float]:
    """Base cell (0..11) of a position [deg], and x and y (0..1) within it."""
    quarter = (ra % 360.0) / 90.0
    if quarter >= 4.0:  # -1e-20 % 360 is 360
        quarter = 0.0
    z = sin(radians(dec))
    if abs(z) <= 2.0 / 3.0:
        down, up = 0.5 + quarter - 0.75 * z, 0.5 + quarter + 0.75 * z
        row, column = floor(down), floor(up)
        if row == column:
            face = row % 4 + 4
        elif row < column:
            face = row
        else:
            face = column + 8
        return face, up - column, 1.0 - (down - row)
    turn = min(3, int(quarter))
    along = quarter - turn
    # sqrt(3 (1 - |z|)), which loses all digits at the pole, by way of the half angle
    from_pole = sqrt(6.0) * sin(radians(90.0 - abs(dec)) / 2.0)
    down, up = along * from_pole, (1.0 - along) * from_pole
    if dec >= 0:
        return turn, 1.0 - up, 1.0 - down
    return turn + 8, down, up


@_compiled
def _spread(value: int) -> int:
    """The lowest 29 bits at every other place."""
    spread = value & 0x1FFFFFFF
    spread = (spread | (spread << 16)) & 0x0000FFFF0000FFFF
    spread = (spread | (spread << 8)) & 0x00FF00FF00FF00FF
    spread = (spread | (spread << 4)) & 0x0F0F0F0F0F0F0F0F
    spread = (spread | (spread << 2)) & 0x3333333333333333
    return (spread | (spread << 1)) & 0x5555555555555555


@_compiled
def _gathered(value: int) -> int:
    """Every other bit, next to each other: the inverse of _spread."""
    bits = value & 0x5555555555555555
    bits = (bits | (bits >> 1)) & 0x3333333333333333
    bits = (bits | (bits >> 2)) & 0x0F0F0F0F0F0F0F0F
    bits = (bits | (bits >> 4)) & 0x00FF00FF00FF00FF
    bits = (bits | (bits >> 8)) & 0x0000FFFF0000FFFF
    return (bits | (bits >> 16)) & 0x1FFFFFFF


@_compiled
def cell_at(order: int, face: int, column: int, row: int) -> int:
    """Number of the cell in a column (along x) and a row (along y) of a base cell."""
    return (face << (2 * order)) | _spread(column) | (_spread(row) << 1)


@_compiled
def cell_of(order: int, ra: float, dec: float) -> int:
    """Number of the cell that a position [deg] is in."""
    face, x, y = place(ra, dec)
    sides = 1 << order
    return cell_at(order, face, min(sides - 1, int(x * sides)), min(sides - 1, int(y * sides)))


@_compiled
def centre_of(order: int, cell: int) -> tuple[float, float]:
    """Right ascension and declination of a cell's centre [deg]."""
    face, within = cell >> (2 * order), cell & ((1 << (2 * order)) - 1)
    sides = float(1 << order)
    x, y = _gathered(within) + 0.5, _gathered(within >> 1) + 0.5
    ring = _RING_OF_FACE[face] * sides - x - y
    if ring < sides:
        width, dec = ring, 90.0 - degrees(2.0 * asin(ring / (sqrt(6.0) * sides)))
    elif ring > 3.0 * sides:
        width = 4.0 * sides - ring
        dec = degrees(2.0 * asin(width / (sqrt(6.0) * sides))) - 90.0
    else:
        width, dec = sides, degrees(asin((2.0 * sides - ring) * 2.0 / (3.0 * sides)))
    return (45.0 * (_LONGITUDE_OF_FACE[face] + (x - y) / width)) % 360.0, dec


@_compiled
def _fill(order: int, ra: F64, dec: F64, cells: I64) -> None:
    for row in range(ra.shape[0]):
        known = np.isfinite(ra[row]) and abs(dec[row]) <= 90.0
        cells[row] = cell_of(order, ra[row], dec[row]) if known else -1


def cells_of(order: int, ra: F64, dec: F64) -> I64:
    """Number of the cell of each position, nested numbering.

    order : 0..29;  ra, dec : (n,) [deg];  returns (n,), -1 where a position is NaN or no declination

    >>> cells_of(0, np.array([0.0, 45.0, np.nan]), np.array([0.0, 90.0, 0.0])).tolist()
    [4, 0, -1]
    """
    cells = np.empty(len(ra), dtype=np.int64)
    _fill(order, np.ascontiguousarray(ra, np.float64), np.ascontiguousarray(dec, np.float64), cells)
    return cells
