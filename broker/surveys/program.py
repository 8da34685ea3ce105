"""From a writer schema and a survey's layout to the program that `walk.py` runs.

A layout's columns are laid out once, the same for all its writer schemas (`Plan`), so that packets of several
versions fill one arena. A program is what one writer schema does to it. Nested records are flattened; an
array of records that the layout maps opens rows in its table; all else is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from broker.surveys import walk
from broker.surveys.columns import Field, Kind, Layout
from broker.surveys.walk import I64, NOT_NULLABLE, operation
from broker.surveys.writer import WriterSchema

FLOAT_MISSING = 0x7FF8_0000_0000_0B0B
"""A NaN that no arithmetic makes: missing, where another path may still have the value."""
TEXT_MISSING = -1
NAN_BITS = int(np.array([np.nan]).view(np.int64)[0])
_LARGEST_FIXED = 1 << 31
_META_SLOTS = 4
"""Columns of every alert: where its record starts and ends, its message, its index in it."""


@dataclass(frozen=True)
class Plan:
    """Where a layout's columns are: slot s of table t is column s of that table.

    fields : for each table (the alert's first) the slots of each field, one a path
    slots  : number of slots of each table
    starts : the first of the alert's slots that hold where each child's rows begin
    cutouts : the first of the alert's slots that hold the cutouts
    """

    layout: Layout
    fields: tuple[tuple[tuple[Field, range], ...], ...]
    slots: tuple[int, ...]
    starts: int
    cutouts: int


@lru_cache(maxsize=64)
def plan_of(layout: Layout) -> Plan:
    """The plan of a layout."""
    starts = _META_SLOTS
    cutouts = starts + len(layout.children)
    alert, end = _slots(layout.alert, cutouts + len(layout.cutouts))
    tables, slots = [alert], [end]
    for child in layout.children:
        placed, end = _slots(child.fields, 0)
        tables.append(placed)
        slots.append(end)
    if len(tables) > walk.TABLES:
        raise ValueError(f"a layout of {len(tables)} tables; at most {walk.TABLES} can be read")
    return Plan(layout, tuple(tables), tuple(slots), starts, cutouts)


def _slots(fields: Sequence[Field], first: int) -> tuple[tuple[tuple[Field, range], ...], int]:
    placed = []
    for item in fields:
        placed.append((item, range(first, first + len(item.paths))))
        first += len(item.paths)
    return tuple(placed), first


@dataclass(frozen=True, eq=False)
class Program:
    """What a writer schema does to a plan's arena.

    operations : (k, WIDTH) int64; the arena fills the column TO of those that write with places
    writes     : (w,) the operations that write;  table, slot : (w,) where to
    fallbacks  : (table, slot) of every further path it fills, so that columns are combined only where needed
    """

    operations: I64
    writes: I64
    table: I64
    slot: I64
    fallbacks: frozenset[tuple[int, int]]


@lru_cache(maxsize=128)
def program_of(schema: WriterSchema, layout: Layout) -> Program | None:
    """The program of a writer schema; None where it does something that is left to fastavro.

    That is: a mapped value that is neither a number, a truth value nor text (for text: nor that), a union of
    more than null and one type on the way to it, a table that is no array of records, deep nesting.
    """
    try:
        return _Compiler(schema, plan_of(layout)).compile()
    except _NotCoveredError:
        return None


class _NotCoveredError(Exception):
    """Stops the compiling of one schema."""


@dataclass(frozen=True)
class _Target:
    """Where a path's value goes."""

    table: int
    slot: int
    kind: Kind | None
    """None for a byte range (a cutout)."""
    missing: int


@dataclass
class _Compiler:
    schema: WriterSchema
    plan: Plan
    rows: list[list[int]] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    _targets: dict[str, list[_Target]] = field(default_factory=dict)
    _arrays: dict[str, int] = field(default_factory=dict)
    _depth: int = 0
    _fence: int = 0
    """No operation before this one may be merged with a later one: a jump arrives between."""

    def compile(self) -> Program:
        fallbacks = self._choose_targets()
        self._open_row(0)
        self._record(self.schema.parsed, "")
        self._emit(walk.END)
        self._check_all_reached()
        operations, table = np.array(self.rows, dtype=np.int64), np.array(self.tables, dtype=np.int64)
        writes = np.flatnonzero(table >= 0)
        slot = operations[writes, walk.TO]
        return Program(operations, writes, table[writes], slot, frozenset(fallbacks))

    # what goes where

    def _choose_targets(self) -> set[tuple[int, int]]:
        """Give each path that the schema has its slot; returns the slots beyond a field's first."""
        layout, fallbacks = self.plan.layout, set()
        prefixes = ["", *(f"{child.path}[]." for child in layout.children)]
        for table, (prefix, fields) in enumerate(zip(prefixes, self.plan.fields, strict=True)):
            for item, slots in fields:
                present = [path for path in item.paths if prefix + path in self.schema.paths]
                for path, slot in zip(present, slots, strict=False):
                    last = path == present[-1]
                    target = _Target(table, slot, item.kind, _missing(item.kind, last))
                    self._targets.setdefault(prefix + path, []).append(target)
                fallbacks |= {(table, slot) for slot in slots[1 : len(present)]}
        for number, paths in enumerate(layout.cutouts):
            for path in [path for path in paths if path in self.schema.paths][:1]:
                slot = self.plan.cutouts + number
                self._targets.setdefault(path, []).append(_Target(0, slot, None, TEXT_MISSING))
        for number, child in enumerate(layout.children, start=1):
            if child.path in self.schema.paths:
                self._arrays[child.path] = number
        return fallbacks

    def _check_all_reached(self) -> None:
        """Every path that the schema has was written by exactly one operation."""
        wanted = [(t.table, t.slot) for targets in self._targets.values() for t in targets]
        kinds = range(walk.INT_AS_FLOAT, walk.RANGE + 1)
        written = [
            (table, row[walk.TO])
            for table, row in zip(self.tables, self.rows, strict=True)
            if row[walk.KIND] in kinds
        ]
        opened = [row[walk.ARG] for row in self.rows if row[walk.KIND] == walk.ROW]
        if sorted(wanted) != sorted(written) or sorted(opened) != sorted({0, *self._arrays.values()}):
            raise _NotCoveredError

    def _open_row(self, table: int) -> None:
        """A new row of a table; what the rest of the program may leave unwritten is missing."""
        tables = len(self.plan.fields)
        self._emit(walk.ROW, 0, to=self.plan.starts, arg=table, repeat=tables)
        slots = {
            slot: _missing(item.kind, slot == slots[-1])
            for item, slots in self.plan.fields[table]
            for slot in slots
        }
        if table == 0:
            first = self.plan.cutouts
            slots |= dict.fromkeys(range(first, first + len(self.plan.layout.cutouts)), TEXT_MISSING)
        certain = {
            target.slot
            for path in self._certain_paths(self.schema.parsed, "")
            for target in self._targets.get(path, ())
            if target.table == table
        }
        for slot, missing in slots.items():
            if slot not in certain:
                self._emit(walk.INIT, table, to=slot, missing=missing)

    def _certain_paths(self, schema: Any, path: str) -> Iterator[str]:
        """Paths that every record (every item, in a mapped array) has a value or a null for."""
        if isinstance(schema, list):
            branches = [branch for branch in schema if branch != "null"] if path in self._arrays else []
            for branch in branches:
                yield from self._certain_paths(branch, path)
        elif isinstance(schema, str):
            yield from self._certain_paths(self.schema.named.get(schema, {"type": schema}), path)
        elif not isinstance(schema["type"], str):
            yield from self._certain_paths(schema["type"], path)
        elif schema["type"] == "array" and path in self._arrays:
            yield from self._certain_paths(schema["items"], f"{path}[]")
        elif schema["type"] in ("record", "error"):
            for entry in schema["fields"]:
                inner = f"{path}.{entry['name']}" if path else entry["name"]
                yield inner
                yield from self._certain_paths(entry["type"], inner)

    # walking the schema

    def _record(self, schema: dict[str, Any], prefix: str) -> None:
        for entry in schema["fields"]:
            self._type(entry["type"], prefix + entry["name"])

    def _type(self, schema: Any, path: str, null: int = NOT_NULLABLE) -> None:
        """Operations for a value of a type; `null` is the byte for null where the type may be null."""
        if isinstance(schema, list):
            return self._union(schema, path)
        if isinstance(schema, str):
            schema = self.schema.named.get(schema, {"type": schema})
        kind = schema["type"]
        if not isinstance(kind, str):
            return self._type(kind, path, null)
        if path in self._targets:
            return self._mapped(schema, path, null)
        if kind in ("record", "error", "array", "map"):
            return self._nested(schema, path, null)
        self._skip(schema, null)

    def _union(self, branches: list[Any], path: str) -> None:
        if len(branches) == 2 and branches.count("null") == 1:
            null = branches.index("null")
            return self._type(branches[1 - null], path, 2 * null)
        if any(known == path or known.startswith((f"{path}.", f"{path}[].")) for known in self._wanted()):
            raise _NotCoveredError
        self._emit(walk.SWITCH, arg=len(branches))
        jumps = [self._emit(walk.JUMP) for _ in branches]
        ends = []
        for jump, branch in zip(jumps, branches, strict=True):
            self.rows[jump][walk.ARG] = self._label()
            self._type(branch, path)
            ends.append(self._emit(walk.JUMP))
        for jump in ends:
            self.rows[jump][walk.ARG] = self._label()

    def _wanted(self) -> list[str]:
        return [*self._targets, *self._arrays]

    def _nested(self, schema: dict[str, Any], path: str, null: int) -> None:
        branch = self._emit(walk.BRANCH, null=null) if null != NOT_NULLABLE else None
        if schema["type"] in ("record", "error"):
            self._record(schema, f"{path}.")
        else:
            self._loop(schema, path)
        if branch is not None:
            self.rows[branch][walk.ARG] = self._label()

    def _loop(self, schema: dict[str, Any], path: str) -> None:
        """An array or a map: blocks of a count and that many items, until a count of 0."""
        table = self._arrays.get(path, 0)
        if self._depth == walk.LOOPS or (table and schema["type"] != "array"):
            raise _NotCoveredError
        loop = self._emit(walk.LOOP, to=self._depth)
        again = self._label()
        self._depth += 1
        if table:
            self._open_row(table)
        if schema["type"] == "map":
            self._emit(walk.SKIP_STRING)
        self._type(schema["items" if schema["type"] == "array" else "values"], f"{path}[]")
        self._depth -= 1
        self._emit(walk.NEXT, to=self._depth, arg=again, missing=int(table > 0))
        self.rows[loop][walk.ARG] = self._label()

    def _mapped(self, schema: dict[str, Any], path: str, null: int) -> None:
        if "logicalType" in schema or len(self._targets[path]) != 1:
            raise _NotCoveredError
        (target,) = self._targets[path]
        kind = _WRITERS.get((target.kind, schema["type"]))
        if kind is None:
            raise _NotCoveredError
        self._emit(kind, target.table, null=null, to=target.slot, missing=target.missing)

    def _skip(self, schema: dict[str, Any], null: int) -> None:
        kind = schema["type"]
        if kind == "null":
            return
        if kind == "enum":
            self._emit_alike(walk.SKIP_ENUM, null, len(schema["symbols"]))
            return
        size = schema["size"] if kind == "fixed" else _FIXED_BYTES.get(kind)
        if size is None:
            self._emit_alike(_SKIPS[kind], null, 0)
        elif 0 <= size <= _LARGEST_FIXED:
            self._emit_alike(walk.SKIP_FIXED, null, size)
        else:
            raise _NotCoveredError

    # emitting

    def _emit(self, kind: int, table: int = -1, **columns: int) -> int:
        self.rows.append(operation(kind, **columns))
        self.tables.append(table)
        return len(self.rows) - 1

    def _emit_alike(self, kind: int, null: int, arg: int) -> None:
        """One more operation that writes nothing, merged with the one before if that is the same."""
        last = self.rows[-1]
        if len(self.rows) > self._fence and last[walk.KIND] == kind and last[walk.NULL] == null:
            if kind == walk.SKIP_FIXED and null == NOT_NULLABLE and last[walk.ARG] + arg <= _LARGEST_FIXED:
                last[walk.ARG] += arg
                return
            if last[walk.ARG] == arg:
                last[walk.REPEAT] += 1
                return
        self._emit(kind, null=null, arg=arg)

    def _label(self) -> int:
        """The position of the next operation, as the target of a jump."""
        self._fence = len(self.rows)
        return self._fence


_FIXED_BYTES = {"float": 4, "double": 8}
_SKIPS = {
    "boolean": walk.SKIP_BOOL,
    "int": walk.SKIP_INT,
    "long": walk.SKIP_LONG,
    "bytes": walk.SKIP_BYTES,
    "string": walk.SKIP_STRING,
}
_WRITERS: dict[tuple[Kind | None, str], int] = {
    ("float", "float"): walk.FLOAT,
    ("float", "double"): walk.DOUBLE,
    ("float", "int"): walk.INT_AS_FLOAT,
    ("float", "long"): walk.LONG_AS_FLOAT,
    ("float", "boolean"): walk.BOOL_AS_FLOAT,
    ("int", "int"): walk.INT,
    ("int", "long"): walk.LONG,
    ("text", "string"): walk.TEXT,
    (None, "bytes"): walk.RANGE,
}
"""The operation for a value of an Avro type in a column of a kind."""


def _missing(kind: Kind, last: bool) -> int:
    """What a slot holds where its path has no value."""
    if kind == "float":
        return NAN_BITS if last else FLOAT_MISSING
    return 0 if kind == "int" else TEXT_MISSING
