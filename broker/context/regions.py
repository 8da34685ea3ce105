"""Regions of the sky: ranges of HEALPix numbers, each with the credible level from which on it is inside.

A MOC (Multi-Order Coverage map) is a set of cells; every place in it is inside at any level. A sky map gives
each cell a probability. Its credible region of level p holds the cells of highest probability density, as
many as contain p of the probability; so a cell's level is the probability of the cells down to it, itself
included, as ligo.skymap and mocpy reckon (Singer & Price 2016, Phys. Rev. D 93, 024013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from broker.astro.healpix import MAX_ORDER, cells_of
from broker.context.stored import pack_arrays, unpack_arrays
from broker.errors import ListError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MAX_RANGES = 4_000_000
ENOUGH = 0.999
"""A sky map of too many cells is stored up to this credible level at least, or not at all."""
DEFAULT_LEVEL = 0.9
"""The credible level where none is asked for."""
_SHOWN_LEVELS = (0.5, 0.9)
_NUMBERS = 12 * 4**MAX_ORDER
_SKY_DEG2 = 4.0 * np.pi * np.degrees(1.0) ** 2

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


@dataclass(frozen=True, eq=False)
class Region:
    """Ranges of nested HEALPix numbers at order 29, ascending and apart.

    starts, ends : (n,) first number of each, and the one after its last
    levels : (n,) credible level from which on it is inside, 0..1; all 0 in a MOC
    """

    starts: I64
    ends: I64
    levels: F64

    def __len__(self) -> int:
        return len(self.starts)

    def area_deg2(self, level: float = 1.0) -> float:
        """Area of the region at a credible level [square degrees]."""
        inside = self.levels <= level
        numbers = np.sum((self.ends - self.starts)[inside].astype(np.float64))
        return float(numbers / _NUMBERS * _SKY_DEG2)

    def areas(self) -> dict[str, float]:
        """What to tell of its size [square degrees]: by credible level of a map, of the whole of a MOC."""
        if not self.levels.any():
            return {"all": self.area_deg2()}
        return {f"{level:g}": self.area_deg2(level) for level in _SHOWN_LEVELS}

    def contains(self, numbers: I64, level: F64 | float) -> F64:
        """Whether cells of order 29 are inside at a credible level.

        numbers : (k,), -1 for none;  level : () or (k,);  returns (k,) 1 or 0, NaN for no cell or level
        """
        asked = np.broadcast_to(np.asarray(level, dtype=np.float64), numbers.shape)
        found = np.empty(len(numbers))
        _contains(self.starts, self.ends, self.levels, numbers, asked, found)
        return found


@_compiled
def _contains(starts: I64, ends: I64, levels: F64, numbers: I64, asked: F64, found: F64) -> None:
    for row in range(numbers.shape[0]):
        if numbers[row] < 0 or np.isnan(asked[row]):
            found[row] = np.nan
            continue
        place = np.searchsorted(starts, numbers[row], side="right") - 1
        inside = place >= 0 and numbers[row] < ends[place] and levels[place] <= asked[row]
        found[row] = 1.0 if inside else 0.0


@dataclass(frozen=True, eq=False)
class BoundRegion:
    """What `in_region('name')` stands for."""

    region: Region
    reads: tuple[str, ...] = ("ra", "dec")
    failure: str = ""

    def __call__(self, memo: dict[Any, Any], ra: F64, dec: F64, level: F64 | float = DEFAULT_LEVEL) -> F64:
        """1 inside the region at the credible level, else 0.

        memo : keeps the cells, which all regions share;  ra, dec : (n,) [deg, ICRS];  NaN in, NaN out
        """
        cells = memo.get(_CELLS)
        if cells is None:
            cells = memo[_CELLS] = cells_of(MAX_ORDER, ra, dec)
        return self.region.contains(cells, level)


_CELLS = ("cells", MAX_ORDER)


def moc_region(ranges: npt.NDArray[np.uint64]) -> Region:
    """The region of a MOC.  ranges : (n, 2) at order 29.  Raises ListError if it is empty or too large."""
    bounds = ranges.astype(np.int64)
    return _checked(bounds[:, 0].copy(), bounds[:, 1].copy(), np.zeros(len(bounds)))


def map_region(cells: I64, orders: I64, probability: F64) -> Region:
    """The region of a sky map.

    cells, orders : (n,) nested HEALPix cells that do not overlap;  probability : (n,) that each contains,
    in any common unit
    Cells of no probability are left out, and of more than MAX_RANGES the least dense, where these are beyond
    the level ENOUGH. Of cells of equal density that with the lowest number comes first.
    Raises ListError for what is no such map.
    """
    if not (np.isfinite(probability) & (probability >= 0)).all():
        raise ListError("a sky map with a probability that is negative or not a number")
    kept = probability > 0
    shift = 2 * (MAX_ORDER - orders[kept])
    starts, mass = cells[kept] << shift, probability[kept]
    ends = starts + (np.int64(1) << shift)
    by_place = np.argsort(starts, kind="stable")
    starts, ends, mass = starts[by_place], ends[by_place], mass[by_place]
    density = mass / (ends - starts).astype(np.float64)
    by_density = np.argsort(-density, kind="stable")
    levels = np.empty(len(mass))
    total = np.cumsum(mass[by_density])
    levels[by_density] = total / total[-1] if len(total) else total
    if len(levels) > MAX_RANGES and levels[by_density[MAX_RANGES - 1]] >= ENOUGH:
        dense = np.sort(by_density[:MAX_RANGES])
        starts, ends, levels = starts[dense], ends[dense], levels[dense]
    return _checked(starts, ends, levels)


def merged(probability: F64, order: int) -> tuple[I64, I64, F64]:
    """The cells of a map that gives every cell of one order: four that are alike become one.

    probability : (12 * 4**order,) nested;  returns cells, orders and probability as map_region takes them
    """
    found: list[tuple[I64, I64, F64]] = []
    while order > 0:
        quarters = probability.reshape(-1, 4)
        alike = (quarters == quarters[:, :1]).all(axis=1)
        cells = np.flatnonzero(~np.isnan(probability) & ~np.repeat(alike, 4))
        found.append((cells, np.full(len(cells), order, dtype=np.int64), probability[cells]))
        probability = np.where(alike, 4.0 * quarters[:, 0], np.nan)  # NaN is like nothing, not even itself
        order -= 1
    cells = np.flatnonzero(~np.isnan(probability))
    found.append((cells, np.zeros(len(cells), dtype=np.int64), probability[cells]))
    numbers, orders, mass = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return numbers, orders, mass


def _checked(starts: I64, ends: I64, levels: F64) -> Region:
    """A region of these ranges.  Raises ListError unless they are ascending, apart and not too many."""
    if not len(starts):
        raise ListError("a region without any cell")
    if len(starts) > MAX_RANGES:
        raise ListError(
            f"a region of {len(starts):,} ranges or cells; at most {MAX_RANGES:,} can be stored: degrade it"
            " to a coarser order, or give the sky map in its multi-order form"
        )
    if starts[0] < 0 or ends[-1] > _NUMBERS or (starts >= ends).any() or (starts[1:] < ends[:-1]).any():
        raise ListError("a region whose cells overlap, are empty, or are not on the sky")
    return Region(starts, ends, levels)


def pack_region(region: Region) -> bytes:
    """The region as bytes, exactly as it is."""
    lengths = region.ends - region.starts
    return pack_arrays({"starts": region.starts, "lengths": lengths, "levels": region.levels})


def unpack_region(content: bytes) -> Region:
    """The region that was packed.  Raises ListError."""
    found = unpack_arrays(content, ("starts", "lengths", "levels"))
    starts, lengths = found["starts"].astype(np.int64), found["lengths"].astype(np.int64)
    levels = found["levels"].astype(np.float64)
    if not len(starts) == len(lengths) == len(levels) or not ((levels >= 0) & (levels <= 1)).all():
        raise ListError("its contents are no region")
    return _checked(starts, starts + lengths, levels)
