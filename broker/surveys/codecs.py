"""The block codecs of Avro object containers, each bounded: a small block never becomes gigabytes."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

import pyarrow as pa

Decompress = Callable[[bytes, int], bytes]


class TooLarge(ValueError):
    """A block would grow beyond the limit."""


def _null(data: bytes, limit: int) -> bytes:
    return data


def _deflate(data: bytes, limit: int) -> bytes:
    """Raw deflate, without zlib's header (Avro specification, "Required Codecs").

    Up to four bytes may follow: writers that cut zlib's header off leave some of its checksum behind.
    """
    stream = zlib.decompressobj(-15)
    out = stream.decompress(data, limit + 1)
    return _whole(out, stream.eof, stream.unused_data[4:], limit)


def _bzip2(data: bytes, limit: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    return _whole(stream.decompress(data, limit + 1), stream.eof, stream.unused_data, limit)


def _xz(data: bytes, limit: int) -> bytes:
    stream = lzma.LZMADecompressor()
    return _whole(stream.decompress(data, limit + 1), stream.eof, stream.unused_data, limit)


def _whole(out: bytes, at_end: bool, unused: bytes, limit: int) -> bytes:
    """`out`, when the stream ended where the data did and within the limit."""
    if len(out) > limit:
        raise TooLarge(f"block grows beyond {limit} bytes")
    if not at_end or unused:
        raise ValueError("compressed data does not end where its block does")
    return out


def _snappy(data: bytes, limit: int) -> bytes:
    """Raw snappy (it begins with the plain size, 7 bits a byte), then a big-endian CRC-32 of the plain."""
    body, checksum = data[:-4], data[-4:]
    size = 0
    for shift, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            break
    out = _of_known_size("snappy", body, size, limit)
    if zlib.crc32(out).to_bytes(4, "big") != checksum:
        raise ValueError("checksum differs")
    return out


def _lz4(data: bytes, limit: int) -> bytes:
    """One lz4 block behind its plain size as a little-endian 32-bit number (as fastavro writes it)."""
    return _of_known_size("lz4_raw", data[4:], int.from_bytes(data[:4], "little"), limit)


def _of_known_size(codec: str, body: bytes, size: int, limit: int) -> bytes:
    if size > limit:
        raise TooLarge(f"block grows to {size} bytes, more than {limit}")
    out: bytes = pa.Codec(codec).decompress(body, decompressed_size=size, asbytes=True)
    if len(out) != size:
        raise ValueError(f"block holds {len(out)} bytes, not the {size} it announces")
    return out


def _zstandard(data: bytes, limit: int) -> bytes:
    out: bytes = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(limit + 1)
    if len(out) > limit:
        raise TooLarge(f"block grows beyond {limit} bytes")
    return out


CODECS: dict[str, Decompress] = {
    "null": _null,
    "deflate": _deflate,
    "bzip2": _bzip2,
    "xz": _xz,
    "snappy": _snappy,
    "lz4": _lz4,
    "zstandard": _zstandard,
}
"""Codec name of the container's header to its decompressor (data, limit) -> plain bytes."""


def decompress(codec: str, data: bytes, limit: int) -> bytes:
    """The plain bytes of a block.

    Raises TooLarge when they are more than `limit`, ValueError when the data are damaged.
    """
    try:
        return CODECS[codec](data, limit)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise ValueError(f"{codec}: {error}") from error
