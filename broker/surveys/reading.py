"""One survey's records of a batch: read by the compiled walk where it can, by fastavro where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker.batch import RecordBytes
from broker.message import MAX_RECORDS
from broker.surveys import walk
from broker.surveys.arena import Arena
from broker.surveys.avro import (
    Damaged,
    Fault,
    Framed,
    Record,
    announced,
    container_fault,
    plain_blocks,
    read_record,
    too_many,
)
from broker.surveys.columns import DATA_ERRORS, Layout, Picked, RawColumns, columns_of, pick
from broker.surveys.program import Program, program_of
from broker.surveys.walk import I64
from broker.surveys.writer import WriterSchema


@dataclass(frozen=True)
class Rows:
    """n records of one survey as raw columns, and where each was: record `index` of message `message`."""

    raw: RawColumns
    message: I64
    index: I64
    records: RecordBytes
    schemas: Sequence[WriterSchema]
    cutouts: I64

    def __len__(self) -> int:
        return len(self.message)

    def take(self, rows: I64) -> Rows:
        """Some of the records, in the order asked for."""
        return Rows(
            self.raw.take(rows), self.message[rows], self.index[rows], self.records.take(rows),
            [self.schemas[row] for row in rows.tolist()], self.cutouts[rows],
        )  # fmt: skip

    def merged_with(self, other: Rows) -> Rows:
        """These records and those of `other`, in the order of the messages."""
        both = Rows(
            self.raw.followed_by(other.raw),
            np.concatenate([self.message, other.message]),
            np.concatenate([self.index, other.index]),
            self.records.followed_by(other.records),
            [*self.schemas, *other.schemas],
            np.concatenate([self.cutouts, other.cutouts]),
        )
        return both.take(np.lexsort((both.index, both.message)))


@dataclass(frozen=True, slots=True)
class Misshapen:
    """A record that does not hold what the layout expects of it."""

    message: int
    index: int
    schema: WriterSchema
    record: bytes
    detail: str


NOTHING = Layout((), ())
"""Reads nothing of a record but where it is: a survey's that we do not know."""
_FREE_RATIO = 8
"""So many times its own size any message may have when it is decompressed: real ones have 1 to 5 times."""
_SHARED_BYTES = 256 << 20
"""Beyond that all messages of a batch have so many bytes together."""


class PlainBytes:
    """How many decompressed bytes the messages of a batch may still have."""

    def __init__(self) -> None:
        self._shared = _SHARED_BYTES

    def most(self, size: int) -> int:
        """Of a message of `size` bytes."""
        return _FREE_RATIO * size + self._shared

    def take(self, size: int, plain: int) -> None:
        """Note that a message of `size` bytes had so many."""
        self._shared -= max(0, plain - _FREE_RATIO * size)


_Piece = tuple[int, bytes, WriterSchema, int]
"""Bytes that were walked in one go, a message or a block of one: (message, bytes, schema, records of the same
message before it).  A plain tuple, for one is made for every message."""


