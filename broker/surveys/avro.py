"""Messages to decoded records: Avro object containers and Confluent framing.

Each record keeps its original bytes. What is damaged becomes a `Fault` that says where; nothing here
raises for bad data, hangs, or allocates more than the data can fill.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol

import fastavro
import fastavro.read

from broker.errors import SchemaError
from broker.message import MAX_INPUT_BYTES, MAX_RECORDS
from broker.schemas import lsst_schema
from broker.surveys.codecs import CODECS, TooLarge, decompress
from broker.surveys.writer import WriterSchema, writer_schema

CONTAINER_MAGIC = b"Obj\x01"
CONFLUENT_MAGIC = b"\x00"
_SYNC_BYTES = 16
_MAX_CACHED_HEADER = 1 << 20
_MAX_ENTRIES = 1000
"""Of a container's header, which needs two."""
_KNOWN_HEADERS, _LARGEST_KNOWN_HEADER = 32, 1 << 18
_MAX_SLOW_BYTES = 1 << 20
"""Of a record that only fastavro can read: its values take up to 300 times as much."""
_MAX_IN_A_FILE = 100_000
_MAX_PLAIN_BYTES = 64 << 20
"""Decompressed bytes of one message: four times the largest message we take."""

_LONGEST_DECIMAL = 64
"""Bytes of a decimal number, 154 digits: the time to make one grows as the square of its length."""


def _short(read: Callable[..., Any]) -> Callable[..., Any]:
    """A reader of decimal numbers that refuses long ones."""

    def bounded(data: bytes, *rest: Any) -> Any:
        if len(data) > _LONGEST_DECIMAL:
            raise ValueError(f"a decimal number of {len(data):,} bytes; at most {_LONGEST_DECIMAL} are read")
        return read(data, *rest)

    return bounded


for _kind in ("bytes-decimal", "fixed-decimal"):
    fastavro.read.LOGICAL_READERS[_kind] = _short(fastavro.read.LOGICAL_READERS[_kind])


class SchemaSource(Protocol):
    """Where the writer schemas of Confluent-framed messages come from."""

    def get(self, schema_id: int) -> str | None:
        """The schema's JSON text, None when nobody knows the id. Called for every message: keep it quick.

        May raise RetryBatch: whether anybody knows the id cannot be told now.
        """


class LocalSchemas:
    """Rubin's alert schemas that are part of this package."""

    def get(self, schema_id: int) -> str | None:
        """The schema's JSON text, None when the package does not hold it."""
        return _local_schema(schema_id) if schema_id > 0 else None


