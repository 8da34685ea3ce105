"""Small messages that would become much: what is made of them is bounded, and all of it is accounted for."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from typing import Any

import pytest

from broker.message import MAX_RECORDS, REASONS
from broker.surveys import catalog, reading
from broker.surveys.avro import LocalSchemas, single_records
from broker.surveys.catalog import MAX_LETTERS, Decoded, decode
from broker.surveys.ztf import SURVEY
from tests.unit.surveys.samples import (
    SYNC,
    container,
    few_ztf,
    hand_made,
    header_of,
    long,
    messages,
    read_packet,
    ztf_values,
)
from tests.unit.surveys.samples import plain_schema as plain


def _nested(paths: list[str], types: dict[str, Any]) -> list[dict[str, Any]]:
    fields: dict[str, Any] = {}
    for path in paths:
        first, _, rest = path.partition(".")
        fields.setdefault(first, []).append(rest)
    made = []
    for name, inner in fields.items():
        kind: Any = types.get(name, "null")
        if inner != [""]:
            kind = {"type": "record", "name": f"r_{name}", "fields": _nested(inner, types)}
        made.append({"name": name, "type": kind})
    return made


def _hollow(**types: Any) -> str:
    """A schema that passes for ZTF's, all of its fields null but those given."""
    return json.dumps(
        {"type": "record", "name": "hollow", "fields": _nested([p for (p, *_) in SURVEY.required], types)}
    )


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _decode(*values: bytes) -> Decoded:
    decoded = decode(messages(values), LocalSchemas())
    for letter in decoded.rejects:
        assert letter.reason in REASONS
        assert letter.detail.encode()
        assert len(letter.detail) < 3000
    return decoded


BYTE = _hollow(magpsf=["null", "int"])
"""Records of one byte."""
EMPTY = _hollow()
"""Records of no byte at all."""
STRANGE = json.dumps({"type": "record", "name": "s", "fields": [{"name": "x", "type": ["null", "int"]}]})


@pytest.mark.parametrize("schema", [BYTE, EMPTY, STRANGE], ids=["ztf", "no bytes", "no survey"])
@pytest.mark.parametrize("count", [700_000, 60_000_000])
def test_a_deflated_message_of_many_records_is_one_letter(schema: str, count: int) -> None:
    value = hand_made(schema, [(count, _deflated(bytes(count)))], "deflate")
    assert len(value) < 100_000
    decoded = _decode(value)
    assert decoded.batches == []
    (letter,) = decoded.rejects
    assert letter.reason == "too_large"
    assert letter.record is None
    assert letter.index == 0


@pytest.mark.parametrize("schema", [BYTE, EMPTY, STRANGE], ids=["ztf", "no bytes", "no survey"])
def test_so_is_a_plain_one(schema: str) -> None:
    (letter,) = _decode(hand_made(schema, [(1_000_000, bytes(1_000_000))])).rejects
    assert letter.reason == "too_large"


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("schema", [BYTE, STRANGE], ids=["ztf", "no survey"])
def test_and_one_in_many_blocks(codec: str, schema: str) -> None:
    data = b"\x00" if codec == "null" else _deflated(b"\x00")
    blocks = [(1, data)] * (MAX_RECORDS + 1)
    (letter,) = _decode(hand_made(schema, blocks, codec)).rejects
    assert letter.reason == "too_large"
    nothing = b"" if codec == "null" else _deflated(b"")
    (letter,) = _decode(hand_made(schema, [(0, nothing)] * 200_000, codec)).rejects
    assert letter.reason in ("too_large", "empty")


@pytest.mark.parametrize("count", [2**60, 2**62, 2**63 - 1, -1, -(2**63)])
@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_count_that_no_message_can_have_costs_nothing(count: int, codec: str) -> None:
    data = b"" if codec == "null" else _deflated(b"")
    for schema in (EMPTY, STRANGE):
        (letter,) = _decode(hand_made(schema, [(count, data)], codec)).rejects
        assert letter.index == 0
        assert letter.reason in ("bad_container", "too_large")


@pytest.mark.parametrize("schema", [BYTE, STRANGE], ids=["ztf", "no survey"])
def test_letters_of_one_message_beyond_some_are_one(schema: str) -> None:
    decoded = _decode(hand_made(schema, [(1_900, bytes(1_900))]), few_ztf()[0])
    letters = [letter for letter in decoded.rejects if letter.message == 0]
    assert len(letters) == MAX_LETTERS + 1
    assert [letter.index for letter in letters] == list(range(MAX_LETTERS + 1))
    assert letters[-1].record is None, "the last holds the whole message"
    assert f"{1_900 - MAX_LETTERS - 1:,} more" in letters[-1].detail
    assert sum(map(len, decoded.batches)) == 1, "its neighbour is untouched"


def test_real_alerts_among_many_bad_records_are_kept() -> None:
    good = ztf_values()[0]
    schema = plain(header_of(good))
    (record,) = read_packet(good)
    bad = {**record, "candid": 0}
    value = container(schema, [bad] * 30 + [record] + [bad] * 30)
    decoded = _decode(value)
    assert sum(map(len, decoded.batches)) == 1
    assert len(decoded.rejects) == MAX_LETTERS + 1


