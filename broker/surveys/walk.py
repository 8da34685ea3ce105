"""The compiled walk: Avro bytes to columns, by a linear program of small operations.

A program (made by `program.py`) is an int64 array, a row an operation, with the columns KIND to MISSING
below. The walk runs it over each record of a message. What is mapped goes into one arena of int64 (floats by
their bits) and one of text bytes. Nothing is read beyond the end of a record: every operation checks what it
needs first. A record that fails leaves no row behind; what it wrote lies beyond the row counters again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from broker.message import MAX_RECORDS

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

KIND, NULL, TO, ARG, REPEAT, MISSING, WIDTH = 0, 1, 2, 3, 4, 5, 6
"""Columns of a program. NULL is the byte that announces null in a union of null and one type (0 or 2; the
other of the two announces the type), NOT_NULLABLE where there is no union."""
NOT_NULLABLE = -1

(
    END, SKIP_FIXED, SKIP_BOOL, SKIP_ENUM, SKIP_LONG, SKIP_INT, INT_AS_FLOAT, INT, LONG, LONG_AS_FLOAT,
    BOOL_AS_FLOAT, FLOAT, DOUBLE, TEXT, RANGE, SKIP_STRING, SKIP_BYTES,
) = range(17)  # fmt: skip
"""Values: skipped, or (from INT_AS_FLOAT to RANGE) written as a number, as text, or as where they are."""
(INIT, ROW, LOOP, NEXT, BRANCH, SWITCH, JUMP) = range(17, 24)

(
    OK, TRUNCATED, LONG_NUMBER, LARGE_INT, BAD_BRANCH, BAD_LENGTH, BAD_BOOL, BAD_ENUM, BAD_COUNT, BAD_UTF8,
    TRAILING, LONG_TEXT, MANY_ROWS, FRAME, GROW_ROWS, GROW_TEXT, MANY_RECORDS,
) = range(17)  # fmt: skip
"""What stopped a walk."""
CODE_BITS = 5
"""Bits of the number that a walk returns which say what stopped it."""
FAULT_TEXT = {
    TRUNCATED: "the data end inside a value",
    LONG_NUMBER: "a number of more than 64 bits",
    LARGE_INT: "an int of more than 32 bits",
    BAD_BRANCH: "a union has no such branch",
    BAD_LENGTH: "a length is negative or more than what is left",
    BAD_BOOL: "a truth value is neither 0 nor 1",
    BAD_ENUM: "an enum has no such symbol",
    BAD_COUNT: "an array or map announces more items than bytes are left",
    BAD_UTF8: "text is not UTF-8",
    TRAILING: "the record ends before its data do",
    MANY_ROWS: "an array has too many items",
}

TABLES, LOOPS = 8, 32
"""Tables a layout may have and loops that may be inside each other."""
MAX_TEXT_BYTES = 128
"""Longest text a mapped field may hold: columns of text are as wide as their longest."""
MAX_ROWS = 1_000_000
"""Items of one record's array: far above any history, far below harm."""
SYNC_BYTES = 16

FAULT_AT, RECORD_AT, BLOCK_AT, RECORDS, TEXT_USED, FULL, META = range(7)
ROWS = META + 4
CAPACITY = ROWS + TABLES
AT_MESSAGE = CAPACITY + TABLES
AT_RECORD = AT_MESSAGE + TABLES + 1
LEFT = AT_RECORD + TABLES + 1
STATE_LENGTH = LEFT + LOOPS
"""Places in the walk's state: where the last fault was, counters of rows and of text, and each of those as it
was at the start of the message and of the record."""


_OPTIONS = {"cache": True, "nogil": True, "_nrt": False}
"""Without numba's reference counts: nothing here makes an array that outlives its call, and counting, which
is atomic, took over half of the time."""
_kernel = numba.njit(**_OPTIONS)
_inlined = numba.njit(**_OPTIONS, forceinline=True)