@cache
def _local_schema(schema_id: int) -> str | None:
    schema = lsst_schema(schema_id)
    return None if schema is None else json.dumps(schema, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded record: its values, its original bytes (the Avro datum) and the schema of both."""

    values: dict[str, Any]
    datum: bytes
    schema: WriterSchema


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the rest of a message could not be read; `reason` is one of `broker.message.REASONS`."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What a message held: its good records in order, then at most one fault for all that follows them."""

    records: list[Record]
    fault: Fault | None = None
    schema_id: int = 0


class Damaged(Exception):
    """Stops the reading of one message; becomes its fault."""

    def __init__(self, reason: str, detail: str, schema_id: int = 0) -> None:
        super().__init__(detail)
        self.fault = Fault(reason, detail)
        self.schema_id = schema_id


@dataclass(frozen=True, slots=True)
class Framed:
    """Where the records of a message are, unread.

    start : of the datum (Confluent framing), or of the sync marker before a container's blocks
    codec : of a container's blocks; None for Confluent framing
    """

    schema: WriterSchema
    start: int
    codec: str | None
    schema_id: int = 0


def frame(value: bytes, schemas: SchemaSource) -> Framed:
    """What a message's first bytes say.  Raises Damaged when they cannot be understood."""
    if not value:
        raise Damaged("empty", "the message has no bytes")
    if len(value) > MAX_INPUT_BYTES:
        raise Damaged("too_large", f"{len(value):,} bytes; at most {MAX_INPUT_BYTES:,} are read")
    if value.startswith(CONFLUENT_MAGIC):
        return _confluent_frame(value, schemas)
    return _HEADERS.find(value) or _HEADERS.read(value)


def container_fault(value: bytes, sync_start: int, block_start: int) -> Fault:
    """What is wrong with a container's framing, for a person: with the block at `block_start`, if any."""
    sync = value[sync_start : sync_start + _SYNC_BYTES]
    try:
        if sync_start < block_start < len(value):
            count, data, _ = _block(value, block_start, sync)
            _expect_room(count, data, block_start)
        _expect_sync(value, sync)
    except Damaged as damage:
        return damage.fault
    return NO_RECORD


NO_RECORD = Fault("empty", "the container holds no record, only a header")


def announced(value: bytes, framed: Framed) -> int:
    """How many records a container says it holds, up to its first damage; each block counts one at least.

    Returns MAX_RECORDS + 1 for all that is more.  Confluent framing announces one.
    """
    if framed.codec is None:
        return 1
    start, total = framed.start, 0
    position, sync = start + _SYNC_BYTES, value[start : start + _SYNC_BYTES]
    try:
        while position < len(value) and total <= MAX_RECORDS:
            count, size, position = _block_place(value, position, sync)
            total += max(1, count)
            position += size + _SYNC_BYTES
    except Damaged:
        pass
    return min(total, MAX_RECORDS + 1)


def too_many(records: int) -> Fault:
    """Why a message of so many records is not read."""
    said = f"{records:,}" if records <= MAX_RECORDS else f"more than {MAX_RECORDS:,}"
    return Fault("too_large", f"{said} records in one message; none of them is read: send them one by one")


def plain_blocks(
    value: bytes, framed: Framed, most: int = _MAX_PLAIN_BYTES
) -> Iterator[tuple[int, bytes, int]]:
    """(count of records, decompressed data, position) of each block of a container.

    most : decompressed bytes of all blocks.  Raises Damaged at the first block that is damaged or too large,
    or when there is no record at all.
    """
    sync = value[framed.start : framed.start + _SYNC_BYTES]
    _expect_sync(value, sync)
    position, budget, total = framed.start + _SYNC_BYTES, min(most, _MAX_PLAIN_BYTES), 0
    while position < len(value):
        start = position
        count, data, position = _block(value, start, sync)
        plain = _plain(framed.codec or "null", data, budget, start)
        _expect_room(count, plain, start)
        budget -= len(plain)
        total += count
        yield count, plain, start
    if not total:
        raise Damaged(NO_RECORD.reason, NO_RECORD.detail)


def open_message(value: bytes, schemas: SchemaSource) -> Opened:
    """The records of one message, whichever of the two framings it has.

    Good records before the first damage are kept; an empty message has the fault 'empty'.
    """
    if not value:
        return Opened([], Fault("empty", "the message has no bytes"))
    if value.startswith(CONFLUENT_MAGIC):
        return _open_confluent(value, schemas)
    records: list[Record] = []
    try:
        for record in _container_records(value):
            records.append(record)
    except Damaged as damage:
        return Opened(records, damage.fault)
    return Opened(records)


def read_record(datum: bytes, schema: WriterSchema) -> Record:
    """One record by fastavro.  Raises Damaged, also where its values would take far more than its bytes."""
    if len(datum) > _MAX_SLOW_BYTES:
        detail = f"a record of {len(datum):,} bytes and unusual schema; at most {_MAX_SLOW_BYTES:,} are read"
        raise Damaged("too_large", detail)
    read = _read_datum(io.BytesIO(datum), schema, "the record")
    _expect_end(read, datum, "the record")
    return Record(read.record, datum, schema)


def writer_of(value: bytes, schemas: SchemaSource) -> WriterSchema | None:
    """The schema a message says it was written with, its records unread; None if it does not say."""
    try:
        if value.startswith(CONFLUENT_MAGIC):
            text = schemas.get(int.from_bytes(value[1:5], "big", signed=True))
            return None if text is None else _schema_of(text)
        if value.startswith(CONTAINER_MAGIC):
            return (_HEADERS.find(value) or _HEADERS.read(value)).schema
    except Damaged:
        return None
    return None


def single_records(value: bytes) -> Iterator[bytes]:
    """A container of several records as containers of one each; anything else, damaged or not, as it is.

    So is one of more than 100,000: no file of alerts is, and each would carry the header.

    Header and sync marker are the original's, and so is each record's datum. A compressed container's
    records come out plain, so its header then names no codec.
    """
    try:
        if not value.startswith(CONTAINER_MAGIC) or _announced_records(value) < 2:
            return iter([value])
        data = [record.datum for record in _container_records(value)]
    except Damaged:
        return iter([value])
    end = _metadata_end(value)
    header, sync = _plain_header(value[:end]), value[end : end + _SYNC_BYTES]
    return (b"".join((header, sync, b"\x02", _long(len(datum)), datum, sync)) for datum in data)


def holds_one_record(value: bytes) -> bool:
    """Whether a message's framing is whole and announces exactly one record; the record stays unread."""
    if value.startswith(CONFLUENT_MAGIC):
        return len(value) > 5
    try:
        return value.startswith(CONTAINER_MAGIC) and _announced_records(value) == 1
    except Damaged:
        return False


# Confluent framing: 0x00, schema id (big-endian int32), datum


def _open_confluent(value: bytes, schemas: SchemaSource) -> Opened:
    schema_id = 0
    try:
        framed = _confluent_frame(value, schemas)
        schema_id = framed.schema_id
        data = value[framed.start :]
        values = _read_datum(io.BytesIO(data), framed.schema, "the record at byte 5")
        _expect_end(values, data, "the record at byte 5")
    except Damaged as damage:
        return Opened([], damage.fault, schema_id or damage.schema_id)
    return Opened([Record(values.record, data, framed.schema)], None, schema_id)


def _confluent_frame(value: bytes, schemas: SchemaSource) -> Framed:
    if len(value) < 5:
        raise Damaged("bad_wire_format", f"{len(value)} bytes; the framing alone takes 5")
    schema_id = int.from_bytes(value[1:5], "big", signed=True)
    text = schemas.get(schema_id)
    if text is None:
        detail = f"no schema has id {schema_id}; add it to schemas/ or update"
        raise Damaged("unknown_schema", detail, schema_id)
    try:
        return Framed(_schema_of(text), 5, None, schema_id)
    except Damaged as damage:
        raise Damaged(damage.fault.reason, damage.fault.detail, schema_id) from damage


# object containers: magic, metadata map, sync marker, then blocks of (count, size, data, sync marker)


def _container_records(value: bytes) -> Iterator[Record]:
    """Every record of a container in order; raises Damaged at the first damage."""
    framed = _HEADERS.find(value) or _HEADERS.read(value)
    for count, plain, start in plain_blocks(value, framed):
        yield from _block_records(plain, count, framed.schema, start)


def _announced_records(value: bytes) -> int:
    """Sum of the counts of a container's blocks, their data unread."""
    end = _metadata_end(value)
    position = end + _SYNC_BYTES
    sync, total, blocks = value[end:position], 0, 0
    while position < len(value):
        count, size, position = _block_place(value, position, sync)
        position += size + _SYNC_BYTES
        total, blocks = total + count, blocks + 1
        if max(total, blocks) > _MAX_IN_A_FILE:
            raise Damaged("too_large", f"more than {_MAX_IN_A_FILE:,} records")
    return total


def _block(value: bytes, start: int, sync: bytes) -> tuple[int, bytes, int]:
    """(count of records, data, position after the block) of the block at `start`.

    A block of no records is legal: writers that flush twice end with one.
    """
    count, size, position = _block_place(value, start, sync)
    end = position + size
    return count, value[position:end], end + _SYNC_BYTES


def _block_place(value: bytes, start: int, sync: bytes) -> tuple[int, int, int]:
    """(count of records, size, start of the data) of the block at `start`."""
    count, position = _read_long(value, start)
    size, position = _read_long(value, position)
    where = f"block at byte {start}"
    if count < 0 or size < 0:
        raise Damaged("bad_container", f"{where}: {count} records in {size} bytes")
    end = position + size
    if end + _SYNC_BYTES > len(value):
        missing = end + _SYNC_BYTES - len(value)
        raise Damaged(
            "bad_container", f"{where}: truncated, {missing} bytes are missing at byte {len(value)}"
        )
    if value[end : end + _SYNC_BYTES] != sync:
        raise Damaged("bad_container", f"{where}: wrong sync marker at byte {end}")
    return count, size, position


def _plain(codec: str, data: bytes, budget: int, start: int) -> bytes:
    try:
        return decompress(codec, data, budget)
    except TooLarge as error:
        raise Damaged("too_large", f"block at byte {start}: {error}") from error
    except ValueError as error:
        raise Damaged("bad_container", f"block at byte {start}: {error}") from error


def _block_records(data: bytes, count: int, schema: WriterSchema, start: int) -> Iterator[Record]:
    """The `count` records of a block's plain data, which they must fill exactly.

    If they do not fill it, the last one did not end where the writer ended it and is not trusted.
    """
    stream = io.BytesIO(data)
    for index in range(count):
        where = f"record {index} of the block at byte {start}"
        read = _read_datum(stream, schema, where)
        if index == count - 1:
            _expect_end(read, data, where)
        yield Record(read.record, data[read.start : read.end], schema)


@dataclass(frozen=True, slots=True)
class _Read:
    record: dict[str, Any]
    start: int
    end: int


def _expect_room(count: int, data: bytes, start: int) -> None:
    if count > len(data) or (count == 0 and data):
        raise Damaged("bad_container", f"block at byte {start}: {count} records in {len(data)} bytes")


def _expect_sync(value: bytes, sync: bytes) -> None:
    if len(sync) != _SYNC_BYTES:
        raise Damaged("bad_container", f"ends at byte {len(value)} inside the header's sync marker")


def _read_datum(stream: io.BytesIO, schema: WriterSchema, where: str) -> _Read:
    """One datum from a stream, and the bytes it took."""
    start = stream.tell()
    try:
        record = fastavro.schemaless_reader(stream, schema.parsed, None)
    except MemoryError:
        raise  # a fault of this machine, not of the data
    except Exception as error:  # fastavro raises whatever the damage leads it into
        text = f"{where}: {type(error).__name__}: {str(error)[:200]} (datum byte {stream.tell() - start})"
        raise Damaged("undecodable", text) from error
    return _Read(record, start, stream.tell())


def _expect_end(read: _Read, data: bytes, where: str) -> None:
    if read.end != len(data):
        left = len(data) - read.end
        raise Damaged("undecodable", f"{where} ends {left} bytes before its data do (datum byte {read.end})")


def _metadata_end(value: bytes) -> int:
    """Position after the header's metadata map."""
    position, entries = len(CONTAINER_MAGIC), 0
    while True:
        count, position = _read_long(value, position)
        if count == 0:
            return position
        entries += abs(count)
        if entries > _MAX_ENTRIES:
            raise Damaged("bad_container", f"the header announces more than {_MAX_ENTRIES} entries")
        if count < 0:  # a block that also gives its size in bytes
            _, position = _read_long(value, position)
        for _ in range(2 * abs(count)):
            _, position = _read_bytes(value, position)


class _Headers:
    """The container headers seen last: a survey writes the same few over and over.

    They are known again by their bytes, from the magic to the end of the metadata, the last used first.
    """

    def __init__(self) -> None:
        self._known: list[tuple[bytes, Framed]] = []

    def find(self, value: bytes) -> Framed | None:
        """The frame of a container whose header was seen before; None if it was not."""
        known = self._known
        for place, (header, framed) in enumerate(known):
            if value.startswith(header):
                if place:
                    self._known = [known[place], *known[:place], *known[place + 1 :]]
                return framed
        return None

    def read(self, value: bytes) -> Framed:
        """The frame of a container with a new header.  Raises Damaged."""
        if not value.startswith(CONTAINER_MAGIC):
            raise Damaged(
                "bad_wire_format",
                f"starts with {value[:4]!r}; neither an Avro object container nor Confluent framing",
            )
        end = _metadata_end(value)
        schema, codec = _header(value[:end])
        framed = Framed(schema, end, codec)
        if end <= _LARGEST_KNOWN_HEADER:
            self._known = [(value[:end], framed), *self._known[: _KNOWN_HEADERS - 1]]
        return framed


_HEADERS = _Headers()


def _header(header: bytes) -> tuple[WriterSchema, str]:
    """(writer schema, codec) of a container's header without its sync marker.

    A survey writes the same few headers over and over: they are found again by their bytes.
    """
    if len(header) > _MAX_CACHED_HEADER:
        return _parse_header.__wrapped__(header)
    return _parse_header(header)


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[WriterSchema, str]:
    metadata = _metadata(header)
    codec = metadata.get(b"avro.codec", b"null").decode("ascii", "replace")
    if codec not in CODECS:
        raise Damaged("bad_container", f"unknown codec {codec[:40]!r}; known: {', '.join(CODECS)}")
    if b"avro.schema" not in metadata:
        raise Damaged("bad_container", "the header has no avro.schema")
    try:
        text = metadata[b"avro.schema"].decode()
    except UnicodeDecodeError as error:
        raise Damaged("bad_container", f"the header's schema is not UTF-8: {error}") from error
    return _schema_of(text), codec


def _metadata(header: bytes) -> dict[bytes, bytes]:
    """The header's metadata map; `_metadata_end` has walked it before, so its lengths are sound."""
    metadata: dict[bytes, bytes] = {}
    position = len(CONTAINER_MAGIC)
    while position < len(header):
        count, position = _read_long(header, position)
        if count < 0:
            _, position = _read_long(header, position)
        for _ in range(abs(count)):
            key, position = _read_bytes(header, position)
            metadata[key], position = _read_bytes(header, position)
    return metadata


def _schema_of(text: str) -> WriterSchema:
    try:
        return writer_schema(text)
    except SchemaError as error:
        raise Damaged("unsupported_schema", str(error)) from error


def _read_bytes(value: bytes, position: int) -> tuple[bytes, int]:
    size, start = _read_long(value, position)
    if size < 0 or start + size > len(value):
        raise Damaged("bad_container", f"header entry of {size} bytes at byte {position} does not fit")
    return value[start : start + size], start + size


def _read_long(value: bytes, position: int) -> tuple[int, int]:
    """(number, position after it): Avro's variable-length zig-zag number, at most 10 bytes."""
    raw = 0
    for shift in range(10):
        if position >= len(value):
            raise Damaged("bad_container", f"truncated inside a number at byte {position}")
        byte = value[position]
        position += 1
        raw |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), position
    raise Damaged("bad_container", f"a number of more than 10 bytes ends at byte {position}")


def _plain_header(header: bytes) -> bytes:
    """A header without its sync marker, naming no codec; unchanged if it names none."""
    metadata = _metadata(header)
    if metadata.get(b"avro.codec", b"null") == b"null":
        return header
    metadata[b"avro.codec"] = b"null"
    parts = [_long(len(part)) + part for entry in metadata.items() for part in entry]
    return b"".join((CONTAINER_MAGIC, _long(len(metadata)), *parts, b"\x00"))


def _long(number: int) -> bytes:
    """A number of 0 or more as Avro writes it."""
    left, out = number << 1, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)
