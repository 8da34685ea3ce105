"""The values that a filter selects, in Avro: an array of records.Selected a message."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

NOTHING_SELECTED = b"\x00"
"""The array of a message whose filter selects nothing."""
_NULL, _GIVEN = b"\x00", b"\x02"
_DOUBLE = struct.Struct("<d")


def encode_selected(columns: Sequence[tuple[str, Sequence[Any]]]) -> list[bytes]:
    """The array of each of n messages.  columns : (name, n values), each float, int, bool, str or None."""
    heads = [_text(name) for name, _ in columns]
    count = _long(len(columns))
    rows = zip(*(column for _, column in columns), strict=True)
    return [
        b"".join([count, *(head + _value(it) for head, it in zip(heads, row, strict=True)), NOTHING_SELECTED])
        for row in rows
    ]


def _value(value: Any) -> bytes:
    """The fields after the name: number, integer, text, truth, of which at most one is given."""
    match value:
        case bool():
            return _NULL * 3 + _GIVEN + (b"\x01" if value else b"\x00")
        case int():
            return _NULL + _GIVEN + _long(value) + _NULL * 2
        case float():
            return _GIVEN + _DOUBLE.pack(value) + _NULL * 3
        case str():
            return _NULL * 2 + _GIVEN + _text(value) + _NULL
        case _:
            return _NULL * 4


def _long(value: int) -> bytes:
    """Zigzag varint (Avro 1.11, 'Binary encoding')."""
    left, number = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        number.append((left & 0x7F) | 0x80)
        left >>= 7
    return bytes([*number, left])


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _long(len(encoded)) + encoded