@_kernel
def walk(value, start, end, count, number, program, ints, text, state):  # type: ignore[no-untyped-def]
    """Read one message's records: what stopped it (OK if nothing did) + how many were good << CODE_BITS.

    value   : (b,) uint8, the message (or a block's plain data)
    start, end, count : one block of `count` records that fill start:end; or, with count -1, the blocks of an
              object container whose sync marker is at `start`
    number  : what to write as each record's message
    program, ints, text, state : as `arena.py` makes them

    Records before the first damage are kept. On GROW_* the whole message is taken back: enlarge, do it again;
    and on LONG_TEXT, which is no damage to what follows: leave the message to another way. On MANY_RECORDS
    too: then nothing of the message is read.
    """
    _save(state, AT_MESSAGE)
    state[RECORDS] = 0
    state[BLOCK_AT] = start
    if count < 0:
        code = _container(value, start, end, number, program, ints, text, state)
    else:
        code = _block(value, start, end, count, number, program, ints, text, state)
    if code in (GROW_ROWS, GROW_TEXT, LONG_TEXT, MANY_RECORDS):
        _restore(state, AT_MESSAGE)
    if code == MANY_RECORDS:
        state[RECORDS] = 0
    return code | state[RECORDS] << CODE_BITS


@_kernel
def _container(value, start, end, number, program, ints, text, state):  # type: ignore[no-untyped-def]
    """Blocks of (count, size, data, sync marker) up to the end."""
    pos = start + SYNC_BYTES
    if pos > end:
        return FRAME
    state[BLOCK_AT] = pos
    blocks = 0
    while pos < end:
        state[BLOCK_AT] = pos
        blocks += 1
        count, pos = _number(value, pos, end)
        if pos < 0 or count < 0:
            return FRAME
        size, pos = _number(value, pos, end)
        if pos < 0 or size < 0 or size > end - pos - SYNC_BYTES:
            return FRAME
        for k in range(SYNC_BYTES):
            if value[pos + size + k] != value[start + k]:
                return FRAME
        if blocks > MAX_RECORDS or count > MAX_RECORDS - state[RECORDS]:
            return MANY_RECORDS
        code = _block(value, pos, pos + size, count, number, program, ints, text, state)
        if code != OK:
            return code
        pos += size + SYNC_BYTES
    return OK if state[RECORDS] else FRAME


@_kernel
def _block(value, start, end, count, number, program, ints, text, state):  # type: ignore[no-untyped-def]
    """`count` records that fill start:end exactly; the last is not trusted if they do not."""
    if count > end - start or (count == 0 and end > start):
        return FRAME
    pos = start
    for left in range(count - 1, -1, -1):
        begin = pos
        _save(state, AT_RECORD)
        pos = _record(value, begin, end, program, ints, text, state)
        if left == 0 and 0 <= pos < end:
            state[FAULT_AT] = pos
            pos = -TRAILING
        if pos < 0:
            _restore(state, AT_RECORD)
            state[RECORD_AT] = begin
            return -pos
        row = state[ROWS] - 1
        ints[state[META] + row] = begin
        ints[state[META + 1] + row] = pos
        ints[state[META + 2] + row] = number
        ints[state[META + 3] + row] = state[RECORDS]
        state[RECORDS] += 1
    return OK


@_kernel
def _save(state, to):  # type: ignore[no-untyped-def]
    for table in range(TABLES):
        state[to + table] = state[ROWS + table]
    state[to + TABLES] = state[TEXT_USED]


@_kernel
def _restore(state, saved):  # type: ignore[no-untyped-def]
    for table in range(TABLES):
        state[ROWS + table] = state[saved + table]
    state[TEXT_USED] = state[saved + TABLES]


@_inlined
def _number(value, pos, end):  # type: ignore[no-untyped-def]
    """(number, position after it) of a zig-zag number; a negative position is minus the fault."""
    if pos >= end:
        return np.int64(0), np.int64(-TRUNCATED)
    byte = np.uint64(value[np.uint64(pos)])
    pos += 1
    if byte < np.uint64(0x80):
        return np.int64(byte >> np.uint64(1)) ^ -np.int64(byte & np.uint64(1)), np.int64(pos)
    raw = byte & np.uint64(0x7F)
    shift = np.uint64(7)
    while byte > np.uint64(0x7F):
        if pos >= end:
            return np.int64(0), np.int64(-TRUNCATED)
        byte = np.uint64(value[np.uint64(pos)])
        pos += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return np.int64(0), np.int64(-LONG_NUMBER)
        raw |= (byte & np.uint64(0x7F)) << shift
        shift += np.uint64(7)
    return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), np.int64(pos)


