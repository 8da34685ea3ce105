"""The positions of a watchlist: read from CSV, and packed to be stored."""

from __future__ import annotations

import csv
import io
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.context.stored import pack_arrays, unpack_arrays
from broker.errors import ListError

F64 = npt.NDArray[np.float64]

MAX_POSITIONS = 1_000_000
MAX_NAME_BYTES = 200
MAX_RADIUS_ARCSEC = 3600.0
_SHOWN = 10
"""Faulty rows that are told one by one; all are counted."""
_TELL_EVERY = 10_000
_COLUMNS = {
    "ra": ("ra", "ra_deg", "raj2000", "_raj2000", "ra_icrs"),
    "dec": ("dec", "dec_deg", "dej2000", "decj2000", "_dej2000", "de_icrs", "dec_icrs"),
    "name": ("name", "id", "object", "objectid", "source_id"),
    "radius": ("radius_arcsec",),
}
"""How a column of each kind may be called, in any case; the first that is there counts."""
_STRINGS = ("name_bytes", "name_lengths")
_NUMBERS = ("ra", "dec", "radius")


@dataclass(frozen=True, eq=False)
class Names:
    """What n entries are called: UTF-8 one after the other, and (n+1,) where each begins."""

    text: bytes
    starts: npt.NDArray[np.int64]

    def __getitem__(self, row: int) -> str:
        """Name of an entry, '' if it has none."""
        return self.text[self.starts[row] : self.starts[row + 1]].decode()


@dataclass(frozen=True, eq=False)
class Positions:
    """Entries of a watchlist, in the order of its file.

    ra, dec : (n,) [deg, ICRS];  radius : (n,) [arcsec], NaN where the entry gives none
    """

    ra: F64
    dec: F64
    radius: F64
    names: Names

    def __len__(self) -> int:
        return len(self.ra)


def pack_positions(positions: Positions) -> bytes:
    """The positions as bytes, exactly as they are."""
    return pack_arrays(
        {
            "ra": positions.ra,
            "dec": positions.dec,
            "radius": positions.radius,
            "name_lengths": np.diff(positions.names.starts).astype(np.uint16),
            "name_bytes": np.frombuffer(positions.names.text, dtype=np.uint8),
        }
    )


def unpack_positions(content: bytes) -> Positions:
    """The positions that were packed.  Raises ListError."""
    found = unpack_arrays(content, (*_NUMBERS, *_STRINGS))
    ra, dec, radius = (found[name].astype(np.float64) for name in _NUMBERS)
    lengths = found["name_lengths"].astype(np.int64)
    names = found["name_bytes"].tobytes()
    same = len(ra) == len(dec) == len(radius) == len(lengths)
    if not same or lengths.sum() != len(names) or not (np.isfinite(ra) & (np.abs(dec) <= 90)).all():
        raise ListError("its contents are no positions")
    return Positions(ra, dec, radius, Names(names, np.concatenate([[0], np.cumsum(lengths)])))


@dataclass(frozen=True)
class ReadPositions:
    """What a file came to.

    repeated_positions, repeated_names : rows whose position, or name, an earlier row has already
    repeats : the first few of them, as 'line 7: ...';  ignored : columns that were not read
    """

    positions: Positions
    repeated_positions: int
    repeated_names: int
    repeats: tuple[str, ...]
    ignored: tuple[str, ...]

    def notes(self) -> tuple[str, ...]:
        """What the owner should know."""
        found = []
        if self.repeated_positions or self.repeated_names:
            found.append(
                f"{self.repeated_positions:,} rows repeat the position and {self.repeated_names:,} the name"
                f" of an earlier row: {'; '.join(self.repeats)}"
            )
        if self.ignored:
            found.append(f"columns not read: {', '.join(self.ignored)}")
        return tuple(found)


def read_csv(text: str, on_rows: Callable[[int], None] = lambda _: None) -> ReadPositions:
    """The positions of a table with columns ra, dec [deg, ICRS] and perhaps name, radius_arcsec.

    text : comma or tab separated, its first line naming the columns; lines that begin with # are left out
    on_rows : told now and then how many more rows were read
    Raises ListError where rows are faulty, naming the first of them: nothing is taken from such a file.
    """
    delimiter = "\t" if "\t" in next((line for line in _lines(text) if line.strip()), "") else ","
    rows = csv.reader(_lines(text), delimiter=delimiter)
    header = next((row for row in rows if row), [])
    places = {kind: _place(header, names) for kind, names in _COLUMNS.items()}
    if places["ra"] is None or places["dec"] is None:
        raise ListError(
            "the first line must name the columns ra and dec (degrees, ICRS); it may also name name and"
            f" radius_arcsec. It is {delimiter.join(header)[:200]!r}"
        )
    read = {place for place in places.values() if place is not None}
    ignored = tuple(name.strip()[:50] for place, name in enumerate(header) if place not in read)
    return _Reader(places).read(rows, on_rows).result(ignored)


