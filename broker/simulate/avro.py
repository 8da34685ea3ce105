"""Avro bytes by parts: many packets repeat a row of history, so each row is encoded once and spliced."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from broker.errors import SchemaError
from broker.schemas import Schema

Row = Mapping[str, Any]
Writer = Callable[[Any], bytes]
NULL = b"\x00"
"""The first branch of a union, which is null in every schema here."""
SECOND = b"\x02"
"""Marks the second branch of a union."""


def long(number: int) -> bytes:
    r"""An Avro int or long: zigzag, seven bits a byte, smallest first.  -2**63 <= number < 2**63.

    >>> long(0), long(-1), long(64)
    (b'\x00', b'\x01', b'\x80\x01')
    """
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def blob(data: bytes) -> bytes:
    """Avro bytes, or a string already in UTF-8."""
    return long(len(data)) + data


def array(rows: Sequence[bytes]) -> bytes:
    """An Avro array of rows already encoded, as one block."""
    return (long(len(rows)) + b"".join(rows) + b"\x00") if rows else b"\x00"


def container_header(schema: Schema) -> tuple[bytes, bytes]:
    """Header of an object container without compression, and the sync marker that ends its blocks.

    The marker is a digest of the schema, so that equal content gives equal bytes.
    """
    text = json.dumps(schema, separators=(",", ":")).encode()
    sync = hashlib.sha256(text).digest()[:16]
    metadata = long(2) + blob(b"avro.schema") + blob(text) + blob(b"avro.codec") + blob(b"null") + b"\x00"
    return b"Obj\x01" + metadata + sync, sync


def container(header: bytes, sync: bytes, record: bytes) -> bytes:
    """An object container of one record."""
    return b"".join((header, long(1), long(len(record)), record, sync))


def record_in(schema: Schema, field: str) -> Schema:
    """The record schema inside one field of a schema, also within a union or an array."""
    found = next(entry["type"] for entry in schema["fields"] if entry["name"] == field)
    while not (isinstance(found, dict) and found["type"] == "record"):
        found = found["items"] if isinstance(found, dict) else found[1]
    return found


def row_encoder(record: Schema) -> Callable[[Row], bytes]:
    """A function that encodes rows of one record without nested records; a missing key is null.

    Three times as fast as a general encoder, because the types are looked at once. Raises SchemaError for a
    type that no row here has.
    """
    fields = [(entry["name"], _writer(entry["type"], record["name"])) for entry in record["fields"]]

    def encode(row: Row) -> bytes:
        get = row.get
        return b"".join([write(get(name)) for name, write in fields])

    return encode


_FLOAT, _DOUBLE, _SECOND_FLOAT = struct.Struct("<f").pack, struct.Struct("<d").pack, struct.Struct("<Bf").pack


def _text(value: str) -> bytes:
    return blob(value.encode())


def _boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _nullable_float(value: float | None) -> bytes:
    return NULL if value is None else _SECOND_FLOAT(2, value)


_WRITERS: dict[str, Writer] = {
    "float": _FLOAT,
    "double": _DOUBLE,
    "int": long,
    "long": long,
    "string": _text,
    "boolean": _boolean,
}


def _writer(avro_type: Any, where: str) -> Writer:
    """How to write a plain type, or a union of null and one."""
    if isinstance(avro_type, str) and avro_type in _WRITERS:
        return _WRITERS[avro_type]
    if avro_type == ["null", "float"]:
        return _nullable_float
    if isinstance(avro_type, list) and len(avro_type) == 2 and avro_type[0] == "null":
        write = _writer(avro_type[1], where)
        return lambda value: NULL if value is None else SECOND + write(value)
    raise SchemaError(f"no encoder for type {avro_type!r} in {where}; add it to the table of writers")