@_inlined
def _little(value, pos, size):  # type: ignore[no-untyped-def]
    """`size` bytes as a little-endian number."""
    bits = np.uint64(0)
    for k in range(size):
        bits |= np.uint64(value[np.uint64(pos + k)]) << np.uint64(8 * k)
    return bits


@_kernel
def _is_utf8(value, pos, end):  # type: ignore[no-untyped-def]
    """Whether bytes are UTF-8 as Python takes it: shortest forms only, no surrogates, up to U+10FFFF."""
    together = np.uint8(0)
    for k in range(np.uint64(pos), np.uint64(end)):  # without a jump out of it, so that it becomes wide
        together |= value[k]
    if together < 0x80:
        return True
    while pos < end:
        first = np.int64(value[pos])
        pos += 1
        if first < 0x80:
            continue
        if first < 0xC2 or first > 0xF4:
            return False
        more = 1 + (first >= 0xE0) + (first >= 0xF0)
        if pos + more > end:
            return False
        second = np.int64(value[pos])
        low, high = 0x80, 0xBF
        if first == 0xE0:
            low = 0xA0
        elif first == 0xED:
            high = 0x9F
        elif first == 0xF0:
            low = 0x90
        elif first == 0xF4:
            high = 0x8F
        if second < low or second > high:
            return False
        for k in range(1, more):
            if value[pos + k] & 0xC0 != 0x80:
                return False
        pos += more
    return True


@_kernel
def _long_branch(value, pos, end, null):  # type: ignore[no-untyped-def]
    """`_null_or_not` for a branch that is no branch, or written in more bytes than it needs."""
    branch, pos = _number(value, pos, end)
    if pos >= 0 and (branch < 0 or branch > 1):
        return False, np.int64(-BAD_BRANCH)
    return 2 * branch == null, pos


@_inlined
def _null_or_not(value, pos, end, null):  # type: ignore[no-untyped-def]
    """(whether a union of null and one type holds null, position after its branch)."""
    if pos >= end:
        return False, np.int64(-TRUNCATED)
    byte = np.int64(value[np.uint64(pos)])
    if byte | 2 == 2:
        return byte == null, pos + 1
    return _long_branch(value, pos, end, null)


@_inlined
def _skip_fixed(value, pos, end, null, size, repeat):  # type: ignore[no-untyped-def]
    """Position after `repeat` values of `size` bytes each, all of which may be null or none."""
    if null == NOT_NULLABLE:
        pos += size * repeat
    else:
        for _ in range(repeat):
            if pos >= end:
                return -TRUNCATED
            byte = np.int64(value[np.uint64(pos)])
            if byte | 2 == 2:  # arithmetic, because a jump that depends on the data is often guessed wrong
                pos += 1 + (size & -((byte ^ null) >> 1))
            else:
                is_null, pos = _long_branch(value, pos, end, null)
                if pos < 0:
                    return pos
                pos += 0 if is_null else size
    return pos if pos <= end else -TRUNCATED


@_inlined
def _bytes(kind, value, pos, end, start, place, ints, text, state):  # type: ignore[no-untyped-def]
    """Position after text or bytes; what is mapped leaves its place."""
    size, pos = _number(value, pos, end)
    if pos < 0:
        return pos
    if size < 0 or size > end - pos:
        return -BAD_LENGTH
    if kind == RANGE:
        ints[np.uint64(place)] = (pos - start) << 32 | size
    elif kind != SKIP_BYTES and not _is_utf8(value, pos, pos + size):
        return -BAD_UTF8
    if kind == TEXT:
        if size > MAX_TEXT_BYTES:
            return -LONG_TEXT
        used = state[TEXT_USED]
        if used + size > len(text):
            return -GROW_TEXT
        for k in range(size):
            text[np.uint64(used + k)] = value[np.uint64(pos + k)]
        ints[np.uint64(place)] = used << 16 | size
        state[TEXT_USED] = used + size
    return pos + size