def _lines(text: str) -> Iterator[str]:
    """The lines of a text; a comment becomes an empty line, so that lines can be counted."""
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
    return ("\n" if line.startswith("#") else line for line in lines)


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    lowered = [cell.strip().lower() for cell in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


class _Reader:
    """Takes the rows of a table one after the other, and keeps account of what is wrong with them."""

    def __init__(self, places: Mapping[str, int | None]) -> None:
        self._ra_at, self._dec_at = places["ra"] or 0, places["dec"] or 0
        self._name_at, self._radius_at = places["name"], places["radius"]
        self._ra, self._dec, self._radius = array("d"), array("d"), array("d")
        self._names: list[bytes] = []
        self._first_at: dict[tuple[float, float], int] = {}
        self._first_of: dict[bytes, int] = {}
        self._faults, self._shown_faults = 0, list[str]()
        self._repeats, self._shown_repeats = Counter[str](), list[str]()

    def read(self, rows: Any, on_rows: Callable[[int], None]) -> _Reader:
        """Take every row.  rows : a csv.reader.  Raises ListError."""
        try:
            for row in rows:
                if row:
                    self._take(row, rows.line_num)
                    if len(self._ra) % _TELL_EVERY == 0:
                        on_rows(_TELL_EVERY)
        except csv.Error as error:
            raise ListError(f"line {rows.line_num}: {error}") from None
        on_rows(len(self._ra) % _TELL_EVERY)
        if self._faults:
            more = "" if self._faults <= _SHOWN else f"; and {self._faults - _SHOWN:,} more"
            raise ListError(
                f"{self._faults:,} rows are faulty, nothing was stored. {'; '.join(self._shown_faults)}{more}"
            )
        if not self._ra:
            raise ListError("the file has no rows")
        return self

    def result(self, ignored: tuple[str, ...]) -> ReadPositions:
        """All that was read."""
        lengths = np.array([len(name) for name in self._names], dtype=np.int64)
        positions = Positions(
            np.array(self._ra),
            np.array(self._dec),
            np.array(self._radius),
            Names(b"".join(self._names), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)),
        )
        counts = self._repeats["position"], self._repeats["name"]
        return ReadPositions(positions, *counts, tuple(self._shown_repeats), ignored)

    def _take(self, row: list[str], line: int) -> None:
        try:
            entry = self._entry(row)
        except ValueError as error:
            self._faults += 1
            if self._faults <= _SHOWN:
                self._shown_faults.append(f"line {line}: {error}")
            return
        if len(self._ra) == MAX_POSITIONS:
            raise ListError(
                f"more than {MAX_POSITIONS:,} positions; a larger table is for `broker catalogs add` as a"
                " catalogue"
            )
        ra, dec, radius, name = entry
        self._note_repeat("position", self._first_at.setdefault((ra, dec), line), line)
        if name:
            self._note_repeat("name", self._first_of.setdefault(name, line), line)
        self._ra.append(ra)
        self._dec.append(dec)
        self._radius.append(radius)
        self._names.append(name)

    def _entry(self, row: list[str]) -> tuple[float, float, float, bytes]:
        """ra, dec, radius and name of a row.  Raises ValueError, saying why, where it is faulty."""
        try:
            ra = _number("ra", row[self._ra_at], 0.0, 360.0)
            dec = _number("dec", row[self._dec_at], -90.0, 90.0)
            radius_text = "" if self._radius_at is None else row[self._radius_at].strip()
            name = b"" if self._name_at is None else row[self._name_at].strip().encode()
        except IndexError:
            raise ValueError(f"it has {len(row)} cells, the first line more") from None
        if len(name) > MAX_NAME_BYTES:
            raise ValueError(f"a name of {len(name)} bytes; at most {MAX_NAME_BYTES} are kept")
        radius = _number("radius_arcsec", radius_text, 0.0, MAX_RADIUS_ARCSEC) if radius_text else np.nan
        return ra, dec, radius, name

    def _note_repeat(self, what: str, first: int, line: int) -> None:
        if first != line:
            self._repeats[what] += 1
            if len(self._shown_repeats) < _SHOWN:
                self._shown_repeats.append(f"line {line} has the {what} of line {first}")


def _number(what: str, text: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        sexagesimal = ":" in text or " " in text.strip()
        advice = "; sexagesimal positions are not read: give degrees" if sexagesimal else ""
        raise ValueError(f"{what} = {text[:40]!r} is not a number{advice}") from None
    if not lowest <= value <= highest:
        raise ValueError(f"{what} = {text[:40]} is outside {lowest:g}..{highest:g}")
    return value
