"""Records that no client library would write: a Produce request put together by hand."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_POLY = 0x82F63B78
_TABLE = []
for _number in range(256):
    _value = _number
    for _ in range(8):
        _value = _value >> 1 ^ (_POLY if _value & 1 else 0)
    _TABLE.append(_value)

Header = tuple[bytes, bytes | None]


def produce(
    bootstrap: str,
    topic: str,
    value: bytes | None,
    headers: Sequence[Header] = (),
    *,
    key: bytes | None = None,
    timestamp_ms: int = -1,
    partition: int = 0,
) -> int:
    """Append one record, and return the error code of Kafka's answer.

    bootstrap : of a cluster of one broker
    """
    batch = _batch(_record(key, value, headers), timestamp_ms)
    topics = struct.pack(">i", 1) + _text(topic.encode()) + struct.pack(">ii", 1, partition)
    body = struct.pack(">hhi", -1, -1, 10_000) + topics + struct.pack(">i", len(batch)) + batch
    request = struct.pack(">hhi", 0, 3, 7) + _text(b"tests") + body
    host, _, port = bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", _read(connection, 4))
        answer = _read(connection, size)
    # correlation id, number of topics, name, number of partitions, index
    at = 4 + 4 + 2 + len(topic.encode()) + 4 + 4
    return int(struct.unpack_from(">h", answer, at)[0])


def _record(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> bytes:
    body = b"\x00" + _varint(0) + _varint(0) + _bytes(key) + _bytes(value) + _varint(len(headers))
    body += b"".join(_bytes(name) + _bytes(content) for name, content in headers)
    return _varint(len(body)) + body


def _batch(record: bytes, timestamp_ms: int) -> bytes:
    counted = struct.pack(">hiqqqhii", 0, 0, timestamp_ms, timestamp_ms, -1, -1, -1, 1) + record
    checked = struct.pack(">ibI", -1, 2, _crc32c(counted)) + counted
    return struct.pack(">qi", 0, len(checked)) + checked


def _text(value: bytes) -> bytes:
    return struct.pack(">h", len(value)) + value


def _bytes(value: bytes | None) -> bytes:
    return _varint(-1) if value is None else _varint(len(value)) + value


def _varint(number: int) -> bytes:
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionError("Kafka closed the connection")
        found += more
    return found