@_inlined
def _whole_number(kind, value, pos, end, place, symbols, ints, floats):  # type: ignore[no-untyped-def]
    """Position after an int, a long or the index of an enum's symbol; what is mapped is written."""
    number, pos = _number(value, pos, end)
    if pos < 0:
        return pos
    if kind == SKIP_ENUM:
        return pos if 0 <= number < symbols else -BAD_ENUM
    if SKIP_INT <= kind <= INT and number != np.int64(np.int32(number)):
        return -LARGE_INT
    if INT <= kind <= LONG:
        ints[np.uint64(place)] = number
    elif kind > SKIP_INT:
        floats[np.uint64(place)] = np.float64(number)
    return pos


@_inlined
def _bool(kind, value, pos, end, place, floats):  # type: ignore[no-untyped-def]
    """Position after a truth value."""
    if pos >= end:
        return -TRUNCATED
    if value[pos] > 1:
        return -BAD_BOOL
    if kind == BOOL_AS_FLOAT:
        floats[np.uint64(place)] = np.float64(value[pos])
    return pos + 1


@_inlined
def _items(value, pos, end):  # type: ignore[no-untyped-def]
    """(items of the next block of an array or map, 0 after the last; position after that number)."""
    items, pos = _number(value, pos, end)
    if pos >= 0 and items < 0:  # the block's size in bytes follows; walking it finds its end anyway
        items = -items
        _, pos = _number(value, pos, end)
    if pos >= 0 and (items < 0 or items > end - pos):
        return items, np.int64(-BAD_COUNT)
    return items, pos


@_inlined
def _open_row(table, tables, starts, ints, state):  # type: ignore[no-untyped-def]
    """The new row of a table, or minus the fault. An alert's also notes where its children's rows begin."""
    row = state[ROWS + table]
    if row >= state[CAPACITY + table]:
        state[FULL] = table
        return -GROW_ROWS
    if row - state[AT_RECORD + table] >= MAX_ROWS:
        return -MANY_ROWS
    state[ROWS + table] = row + 1
    if table == 0:
        for child in range(1, tables):
            ints[starts + (child - 1) * state[CAPACITY] + row] = state[ROWS + child]
    return row


@_kernel
def _record(value, pos, end, program, ints, text, state):  # type: ignore[no-untyped-def]  # noqa: PLR0915
    """Position after one record, or minus the fault (its place is then in state[FAULT_AT])."""
    floats = ints.view(np.float64)
    words, singles = ints.view(np.uint32), ints.view(np.float32)
    start = pos
    own_row = row = np.int64(0)
    pc = 0
    while program[np.uint64(pc), KIND] != END:
        op = np.uint64(pc)
        kind, null, arg, repeat = program[op, KIND], program[op, NULL], program[op, ARG], program[op, REPEAT]
        state[FAULT_AT] = pos
        pc += 1
        if kind == SKIP_FIXED:
            pos = _skip_fixed(value, pos, end, null, arg, repeat)
        elif kind == FLOAT and end - pos >= 5 and (null == NOT_NULLABLE or value[np.uint64(pos)] | 2 == 2):
            # what a packet holds most of, so it goes first; any other float takes the general way below
            place = program[op, TO] + row
            if null != NOT_NULLABLE and np.int64(value[np.uint64(pos)]) == null:
                ints[np.uint64(place)] = program[op, MISSING]
                pos += 1
            else:
                pos += null != NOT_NULLABLE
                words[np.uint64(2 * place)] = np.uint32(_little(value, pos, 4))
                floats[np.uint64(place)] = np.float64(singles[np.uint64(2 * place)])
                pos += 4
        elif kind == INIT:
            ints[program[op, TO] + row] = program[op, MISSING]
        elif kind == ROW:
            row = _open_row(arg, repeat, program[op, TO], ints, state)
            if row < 0:
                return row
            if arg == 0:
                own_row = row
        elif kind == JUMP:
            pc = arg
        elif kind == LOOP or kind == NEXT:  # noqa: PLR1714, SIM109
            depth, is_table = LEFT + program[op, TO], program[op, MISSING] == 1
            state[depth] -= 1
            if kind == LOOP or state[depth] == 0:
                state[depth], pos = _items(value, pos, end)
            if (kind == LOOP) == (state[depth] == 0):
                pc = arg
            if is_table and state[depth] == 0:
                row = own_row
        elif kind == SWITCH:
            branch, pos = _number(value, pos, end)
            if pos >= 0 and (branch < 0 or branch >= arg):
                return -BAD_BRANCH
            pc += branch  # a row of jumps follows
        else:
            place = program[op, TO] + row
            for _ in range(repeat):
                if null != NOT_NULLABLE:
                    is_null, pos = _null_or_not(value, pos, end, null)
                    if pos < 0:
                        return pos
                    if is_null:
                        if kind == BRANCH:
                            pc = arg
                        elif INT_AS_FLOAT <= kind <= RANGE:
                            ints[np.uint64(place)] = program[op, MISSING]
                        continue
                if kind == FLOAT:
                    if end - pos < 4:
                        return -TRUNCATED
                    words[np.uint64(2 * place)] = np.uint32(_little(value, pos, 4))
                    floats[np.uint64(place)] = np.float64(singles[np.uint64(2 * place)])
                    pos += 4
                elif kind == DOUBLE:
                    if end - pos < 8:
                        return -TRUNCATED
                    ints[np.uint64(place)] = np.int64(_little(value, pos, 8))
                    pos += 8
                elif TEXT <= kind <= SKIP_BYTES:
                    pos = _bytes(kind, value, pos, end, start, place, ints, text, state)
                elif kind == SKIP_BOOL or kind == BOOL_AS_FLOAT:  # noqa: PLR1714, SIM109
                    pos = _bool(kind, value, pos, end, place, floats)
                elif kind != BRANCH:
                    pos = _whole_number(kind, value, pos, end, place, arg, ints, floats)
                if pos < 0:
                    return pos
        if pos < 0:
            return pos
    return pos