class SurveyReader:
    """Reads one survey's messages of a batch, one after another."""

    def __init__(
        self, layout: Layout, messages: int, size: int, plain_bytes: PlainBytes | None = None
    ) -> None:
        """Of a batch of so many messages, of `size` bytes together.

        plain_bytes : what the readers of a batch have in common
        """
        self._layout = layout
        self._plain_bytes = plain_bytes or PlainBytes()
        self._room = messages, size
        self._arena: Arena | None = None
        self._programs: dict[WriterSchema, Program | None] = {}
        self._pieces: list[_Piece] = []
        self._picked: list[tuple[int, int, Record, Picked]] = []
        self.misshapen: list[Misshapen] = []
        """Records read by fastavro that could not be made into columns; complete after `rows`."""

    def program(self, schema: WriterSchema) -> Program | None:
        """What the walk does with a writer schema; None if it is left to fastavro."""
        try:
            return self._programs[schema]
        except KeyError:
            return self._programs.setdefault(schema, program_of(schema, self._layout))

    def read(self, number: int, value: bytes, framed: Framed) -> tuple[int, Fault | None] | None:
        """Walk a message's records: how many were good, and what was wrong with the one after them.

        None when the message is better left to `read_slowly`; then nothing of it was kept.
        """
        program = self.program(framed.schema)
        if program is None:
            return None
        if self._arena is None:
            self._arena = Arena(self._layout, *self._room)
        if framed.codec in (None, "null"):
            count = 1 if framed.codec is None else -1
            good, fault = self._arena.read(value, framed.start, len(value), count, len(self._pieces), program)
            self._pieces.append((number, value, framed.schema, 0))
            if fault is None:
                return good, None
            return None if fault.code == walk.LONG_TEXT else (good, _explain(fault, value, framed))
        records = announced(value, framed)
        if records > MAX_RECORDS:
            return 0, too_many(records)
        return self._read_blocks(self._arena, number, value, framed, program)

    def _read_blocks(
        self, arena: Arena, number: int, value: bytes, framed: Framed, program: Program
    ) -> tuple[int, Fault | None] | None:
        """The same for a container whose blocks are compressed."""
        before = arena.mark()
        good, size = 0, 0
        try:
            for count, plain, start in plain_blocks(value, framed, self._plain_bytes.most(len(value))):
                size += len(plain)
                if not count:
                    continue
                more, fault = arena.read(plain, 0, len(plain), count, len(self._pieces), program)
                self._pieces.append((number, plain, framed.schema, good))
                if fault is not None and fault.code == walk.LONG_TEXT:
                    arena.back_to(before)
                    return None
                good += more
                if fault is not None:
                    return good, _damage(fault, good, f"in the plain data of the block at byte {start}")
        except Damaged as damage:
            return good, damage.fault
        finally:
            self._plain_bytes.take(len(value), size)
        return good, None

    def read_slowly(self, number: int, value: bytes, framed: Framed) -> tuple[int, Fault | None]:
        """Read a message's records by fastavro, one after the other: as `read`, for what that leaves.

        Where the records are is found by a walk that keeps nothing of them, so that bad data cost no more
        than they do there.
        """
        outline = SurveyReader(NOTHING, 1, len(value), self._plain_bytes)
        walked = outline.read(number, value, framed)
        if walked is None:
            return 0, Fault("unsupported_schema", f"schema {framed.schema.name[:60]!r} is nested too deeply")
        rows = outline.rows()
        for index, datum in enumerate(rows.records if rows is not None else ()):
            self._add_one(number, index, datum, framed.schema)
        return walked

    def _add_one(self, number: int, index: int, datum: bytes, schema: WriterSchema) -> None:
        try:
            self.add(number, [read_record(datum, schema)], index)
        except Damaged as damage:
            self.misshapen.append(Misshapen(number, index, schema, datum, damage.fault.detail))

    def add(self, number: int, records: Sequence[Record], first: int = 0) -> None:
        """Take a message's records as fastavro read them.  first : the index of the first"""
        for index, record in enumerate(records, start=first):
            try:
                self._picked.append((number, index, record, pick(record, self._layout)))
            except DATA_ERRORS as error:
                self._refuse(number, index, record, error)

    def rows(self) -> Rows | None:
        """Everything that was read, in the order of the messages; None if that is nothing."""
        walked = self._walked_rows()
        picked = self._picked_rows()
        if walked is None or picked is None:
            return walked if picked is None else picked
        return walked.merged_with(picked)

    def _walked_rows(self) -> Rows | None:
        if self._arena is None or not len(self._arena):
            return None
        start, end, piece, index = self._arena.where()
        pieces = self._pieces
        message = np.array([number for number, _, _, _ in pieces], dtype=np.int64)
        first = np.array([before for _, _, _, before in pieces], dtype=np.int64)
        return Rows(
            self._arena.columns(),
            message[piece],
            index + first[piece],
            RecordBytes([value for _, value, _, _ in pieces], piece, start, end),
            [pieces[number][2] for number in piece.tolist()],
            self._arena.cutouts(),
        )

    def _picked_rows(self) -> Rows | None:
        raw = self._picked_columns()
        if raw is None:
            return None
        records = [record for _, _, record, _ in self._picked]
        lengths = np.array([len(record.datum) for record in records], dtype=np.int64)
        numbers = np.arange(len(records))
        cutouts = np.zeros((len(records), 3, 2), dtype=np.int64)
        for row, (_, _, _, picked) in enumerate(self._picked):
            cutouts[row, : len(picked.cutouts)] = np.array(picked.cutouts).reshape(-1, 2)
        return Rows(
            raw,
            np.array([number for number, _, _, _ in self._picked], dtype=np.int64),
            np.array([index for _, index, _, _ in self._picked], dtype=np.int64),
            RecordBytes([record.datum for record in records], numbers, np.zeros_like(numbers), lengths),
            [record.schema for record in records],
            cutouts,
        )

    def _picked_columns(self) -> RawColumns | None:
        """The columns of what fastavro read; records with a value of another kind than its column's go."""
        try:
            return (
                columns_of([picked for _, _, _, picked in self._picked], self._layout)
                if self._picked
                else None
            )
        except DATA_ERRORS:
            kept = []
            for number, index, record, picked in self._picked:
                try:
                    columns_of([picked], self._layout)
                    kept.append((number, index, record, picked))
                except DATA_ERRORS as error:
                    self._refuse(number, index, record, error)
            if len(kept) == len(self._picked):
                raise  # each alone is fine: the fault is ours, not the data's
            self._picked = kept
            return self._picked_columns()

    def _refuse(self, number: int, index: int, record: Record, error: Exception) -> None:
        detail = wrong_shape(error)
        self.misshapen.append(Misshapen(number, index, record.schema, record.datum, detail))


def wrong_shape(error: Exception) -> str:
    """What to say of a record that does not hold what it should."""
    return f"a field does not hold what it should: {type(error).__name__}: {str(error)[:200]}"


def _explain(fault: walk.WalkFault, value: bytes, framed: Framed) -> Fault:
    if fault.code == walk.MANY_RECORDS:
        return too_many(MAX_RECORDS + 1)
    if fault.code == walk.FRAME:
        if framed.codec is None:  # the framing announces one record, and there is not a byte of it
            fault = replace(fault, code=walk.TRUNCATED, at=framed.start, record=framed.start)
        else:
            return container_fault(value, framed.start, fault.block)
    return _damage(fault, fault.index, f"at byte {fault.record}")


def _damage(fault: walk.WalkFault, index: int, where: str) -> Fault:
    """A record that could not be read: which, where, why."""
    reason = "too_large" if fault.code == walk.MANY_ROWS else "undecodable"
    text = walk.FAULT_TEXT[fault.code]
    return Fault(reason, f"record {index} {where}: {text} (datum byte {fault.at - fault.record})")
