"""Writer schemas made to hurt: each is refused, or read with work in proportion to its size."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from broker.errors import SchemaError
from broker.surveys import writer
from broker.surveys.avro import LocalSchemas, open_message
from broker.surveys.catalog import decode
from broker.surveys.writer import writer_schema
from tests.unit.surveys.samples import container, few_ztf, hand_made, header_of, messages


def _record(name: str, *fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields], **more}


def _doubling(levels: int) -> dict[str, Any]:
    """Each level holds the one below in two branches of a union: twice as many paths a level."""
    inner = _record("r0", ("x", "int"))
    for level in range(1, levels):
        below: Any = inner if level == 1 else f"r{level - 1}"
        left = _record(f"l{level}", ("a", inner))
        right = _record(f"m{level}", ("b", below if level > 1 else "r0"))
        inner = _record(f"r{level}", ("u", [left, right]))
    return inner


def _by_name(levels: int) -> dict[str, Any]:
    """The same, each level defined once and named again."""
    inner = _record("r0", ("x", "int"))
    for level in range(1, levels):
        inner = _record(f"r{level}", ("a", inner), ("b", ["null", f"r{level - 1}"]))
    return inner


def _in_unions(levels: int) -> dict[str, Any]:
    """Unions of a record and an array of the same record."""
    inner = _record("r0", ("x", "int"))
    for level in range(1, levels):
        inner = _record(f"r{level}", ("u", [inner, {"type": "array", "items": f"r{level - 1}"}]))
    return inner


def _long_paths() -> dict[str, Any]:
    """Few fields, but each path is long: one prefix of many letters before thousands of fields."""
    inner = _record("leaf", *((f"f{k}", "int") for k in range(4000)))
    for level in range(40):
        inner = _record(f"r{level}", ("n" * 1000, inner))
    return inner


def _chain(length: int) -> dict[str, Any]:
    """Records inside each other by name, deeper than any call may go."""
    fields: list[tuple[str, Any]] = [("f0", _record("r0", ("x", "int")))]
    fields += [(f"f{k}", _record(f"r{k}", ("y", f"r{k - 1}"))) for k in range(1, length)]
    return _record("top", *fields)


def _deep(levels: int) -> Any:
    inner: Any = "int"
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return _record("deep", ("d", inner))


HOSTILE: dict[str, str] = {
    "doubling unions": json.dumps(_doubling(22)),
    "doubling names": json.dumps(_by_name(40)),
    "records and arrays of them": json.dumps(_in_unions(40)),
    "long paths": json.dumps(_long_paths()),
    "a chain of names": json.dumps(_chain(600)),
    "deep nesting": json.dumps(_deep(300)),
    "brackets": "[" * 100_000,
    "braces": '{"type":' * 100_000,
    "many fields": json.dumps(_record("wide", *((f"f{k}", "int") for k in range(100_000)))),
    "many symbols": json.dumps(
        _record("e", ("k", {"type": "enum", "name": "k", "symbols": [f"s{k}" for k in range(100_000)]}))
    ),
    "a size without end": '{"type":"record","name":"a","fields":[{"name":"f","type":'
    '{"type":"fixed","name":"x","size":1e999}}]}',
    "a size of many digits": '{"type":"record","name":"a","fields":[{"name":"f","type":'
    '{"type":"fixed","name":"x","size":' + "9" * 5000 + "}}]}",
    "half a letter as name": r'{"type":"record","name":"\ud800","fields":[]}',
    "half a letter as field": r'{"type":"record","name":"a","fields":[{"name":"\udc80","type":"int"}]}',
    "half a letter as type": r'{"type":"record","name":"a","fields":[{"name":"f","type":"\ud83d"}]}',
    "half a letter in words": r'{"type":"record","name":"a","doc":"\ud83d","fields":[]}',
    "half a letter as key": r'{"type":"record","name":"a","\ud83d":1,"fields":[]}',
    "a record in itself": json.dumps(_record("a", ("f", ["null", "a"]))),
    "said to be parsed": json.dumps(
        _record(
            "a",
            ("f", {"type": "array", "items": "int"}),
            ("g", "b"),
            __fastavro_parsed__=True,
            __named_schemas__={"b": _record("b", ("h", "b"))},
        )
    ),
    "a name that is no text": '{"type":"record","name":7,"fields":[]}',
    "fields that are none": '{"type":"record","name":"a","fields":{"f":1}}',
    "nothing": "null",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_with_a_reason_that_can_be_written(name: str) -> None:
    with pytest.raises(SchemaError) as refused:
        writer_schema(HOSTILE[name])
    text = str(refused.value)
    assert text.encode()
    assert len(text) < 400
    (letter,) = decode(messages([hand_made(HOSTILE[name], [(1, b"\x00")])]), LocalSchemas()).rejects
    assert letter.reason == "unsupported_schema"


@pytest.mark.parametrize("make", [_doubling, _by_name, _in_unions])
def test_the_work_of_a_schema_grows_as_its_text_does(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    plain = writer._Paths.below

    def counted(self: Any, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        plain(self, *arguments)

    monkeypatch.setattr(writer._Paths, "below", counted)
    for levels in (4, 8, 16, 20):
        with contextlib.suppress(SchemaError):
            writer_schema(json.dumps(make(levels)))
        assert calls <= 4 * writer.MAX_NODES
        calls = 0


def test_a_refusal_is_found_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(_record("once", ("f", ["null", "once"])))
    for _ in range(2):
        with pytest.raises(SchemaError):
            writer_schema(text)
        monkeypatch.setattr(writer, "_read", None)


def test_a_long_version_does_not_widen_every_row() -> None:
    schema = writer_schema(json.dumps(_record("a", ("f", "int"), version="9" * 100_000)))
    assert len(schema.version) <= writer.MAX_VERSION


def test_a_decimal_of_a_million_digits_costs_nothing() -> None:
    schema = _record("a", ("f", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}))
    plain = b"\x7f" * 1_000_000
    size = 2 * len(plain)
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    opened = open_message(
        hand_made(json.dumps(schema), [(1, bytes([*length, size]) + plain)]), LocalSchemas()
    )
    assert opened.fault is not None
    assert opened.fault.reason == "undecodable"


def test_schemas_of_surveys_stay_far_below_every_limit() -> None:
    for value in few_ztf():
        text = json.dumps(header_of(value), default=str)
        schema = writer_schema(text)
        assert 10 * len(schema.paths) < writer.MAX_NODES
        assert 4 * len(text) < writer.MAX_TEXT_BYTES
    assert container(_record("a", ("f", "int")), [{"f": 1}])