@_kernel
def text_width(places, text):  # type: ignore[no-untyped-def]
    """Characters of the longest text.  places : (n,) as the walk left them (start << 16 | bytes)."""
    widest = 1
    for place in places:
        if place >= 0:
            width = 0
            for k in range(place >> 16, (place >> 16) + (place & 0xFFFF)):
                width += text[k] & 0xC0 != 0x80
            widest = max(widest, width)
    return widest


@_kernel
def write_text(places, text, width, out):  # type: ignore[no-untyped-def]
    """Texts as code points, `width` a text.  out : (n * width,) uint32 of zeros."""
    for row in range(len(places)):
        if places[row] < 0:
            continue
        pos = places[row] >> 16
        end = pos + (places[row] & 0xFFFF)
        to = row * width
        while pos < end:
            first = np.uint32(text[pos])
            more = np.int64(first >= 0xC2) + np.int64(first >= 0xE0) + np.int64(first >= 0xF0)
            point = first if more == 0 else first & np.uint32(0x3F >> more)
            for k in range(1, more + 1):
                point = point << np.uint32(6) | np.uint32(text[pos + k] & 0x3F)
            out[to] = point
            to += 1
            pos += 1 + more


@dataclass(frozen=True, slots=True)
class WalkFault:
    """What stopped a walk, and where: positions are in the bytes that were walked.

    index : of the record in what was walked;  at : of the value that could not be read
    """

    code: int
    at: int
    record: int
    block: int
    index: int


def fault_of(code: int, state: I64) -> WalkFault:
    """The fault of a walk that `code` stopped."""
    at, record, block, index = (int(state[k]) for k in (FAULT_AT, RECORD_AT, BLOCK_AT, RECORDS))
    return WalkFault(code, at, record, block, index)


def state_of(rows: int) -> I64:
    """A state before the first message, with room for `rows` alerts."""
    state: I64 = np.zeros(STATE_LENGTH, dtype=np.int64)
    state[CAPACITY] = rows
    return state


def operation(kind: int, **columns: Any) -> list[int]:
    """One row of a program."""
    row = {"null": NOT_NULLABLE, "to": -1, "arg": 0, "repeat": 1, "missing": 0} | columns
    return [kind, *(int(row[name]) for name in ("null", "to", "arg", "repeat", "missing"))]
