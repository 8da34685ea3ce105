"""Records as Kafka's protocol writes them, byte for byte: what no client library would let through.

A client refuses, or cannot express, what a foreign producer may well send: header names that are not UTF-8,
empty ones, a hundred thousand of them. Kafka takes them all.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

_PRODUCE, _VERSION = 0, 3
_PATIENCE_MS = 30_000


@dataclass(frozen=True)
class RawRecord:
    """A record with headers of any bytes; None stands for a missing key, value or header value."""

    value: bytes | None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    key: bytes | None = None


def produce_raw(address: str, topic: str, partition: int, records: Sequence[RawRecord]) -> int:
    """Append records to a partition, in one batch; the offset of the first.

    address : host:port of the partition's leader.  Raises AssertionError with Kafka's error code.
    """
    host, _, port = address.partition(":")
    batch = _batch(records)
    name = topic.encode()
    body = struct.pack(">hhi", -1, -1, _PATIENCE_MS)
    body += struct.pack(f">ih{len(name)}sii", 1, len(name), name, 1, partition)
    body += struct.pack(">i", len(batch)) + batch
    request = struct.pack(">hhih", _PRODUCE, _VERSION, 1, -1) + body
    with socket.create_connection((host, int(port)), timeout=_PATIENCE_MS / 1000) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = _read(connection, struct.unpack(">i", _read(connection, 4))[0])
    # correlation id, one topic, its name, one partition, its number, then what became of the batch
    error, offset = struct.unpack_from(">hq", answer, 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0, f"Kafka refuses the records with error {error}"
    return int(offset)


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        assert more, "Kafka closed the connection"
        data += more
    return data


def _batch(records: Sequence[RawRecord]) -> bytes:
    """A record batch of format 2 without compression."""
    now = int(time.time() * 1000)
    inner = b"".join(_record(number, record) for number, record in enumerate(records))
    last = len(records) - 1
    checked = struct.pack(">hiqqqhii", 0, last, now, now, -1, -1, -1, len(records)) + inner
    head = struct.pack(">ibI", -1, 2, crc32c(checked))
    return struct.pack(">qi", 0, len(head) + len(checked)) + head + checked


def _record(number: int, record: RawRecord) -> bytes:
    body = b"\x00" + _varint(0) + _varint(number) + _sized(record.key) + _sized(record.value)
    body += _varint(len(record.headers))
    body += b"".join(_sized(name) + _sized(value) for name, value in record.headers)
    return _varint(len(body)) + body


def _sized(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        out.append((left & 0x7F) | 0x80)
        left >>= 7
    return bytes([*out, left])


def _table() -> list[int]:
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, which Kafka's batches carry.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
