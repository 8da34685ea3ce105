"""Decoded records to raw numpy columns: only the paths that a survey's tables name.

What comes out (`RawColumns`) does not know how the bytes were read. `arena.py` fills it from the bytes; here
is the reference for what it must hold, by fastavro, and the way for schemas that the compiled one leaves out.
Two steps, so that a record's dict (megabytes, for a long history) lives only until its values are picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from broker.surveys.avro import Record
from broker.surveys.walk import MAX_TEXT_BYTES
from broker.surveys.writer import WriterSchema

Kind = Literal["float", "int", "text"]
I64 = npt.NDArray[np.int64]
_Step = tuple[str, ...]
DATA_ERRORS = (TypeError, ValueError, LookupError, OverflowError, AttributeError)
"""What a value of the wrong shape leads to."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column of ours and where packets keep it: the first path whose value is not missing.

    kind "float" is float64 with NaN for missing (true and false are 1 and 0); "int" is int64 with 0 for
    missing; "text" is a string with '' for missing.
    """

    name: str
    kind: Kind
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChildTable:
    """An array of records inside each alert; the paths of its fields start at the array's item."""

    name: str
    path: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """All that is read of a survey's packets.  Told apart by identity: programs are kept by it."""

    alert: tuple[Field, ...]
    children: tuple[ChildTable, ...]
    cutouts: tuple[tuple[str, ...], ...] = ()
    """Paths of the science, template and difference image: of each, the first that a schema has."""


@dataclass(frozen=True, slots=True)
class Child:
    """The items of all alerts' arrays, one after another: row i is starts[i]:starts[i+1] of each column."""

    columns: dict[str, npt.NDArray[Any]]
    starts: I64

    @property
    def row(self) -> I64:
        """(m,) the alert that each item belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def take(self, rows: I64) -> Child:
        """The items of some alerts, in the order asked for."""
        lengths = np.diff(self.starts)[rows]
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        flat = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return Child({name: values[flat] for name, values in self.columns.items()}, starts)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]


@dataclass(frozen=True, slots=True)
class RawColumns:
    """n alerts as columns in the survey's own words and units, and their child tables by name."""

    length: int
    alert: dict[str, npt.NDArray[Any]]
    children: dict[str, Child]

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.alert[name]

    def take(self, rows: I64) -> RawColumns:
        """Some alerts, in the order asked for."""
        alert = {name: values[rows] for name, values in self.alert.items()}
        return RawColumns(len(rows), alert, {name: child.take(rows) for name, child in self.children.items()})

    def followed_by(self, other: RawColumns) -> RawColumns:
        """These alerts and then those of `other`, of the same layout."""
        alert = {name: np.concatenate([self.alert[name], other.alert[name]]) for name in self.alert}
        children = {}
        for name, mine in self.children.items():
            theirs = other.children[name]
            columns = {key: np.concatenate([mine[key], theirs[key]]) for key in mine.columns}
            children[name] = Child(
                columns, np.concatenate([mine.starts, mine.starts[-1] + theirs.starts[1:]])
            )
        return RawColumns(self.length + other.length, alert, children)


@dataclass(frozen=True, slots=True)
class Picked:
    """The values of one record that a layout names, in the layout's order.

    alert : one a field;  children : for each child table a list a field, of one value an item
    """

    alert: list[Any]
    children: list[list[list[Any]]]
    cutouts: list[tuple[int, int]]
    """Start and end of each cutout in the record's bytes; 0, 0 for one that is not there."""


def pick(record: Record, layout: Layout) -> Picked:
    """The values of one record that a layout names; None for missing ones.

    Raises TypeError or LookupError when the record is not shaped as the paths say.
    """
    values, schema = record.values, record.schema
    alert = [_first(values, _present(schema, field.paths, ""), field.kind == "int") for field in layout.alert]
    children = [_pick_items(record, table) for table in layout.children]
    return Picked(alert, children, _find_cutouts(record, layout))


def _find_cutouts(record: Record, layout: Layout) -> list[tuple[int, int]]:
    """Where in the record's bytes the cutouts are: where their content is found."""
    places = []
    for paths in layout.cutouts:
        content = _first(record.values, _present(record.schema, paths, "")[:1], False)
        if isinstance(content, bytes):
            start = record.datum.index(content)
            places.append((start, start + len(content)))
        else:
            places.append((0, 0))
    return places


def _pick_items(record: Record, table: ChildTable) -> list[list[Any]]:
    items = _first(record.values, _present(record.schema, (table.path,), ""), False) or ()
    prefix = f"{table.path}[]."
    columns = []
    for field in table.fields:
        steps, zero_is_missing = _present(record.schema, field.paths, prefix), field.kind == "int"
        columns.append([_first(item, steps, zero_is_missing) for item in items])
    return columns


def columns_of(picked: Sequence[Picked], layout: Layout) -> RawColumns:
    """The columns that a layout names, of the picked values of n records.

    Raises ValueError, TypeError or OverflowError when a value does not fit its column's kind.
    """
    alert = {
        field.name: _array([one.alert[number] for one in picked], field)
        for number, field in enumerate(layout.alert)
    }
    children = {
        table.name: _child([one.children[number] for one in picked], table)
        for number, table in enumerate(layout.children)
    }
    return RawColumns(len(picked), alert, children)


def _child(items: list[list[list[Any]]], table: ChildTable) -> Child:
    """One child table of n records;  items : for each record a list a field."""
    starts = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum([len(columns[0]) for columns in items], out=starts[1:])
    columns = {
        field.name: _array([value for columns in items for value in columns[number]], field)
        for number, field in enumerate(table.fields)
    }
    return Child(columns, starts)


@lru_cache(maxsize=16384)
def _present(schema: WriterSchema, paths: tuple[str, ...], prefix: str) -> tuple[_Step, ...]:
    """The paths that a schema has, each split into its steps."""
    return tuple(tuple(path.split(".")) for path in paths if prefix + path in schema.paths)


def _first(record: Any, paths: tuple[_Step, ...], zero_is_missing: bool) -> Any:
    """The first value along the paths that is not missing; None if all are."""
    for path in paths:
        value = record
        for key in path:
            value = None if value is None else value[key]
        if value is not None and not (zero_is_missing and value == 0):
            return value
    return None


def _array(values: list[Any], field: Field) -> npt.NDArray[Any]:
    """Python values as a column; raises ValueError, TypeError or OverflowError where one does not fit."""
    if field.kind == "float":
        array = np.array(values, dtype=np.float64)
    elif field.kind == "int":
        array = np.array([0 if value is None else value for value in values], dtype=np.int64)
    else:
        texts = ["" if value is None else value for value in values]
        if any(isinstance(text, str) and len(text.encode()) > MAX_TEXT_BYTES for text in texts):
            raise ValueError(f"{field.name}: text of more than {MAX_TEXT_BYTES} bytes")
        array = np.array(texts, dtype=np.str_)
    if array.ndim != 1:
        raise ValueError(f"{field.name}: a list where one value is expected (packet path {field.paths[0]})")
    return array
