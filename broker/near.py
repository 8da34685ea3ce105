"""The catalogues that filters may name at one control epoch: what `near('name', radius)` stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.catalog import StoredCatalog
from broker.context.catalogs import SEPARATION, Catalog, Taken, open_catalog
from broker.control import ControlState
from broker.errors import CatalogError
from broker.filters.functions import CATALOG, Named
from broker.filters.values import Floats, Integers, Nothing, Strings, Truths, Value

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_ARCSEC = 3600.0
_NO_POSITION = "the position or the radius is not known"


@dataclass(frozen=True, eq=False)
class NearCatalog:
    """What the name of a catalogue stands for.

    catalog : None if this process cannot read it: then nothing has an answer;  why : the reason
    """

    name: str
    catalog: Catalog | None
    why: str = ""

    reads = ("ra", "dec")

    def __call__(self, memo: dict[Any, Any], /, *columns: Any) -> F64:
        """Whether a source is within the radius: 1 or 0, NaN where there is no answer.

        columns : ra, dec (n,) and the radius () or (n,) [deg]
        """
        found = self._found(memo, *columns)
        return np.where(found.failed >= 0, np.nan, found.rows >= 0)

    def member(self, name: str, memo: dict[Any, Any], /, *columns: Any) -> Value:
        """A column of the nearest source within the radius, NULL where there is none."""
        if self.catalog is None:
            return Nothing()
        found = self._found(memo, *columns)
        if name == SEPARATION.name:
            return Floats(found.separation_deg * _ARCSEC)
        return _value(self.catalog.take(name, found.rows))

    def failures(self, memo: dict[Any, Any], /, *columns: Any) -> Strings:
        """Why there is no answer; -1 where there is one, also where no source is near."""
        reasons = (_NO_POSITION, f"outside the footprint of {self.name!r}", self.why)
        return Strings(self._found(memo, *columns).failed, reasons)

    def _found(self, memo: dict[Any, Any], ra: F64, dec: F64, radius: F64) -> _Found:
        """The match of a batch, which all calls with the same radius share."""
        key = (CATALOG, self.name, radius.shape, radius.tobytes())
        if key not in memo:
            memo[key] = self._search(ra, dec, radius)
        found: _Found = memo[key]
        return found

    def _search(self, ra: F64, dec: F64, radius: F64) -> _Found:
        if self.catalog is None:
            failed = np.full(ra.shape, 2, dtype=np.int64)
            return _Found(np.full(ra.shape, -1, dtype=np.int64), np.full(ra.shape, np.nan), failed)
        rows, separation = self.catalog.index.nearest(ra, dec, radius)
        failed = np.where((rows < 0) & ~self.catalog.covers(ra, dec), 1, -1)
        failed[np.isnan(ra) | np.isnan(dec) | np.isnan(radius)] = 0
        return _Found(rows, separation, failed)


@dataclass(frozen=True)
class _Found:
    """A match: row of the nearest source or -1, its distance [deg], which reason it failed for or -1."""

    rows: I64
    separation_deg: F64
    failed: I64


def _value(taken: Taken) -> Value:
    """A column of a catalogue as filters take it."""
    match taken.kind:
        case "float":
            return Floats(np.where(np.isinf(taken.values), np.nan, taken.values))
        case "int":
            return Integers(np.where(taken.null, 0, taken.values), taken.null)
        case "bool":
            return Truths(taken.values == 1, taken.values == 0)
        case "string":
            return Strings(taken.values, taken.categories)


@dataclass(frozen=True)
class CatalogSet:
    """The catalogues of an epoch; a new object for each change.

    bound : by name, what those that can be read and those that cannot stand for
    live : the record of each;  refused : label of one that cannot be read here -> why
    """

    bound: Mapping[str, NearCatalog] = field(default_factory=dict)
    live: Mapping[str, StoredCatalog] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def named(self) -> Named:
        """What filters may name."""
        return {CATALOG: self.bound}


def catalog_set(before: CatalogSet, state: ControlState, folder: Callable[[], Path]) -> CatalogSet:
    """The catalogues of a control state; those of the set before are not opened again.

    folder : where they are, asked for only if there are any. One that cannot be read is tried each time.
    """
    bound: dict[str, NearCatalog] = {}
    refused: dict[str, str] = {}
    live = state.live_catalogs()
    for name, stored in live.items():
        held = before.live.get(name)
        if held is not None and held.sha256 == stored.sha256 and held.label not in before.refused:
            bound[name] = before.bound[name]
            continue
        bound[name] = open_near(stored, folder())
        if bound[name].catalog is None:
            refused[stored.label] = bound[name].why
    return CatalogSet(bound, live, refused)


def open_near(stored: StoredCatalog, folder: Path) -> NearCatalog:
    """What a catalogue's name stands for; where it cannot be read, that every answer is missing, and why.

    folder : of all catalogues
    """
    try:
        catalog = open_catalog(folder / stored.folder, stored.sha256)
    except CatalogError as error:
        return NearCatalog(stored.name, None, str(error))
    # loads the compiled search now, and not when a batch waits for it
    catalog.index.nearest(np.zeros(1), np.zeros(1), 0.0)
    return NearCatalog(stored.name, catalog)