def test_messages_with_the_most_records_are_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MAX_BATCH_RECORDS", 500)
    good, greedy = few_ztf()[0], hand_made(STRANGE, [(400, bytes(400))])
    few = hand_made(STRANGE, [(3, bytes(3))])
    decoded = _decode(greedy, good, greedy, few, greedy, good)
    reasons = Counter((letter.message, letter.reason) for letter in decoded.rejects)
    assert reasons[(3, "unsupported_schema")] == 3
    assert [reasons[(number, "too_large")] for number in (0, 2, 4)] == [1, 1, 1]
    assert sum(map(len, decoded.batches)) == 2


def test_what_a_batch_decompresses_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_SHARED_BYTES", 3_000_000)
    text = json.dumps({"type": "record", "name": "s", "fields": [{"name": "x", "type": "bytes"}]})
    bomb = hand_made(text, [(1, _deflated(long(1_000_000) + bytes(1_000_000)))], "deflate")
    ordinary = container(plain(header_of(ztf_values()[0])), read_packet(ztf_values()[0]), "deflate")
    decoded = _decode(*[bomb] * 6, ordinary)
    assert Counter(letter.reason for letter in decoded.rejects) == {"unsupported_schema": 3, "too_large": 3}
    assert sum(map(len, decoded.batches)) == 1, "a message of the usual ratio has room of its own"


@pytest.mark.parametrize("count", [8_000_000, -8_000_000, 2**62, -(2**63)])
def test_a_header_of_many_entries_is_not_built(count: int) -> None:
    size = long(1) if count < 0 else b""
    value = b"Obj\x01" + long(count) + size + bytes(16_000_000) + SYNC
    (letter,) = _decode(value).rejects
    assert letter.reason == "bad_container"
    assert "entries" in letter.detail


def test_a_header_of_many_small_maps_is_not_built() -> None:
    entry = long(1) + long(1) + b"a" + long(0)
    (letter,) = _decode(b"Obj\x01" + entry * 1_000_000 + b"\x00" + SYNC).rejects
    assert letter.reason == "bad_container"
    assert "entries" in letter.detail


_ITEMS: dict[str, Any] = {
    "array of records": {
        "type": "array",
        "items": {"type": "record", "name": "i", "fields": [{"name": "l", "type": ["null", "int"]}]},
    },
    "array of arrays": {"type": "array", "items": {"type": "array", "items": "int"}},
    "map": {"type": "map", "values": "int"},
}


@pytest.mark.parametrize("kind", _ITEMS)
@pytest.mark.parametrize("count", [2**40, 2**62, -(2**62), -(2**63), 2**63 - 1])
def test_block_counts_that_lie(kind: str, count: int) -> None:
    text = json.dumps({"type": "record", "name": "s", "fields": [{"name": "x", "type": _ITEMS[kind]}]})
    size = long(-5) if count < 0 else b""
    (letter,) = _decode(hand_made(text, [(1, long(count) + size + bytes(1000))])).rejects
    assert letter.reason == "undecodable"


@pytest.mark.parametrize("kind", _ITEMS)
def test_many_items_of_a_stranger_are_never_made_into_objects(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastavro.schemaless_reader", None)
    text = json.dumps({"type": "record", "name": "s", "fields": [{"name": "x", "type": _ITEMS[kind]}]})
    item = b"\x00\x00" if kind == "map" else b"\x00"
    (letter,) = _decode(hand_made(text, [(1, long(1_000_000) + item * 1_000_000 + b"\x00")])).rejects
    assert letter.reason == "unsupported_schema"


def test_records_that_only_fastavro_can_read_are_read_up_to_a_size() -> None:
    text = _hollow(magpsf=["null", "int", "string"], sigmapsf=_ITEMS["array of records"])
    small = hand_made(text, [(1, long(0) + long(3) + bytes(3) + b"\x00")])
    large = hand_made(text, [(1, long(0) + long(4_000_000) + bytes(4_000_000) + b"\x00")])
    details = [letter.detail for letter in _decode(small, large).rejects]
    assert len(details) == 2
    assert "at most" in details[1]
    assert "at most" not in details[0]


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz", "snappy", "zstandard", "lz4"])
def test_every_codec_is_bounded(codec: str) -> None:
    for data in (
        b"",
        b"\x00",
        bytes(100),
        b"\xff" * 100,
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(50),
    ):
        (letter,) = _decode(hand_made(BYTE, [(1, data)], codec)).rejects
        assert letter.reason in ("bad_container", "too_large", "undecodable")


def test_a_file_of_too_many_records_is_sent_as_it_is() -> None:
    value = hand_made(STRANGE, [(1_000_000, bytes(1_000_000))])
    assert list(single_records(value)) == [value]


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_container_without_a_record_says_so(codec: str) -> None:
    for blocks in ([], [(0, b"" if codec == "null" else _deflated(b""))]):
        (letter,) = _decode(hand_made(BYTE, blocks, codec)).rejects
        assert (letter.reason, letter.index) == ("empty", 0)
        assert "no record" in letter.detail
    cut = hand_made(BYTE, [], codec)[:-5]
    (letter,) = _decode(cut).rejects
    assert letter.reason == "bad_container"
    assert "sync marker" in letter.detail
