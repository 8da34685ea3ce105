"""Watchlists: which entry, if any, is at an alert's place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.astro.sky import ARCSEC_PER_DEGREE
from broker.context.match import SkyIndex
from broker.context.positions import Names, Positions

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DEFAULT_RADIUS_ARCSEC = 2.0
"""Of a list that says nothing."""


@dataclass(frozen=True, eq=False)
class BoundWatchlist:
    """What `in_watchlist('name')` and `watchlist_entry('name')` stand for.

    names : of the entries;  index : their positions;  order : (n,) which entry each row of the index is
    own_deg : (n,) radius of each row [deg], NaN where the entry gives none
    default_deg : radius of those, where the call gives none either [deg]

    An entry matches within its own radius. The radius of a call is the most that counts: an entry whose own
    is smaller keeps that, an entry without takes the call's.
    """

    names: Names
    index: SkyIndex
    order: I64
    own_deg: F64
    default_deg: float
    reads: tuple[str, ...] = ("ra", "dec")
    failure: str = ""

    @classmethod
    def of(cls, positions: Positions, radius_arcsec: float | None) -> BoundWatchlist:
        """A list ready to be asked.  radius_arcsec : of entries that give none"""
        index, order = SkyIndex.of(positions.ra, positions.dec)
        default = DEFAULT_RADIUS_ARCSEC if radius_arcsec is None else radius_arcsec
        own = positions.radius[order] / ARCSEC_PER_DEGREE
        return cls(positions.names, index, order, own, default / ARCSEC_PER_DEGREE)

    def __call__(self, memo: dict[Any, Any], ra: F64, dec: F64, radius_deg: F64 | float | None = None) -> F64:
        """1 where an entry matches, else 0.

        memo : keeps what was found;  ra, dec : (n,) [deg, ICRS];  radius_deg : () or (n,), as above
        Returns (n,); NaN where the position or the radius is NaN.
        """
        known = np.isfinite(ra) & np.isfinite(dec)
        if radius_deg is not None:
            known = known & np.isfinite(radius_deg)
        return np.where(known, self._rows(memo, ra, dec, radius_deg) >= 0, np.nan)

    def entries(
        self, memo: dict[Any, Any], ra: F64, dec: F64, radius_deg: F64 | float | None = None
    ) -> tuple[I64, tuple[str, ...]]:
        """Name of the nearest entry that matches: codes (n,) into names, -1 where there is none."""
        rows = self._rows(memo, ra, dec, radius_deg)
        found, codes = np.unique(rows, return_inverse=True)
        texts = ["" if row < 0 else self.names[int(self.order[row])] for row in found.tolist()]
        known = sorted({text for text in texts if text})
        code_of = {name: code for code, name in enumerate(known)}
        table = np.array([code_of.get(name, -1) for name in texts], dtype=np.int64)
        return table[codes], tuple(known)

    def _rows(self, memo: dict[Any, Any], ra: F64, dec: F64, radius_deg: F64 | float | None) -> I64:
        """Row of the index of the nearest entry that matches, -1 where none does: (n,)."""
        given = None if radius_deg is None else np.asarray(radius_deg)
        key = (id(self), None if given is None else given.tobytes())
        if key not in memo:
            own, widest = self._limits if given is None else self._own_limits
            radius = widest if given is None else np.minimum(given, widest)
            memo[key], _ = self.index.nearest(ra, dec, radius, own)
        found: I64 = memo[key]
        return found

    @cached_property
    def _limits(self) -> tuple[F64 | None, float]:
        """Radius of each row where the call gives none, None if all have the default; and the largest."""
        if np.isnan(self.own_deg).all():
            return None, self.default_deg
        limits = np.where(np.isnan(self.own_deg), self.default_deg, self.own_deg)
        return limits, float(limits.max())

    @cached_property
    def _own_limits(self) -> tuple[F64 | None, float]:
        """The same where the call gives a radius: an entry without one of its own has no limit."""
        if np.isnan(self.own_deg).all():
            return None, np.inf
        limits = np.where(np.isnan(self.own_deg), np.inf, self.own_deg)
        return limits, float(limits.max())
