"""The memory that the walk fills: one arena a survey and batch, and its columns at the end.

Each table is a block of int64 columns of equal capacity; floats are there by their bits, text by its place
in a second, byte-wide block. Capacity beyond what a batch fills is never touched, so it costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from broker.surveys import walk
from broker.surveys.columns import Child, Field, Layout, RawColumns
from broker.surveys.program import FLOAT_MISSING, Plan, Program, plan_of, program_of
from broker.surveys.walk import I64, U8
from broker.surveys.writer import writer_schema

_BYTES_A_CHILD_ROW = 256
_BYTES_A_TEXT_BYTE = 32
"""One in so many bytes of a batch: more than the surveys' packets need, so that growing is rare."""
_LEAST_ROWS = 64
_BYTE = np.dtype(np.uint8)
_MISSING = {"float": FLOAT_MISSING, "int": 0, "text": -1}
_CODE = (1 << walk.CODE_BITS) - 1


class Arena:
    """What one survey's packets of a batch have been read into."""

    def __init__(self, layout: Layout, messages: int, size: int) -> None:
        """Room for some messages of `size` bytes together; it grows when that is not enough."""
        self._plan: Plan = plan_of(layout)
        self._state = walk.state_of(messages + _LEAST_ROWS)
        tables = len(self._plan.slots)
        self._state[walk.CAPACITY + 1 : walk.CAPACITY + tables] = size // _BYTES_A_CHILD_ROW + _LEAST_ROWS
        self._text: U8 = np.empty(size // _BYTES_A_TEXT_BYTE + walk.MAX_TEXT_BYTES, dtype=np.uint8)
        self._fallbacks: set[tuple[int, int]] = set()
        self._allocate()

    def __len__(self) -> int:
        return int(self._state[walk.ROWS])

    def read(
        self, value: bytes, start: int, end: int, count: int, number: int, program: Program
    ) -> tuple[int, walk.WalkFault | None]:
        """Read the records of one message (see `walk.walk`): how many were good, and what stopped it."""
        data = np.frombuffer(value, _BYTE)
        while True:
            operations = self._bound.get(program)
            if operations is None:
                operations = self._bind(program)
            told = walk.walk(data, start, end, count, number, operations, self._ints, self._text, self._state)
            code = told & _CODE
            if code == walk.OK:
                return told >> walk.CODE_BITS, None
            if code == walk.GROW_ROWS:
                self._grow_rows()
            elif code == walk.GROW_TEXT:
                self._text = np.concatenate([self._text, np.empty_like(self._text)])
            else:
                return told >> walk.CODE_BITS, walk.fault_of(code, self._state)

    def mark(self) -> I64:
        """What `back_to` needs to forget all that is read from here on."""
        return self._state[walk.ROWS : walk.CAPACITY].copy()

    def back_to(self, mark: I64) -> None:
        """Forget what was read after `mark`."""
        self._state[walk.ROWS : walk.CAPACITY] = mark

    # the columns, once everything is read

    def where(self) -> tuple[I64, I64, I64, I64]:
        """For each record: its start and end in what was given to `read`, its message, its index in that."""
        start, end, message, index = (self._slot(0, number) for number in range(4))
        return start, end, message, index

    def cutouts(self) -> I64:
        """(n, 3, 2) start and end of each cutout in its record; 0, 0 where there is none."""
        ranges: I64 = np.zeros((len(self), 3, 2), dtype=np.int64)
        for number in range(len(self._plan.layout.cutouts)):
            place = self._slot(0, self._plan.cutouts + number)
            place = np.where(place < 0, 0, place)
            start = np.right_shift(place, 32, out=ranges[:, number, 0])
            np.add(start, place & 0xFFFF_FFFF, out=ranges[:, number, 1])
        return ranges

    def columns(self) -> RawColumns:
        """Everything the layout names."""
        plan = self._plan
        children = {}
        for table, child in enumerate(plan.layout.children, start=1):
            starts = np.append(self._slot(0, plan.starts + table - 1), self._state[walk.ROWS + table])
            children[child.name] = Child(self._table(table), starts)
        return RawColumns(len(self), self._table(0), children)

    def _table(self, table: int) -> dict[str, npt.NDArray[Any]]:
        return {item.name: self._column(table, item, slots) for item, slots in self._plan.fields[table]}

    def _column(self, table: int, item: Field, slots: range) -> npt.NDArray[Any]:
        """A field's column: of its paths' slots, the first that is not missing."""
        places = self._slot(table, slots[0])
        for slot in slots[1:]:
            if (table, slot) in self._fallbacks:
                places = np.where(places == _MISSING[item.kind], self._slot(table, slot), places)
        if item.kind == "text":
            return self._texts(places)
        return places.view(np.float64) if item.kind == "float" else places

    def _texts(self, places: I64) -> npt.NDArray[Any]:
        width = walk.text_width(places, self._text)
        points = np.zeros(len(places) * width, dtype=np.uint32)
        walk.write_text(places, self._text, width, points)
        return points.view(f"<U{width}")

    # memory

    def _slot(self, table: int, slot: int) -> I64:
        begin = self._base.item(table) + slot * self._state.item(walk.CAPACITY + table)
        return self._ints[begin : begin + self._state.item(walk.ROWS + table)]

    def _allocate(self) -> None:
        """New memory for the capacities in the state."""
        tables = len(self._plan.slots)
        capacities = self._state[walk.CAPACITY : walk.CAPACITY + tables]
        ends: I64 = np.cumsum(np.array(self._plan.slots) * capacities)
        self._base: I64 = np.append(0, ends[:-1])
        self._ints: I64 = np.empty(ends[-1], dtype=np.int64)
        capacity = int(capacities[0])
        self._state[walk.META : walk.META + 4] = np.arange(4) * capacity
        self._bound: dict[Program, I64] = {}

    def _grow_rows(self) -> None:
        """Twice the room in every table that is full: what is there moves."""
        tables = range(len(self._plan.slots))
        filled = [
            [self._slot(table, slot) for slot in range(slots)] for table, slots in enumerate(self._plan.slots)
        ]
        self._state[walk.CAPACITY + int(self._state[walk.FULL])] *= 2
        self._allocate()
        for table in tables:
            for slot, values in enumerate(filled[table]):
                self._slot(table, slot)[:] = values

    def _bind(self, program: Program) -> I64:
        """A program's operations with places in this arena for slots."""
        operations = program.operations.copy()
        capacity, base = self._state[walk.CAPACITY + program.table], self._base[program.table]
        operations[program.writes, walk.TO] = base + program.slot * capacity
        self._bound[program] = operations
        self._fallbacks |= program.fallbacks
        return operations


def warm_up() -> None:
    """Compile (or load from the cache) the walk and what turns its text into columns."""
    text = '{"type": "record", "name": "warm", "fields": [{"name": "up", "type": "string"}]}'
    layout = Layout((Field("up", "text", ("up",)),), ())
    program = program_of(writer_schema(text), layout)
    if program is None:
        raise AssertionError("the smallest schema cannot be read")
    arena = Arena(layout, 1, 1)
    arena.read(b"\x02x", 0, 2, 1, 0, program)
    arena.columns()
