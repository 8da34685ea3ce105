"""Opening messages: what is read, what is refused, and that no bytes hang or fill the memory."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pyarrow as pa
import pytest

from broker.message import MAX_INPUT_BYTES, Message
from broker.publish.packets import dead_letter
from broker.surveys.avro import Fault, LocalSchemas, Opened, open_message
from broker.surveys.catalog import decode
from broker.surveys.writer import writer_schema
from tests.unit.surveys.samples import (
    SYNC,
    container,
    datum,
    few_lsst,
    few_ztf,
    files,
    hand_made,
    header_of,
    long,
    read_packet,
    unreadable_values,
)

SMALL: dict[str, Any] = {
    "type": "record",
    "name": "small",
    "fields": [{"name": "n", "type": "long"}, {"name": "text", "type": ["null", "string"]}],
}
SMALL_TEXT = json.dumps(SMALL)


def _open(value: bytes) -> Opened:
    return open_message(value, LocalSchemas())


def _fault(value: bytes) -> Fault:
    fault = _open(value).fault
    assert fault is not None
    return fault


def _small(count: int) -> list[dict[str, Any]]:
    return [{"n": n, "text": "x" * n} for n in range(count)]


@pytest.mark.parametrize("count", [3, 7, 10])
@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
@pytest.mark.parametrize("sync_interval", [1, 16000])
def test_several_records_and_blocks(count: int, codec: str, sync_interval: int) -> None:
    opened = _open(container(SMALL, _small(count), codec, sync_interval))
    assert opened.fault is None
    assert [record.values for record in opened.records] == _small(count)
    assert [record.datum for record in opened.records] == [datum(SMALL, r) for r in _small(count)]


def _snappy(plain: bytes) -> bytes:
    return pa.compress(plain, codec="snappy", asbytes=True) + zlib.crc32(plain).to_bytes(4, "big")


def _lz4(plain: bytes) -> bytes:
    return len(plain).to_bytes(4, "little") + pa.compress(plain, codec="lz4_raw", asbytes=True)


def _zstandard(plain: bytes) -> bytes:
    return pa.compress(plain, codec="zstd", asbytes=True)


@pytest.mark.parametrize(("codec", "pack"), [("snappy", _snappy), ("lz4", _lz4), ("zstandard", _zstandard)])
def test_codecs_fastavro_needs_extra_packages_for(codec: str, pack: Any) -> None:
    plain = b"".join(datum(SMALL, record) for record in _small(50))
    opened = _open(hand_made(SMALL_TEXT, [(50, pack(plain))], codec))
    assert opened.fault is None
    assert [record.values for record in opened.records] == _small(50)
    assert _fault(hand_made(SMALL_TEXT, [(50, pack(plain)[:-7])], codec)).reason == "bad_container"


def test_real_records_in_one_container() -> None:
    value = few_ztf()[0]
    (record,) = read_packet(value)
    opened = _open(container(header_of(value), [record] * 3, "deflate"))
    assert opened.fault is None
    assert [r.values for r in opened.records] == [record] * 3


def test_confluent_framing() -> None:
    value = few_lsst()[0]
    opened = _open(value)
    assert opened.fault is None
    assert [record.values for record in opened.records] == read_packet(value)
    assert opened.records[0].datum == value[5:]
    assert opened.schema_id == 1100


def _header() -> bytes:
    return hand_made(SMALL_TEXT, [])


_ONE = datum(SMALL, {"n": 5, "text": "abc"})


@pytest.mark.parametrize(
    ("value", "reason", "text"),
    [
        (b"", "empty", "no bytes"),
        (b"hello", "bad_wire_format", "neither"),
        (b"\x00\x01", "bad_wire_format", "framing"),
        (b"\x00\x00\x00\x04\x4d" + bytes(50), "unknown_schema", "1101"),
        (b"\x00\xff\xff\xff\xff" + bytes(50), "unknown_schema", "-1"),
        (b"Obj\x01", "bad_container", "truncated inside a number at byte 4"),
        (b"Obj\x01" + b"\xff" * 12, "bad_container", "more than 10 bytes"),
        (b"Obj\x01" + long(2**62), "bad_container", "entries"),
        (b"Obj\x01" + long(1) + long(2**40) + b"x", "bad_container", "does not fit"),
        (b"Obj\x01" + long(1) + long(-4) + b"xxxx", "bad_container", "does not fit"),
        (b"Obj\x01" + long(0) + SYNC, "bad_container", "no avro.schema"),
        (_header()[:-3], "bad_container", "sync marker"),
        (_header(), "empty", "no record"),
        (_header() + long(0) + long(0) + SYNC, "empty", "no record"),
        (_header() + long(-1) + long(5) + SYNC, "bad_container", "-1 records"),
        (_header() + long(1) + long(-5) + SYNC, "bad_container", "-5 bytes"),
        (_header() + long(1) + long(2**61) + SYNC, "bad_container", "missing"),
        (_header() + long(2**61) + long(3) + b"abc" + SYNC, "bad_container", "records in 3 bytes"),
        (hand_made(SMALL_TEXT, [(1, _ONE)])[:-1], "bad_container", "1 bytes are missing"),
        (hand_made(SMALL_TEXT, [(1, _ONE)])[:-1] + b"?", "bad_container", "wrong sync marker"),
        (hand_made(SMALL_TEXT, [(1, _ONE + b"z")]), "undecodable", "1 bytes before"),
        (hand_made(SMALL_TEXT, [(1, _ONE[:-1])]), "undecodable", "EOFError"),
        (hand_made(SMALL_TEXT, [(1, long(5) + long(7))]), "undecodable", "IndexError"),
        (hand_made(SMALL_TEXT, [(1, long(5) + long(1) + long(1) + b"\xff")]), "undecodable", "Unicode"),
        (hand_made(SMALL_TEXT, [(1, long(5) + long(1) + long(2**50) + b"x")]), "undecodable", "EOFError"),
        (hand_made(SMALL_TEXT, [(1, _ONE)], "zip"), "bad_container", "unknown codec 'zip'"),
        (hand_made("{", [(1, _ONE)]), "unsupported_schema", "JSONDecodeError"),
        (hand_made('{"type": "recor"}', [(1, _ONE)]), "unsupported_schema", "UnknownType"),
        (hand_made('"long"', [(1, long(4))]), "unsupported_schema", "not a record"),
        (hand_made(f"[{SMALL_TEXT}]", [(1, _ONE)]), "unsupported_schema", "not a record"),
    ],
)
def test_what_is_wrong_is_said(value: bytes, reason: str, text: str) -> None:
    opened = _open(value)
    assert opened.records == []
    assert opened.fault is not None
    assert opened.fault.reason == reason
    assert text in opened.fault.detail


def test_trailing_bytes_after_a_confluent_datum() -> None:
    fault = _fault(few_lsst()[0] + b"\x00")
    assert fault.reason == "undecodable"
    assert "1 bytes before" in fault.detail


def test_good_records_before_the_damage_are_kept() -> None:
    good = [datum(SMALL, record) for record in _small(3)]
    broken = hand_made(SMALL_TEXT, [(2, good[0] + good[1]), (2, good[2] + b"\x02\x08")])
    opened = _open(broken)
    assert [record.values["n"] for record in opened.records] == [0, 1, 2]
    assert opened.fault is not None
    assert opened.fault.reason == "undecodable"


def test_an_empty_last_block_is_no_damage() -> None:
    opened = _open(hand_made(SMALL_TEXT, [(1, _ONE), (0, b"")]))
    assert len(opened.records) == 1
    assert opened.fault is None


def _schema(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "top", "fields": [{"name": n, "type": t} for n, t in fields]}


def _laughs(levels: int) -> dict[str, Any]:
    """Records of ten records of ten records ... of nothing: no bytes, without end."""
    schema: Any = {"type": "record", "name": "r0", "fields": [{"name": "x", "type": "null"}]}
    for level in range(1, levels):
        rest = [{"name": f"f{i}", "type": f"r{level - 1}"} for i in range(9)]
        fields = [{"name": "first", "type": schema}, *rest]
        schema = {"type": "record", "name": f"r{level}", "fields": fields}
    return _schema(("n", "long"), ("laugh", schema))


def _deep(levels: int) -> Any:
    schema: Any = "long"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return _schema(("x", schema))


_RECURSIVE = {
    "type": "record",
    "name": "node",
    "fields": [{"name": "next", "type": ["null", "node"]}],
}


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (_RECURSIVE, b"\x02" * 1_000_000 + b"\x00"),
        (_schema(("x", {"type": "array", "items": "null"})), long(2**60) + b"\x00"),
        (_schema(("x", {"type": "array", "items": _schema(("y", "null")) | {"name": "z"}})), long(2**60)),
        (_laughs(12), long(1)),
        (_deep(300), b"\x02" * 400),
        (_deep(100_000), b"\x02" * 400),
    ],
    ids=["recursive", "nulls", "empty records", "laughs", "deep", "deeper"],
)
def test_schemas_made_to_hurt_are_refused(schema: Any, data: bytes) -> None:
    text = _dumps(schema)
    fault = _fault(hand_made(text, [(1, data)]))
    assert fault.reason in ("unsupported_schema", "undecodable")


def _dumps(schema: Any) -> str:
    try:
        return json.dumps(schema)
    except RecursionError:
        levels = 100_000
        nested = '{"type": "array", "items": ' * levels + '"long"' + "}" * levels
        return f'{{"type": "record", "name": "top", "fields": [{{"name": "x", "type": {nested}}}]}}'


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz", "snappy", "lz4", "zstandard"])
def test_a_block_that_would_fill_the_memory_is_refused(codec: str) -> None:
    plain = bytes(65 << 20)
    pack = {
        "deflate": lambda p: zlib.compress(p, 1, -15),
        "bzip2": lambda p: __import__("bz2").compress(p, 1),
        "xz": lambda p: __import__("lzma").compress(p, preset=0),
        "snappy": _snappy,
        "lz4": _lz4,
        "zstandard": _zstandard,
    }[codec]
    fault = _fault(hand_made(SMALL_TEXT, [(1, pack(plain))], codec))
    assert fault.reason == "too_large"


def test_many_small_bombs_share_one_budget() -> None:
    half = zlib.compress(bytes(40 << 20), 1, -15)
    text = json.dumps(_schema(("x", "bytes")))
    whole = zlib.compress(long(40 << 20) + bytes(40 << 20), 1, -15)
    opened = _open(hand_made(text, [(1, whole), (1, half)], "deflate"))
    assert len(opened.records) == 1
    assert opened.fault is not None
    assert opened.fault.reason == "too_large"


def test_headers_are_parsed_once() -> None:
    first, second = (_open(few_ztf()[0]).records[0] for _ in range(2))
    assert first.schema is second.schema


def test_paths_of_a_writer_schema() -> None:
    schema = writer_schema(json.dumps(header_of(few_ztf()[0]), default=str))
    assert {"candid", "candidate.jd", "prv_candidates", "prv_candidates[].jd"} <= schema.paths
    assert "cutoutTemplate.stampData" in schema.paths


def test_every_unreadable_packet_is_a_dead_letter() -> None:
    opened = [_open(value) for value in unreadable_values()]
    assert len(opened) == (13 if files("ztf/unreadable") else 5)
    assert all(found.fault is not None for found in opened)
    # one holds a whole block with its sync marker before the damage: that alert counts
    assert [len(found.records) for found in opened if found.records] == [1]


def test_a_message_over_the_limit_is_not_read() -> None:
    large = Message("ztf_replay", 0, 0, 0, bytes(MAX_INPUT_BYTES + 1))
    at_the_limit = Message("ztf_replay", 0, 1, 0, bytes(MAX_INPUT_BYTES))
    rejects = decode([large, at_the_limit], LocalSchemas()).rejects
    assert [reject.reason for reject in rejects] == ["too_large", "unknown_schema"]
    letter = dead_letter(large, rejects[0])
    assert letter.value == b""
    assert dict(letter.headers)["size"] == b"16777217"
