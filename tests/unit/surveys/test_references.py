"""Schemas that name their parts by references, and registries that answer with anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from broker.errors import RetryBatch
from broker.surveys import registry as edge
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode
from broker.surveys.references import MAX_PARTS
from broker.surveys.registry import RegistrySchemas
from broker.surveys.writer import writer_schema
from tests.registry_server import Registry
from tests.unit.surveys.samples import few_lsst, files, lsst_schema, messages


def _record(name: str, *fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields], **more}


@pytest.fixture
def server() -> Iterator[Registry]:
    found = Registry({})
    yield found
    found.stop()


def _serve(
    server: Registry, top: Any, parts: dict[str, Any], inner: dict[str, list[str]] | None = None
) -> None:
    def said(schema: Any, names: list[str]) -> tuple[int, bytes]:
        found = [{"name": name, "subject": f"s/{name}", "version": 1} for name in names]
        return 200, json.dumps({"schema": json.dumps(schema), "references": found}).encode()

    inner = inner or {}
    direct = [name for name in parts if not any(name in names for names in inner.values())]
    server.answers["/schemas/ids/5000"] = said(top, direct)
    for name, schema in parts.items():
        server.answers[f"/subjects/s%2F{name}/versions/1"] = said(schema, inner.get(name, []))


def _get(server: Registry) -> str | None:
    schemas = RegistrySchemas(server.url, LocalSchemas())
    for _ in range(20):
        try:
            return schemas.get(5000)
        except RetryBatch as trouble:
            if "not yet answered" not in str(trouble):
                raise
    raise AssertionError("no answer")


def _split(schema: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A schema with its inner records taken out of it, and these by full name."""
    parts: dict[str, Any] = {}

    def out(part: Any, namespace: str) -> Any:
        if isinstance(part, list):
            return [out(one, namespace) for one in part]
        if not isinstance(part, dict):
            return part
        namespace = part.get("namespace", namespace)
        made = {
            key: out(value, namespace) if key in ("type", "items", "fields") else value
            for key, value in part.items()
        }
        if part.get("type") == "record":
            name = part["name"] if "." in part["name"] else f"{namespace}.{part['name']}"
            parts[name] = {**made, "name": name}
            return name
        return made

    top = out(schema, "")
    return parts.pop(top), parts


def test_rubins_alerts_are_read_by_references(server: Registry) -> None:
    schema = lsst_schema(1100)
    assert schema is not None
    top, parts = _split(schema)
    assert len(parts) >= 4
    _serve(server, top, parts)
    values = [b"\x00" + (5000).to_bytes(4, "big") + value[5:] for value in few_lsst()]
    schemas = RegistrySchemas(server.url, LocalSchemas())
    assert _get(server)
    decoded = decode(messages(values), schemas)
    assert not decoded.rejects
    assert sum(map(len, decoded.batches)) == len(values)
    asked = [path for path, _ in server.asked if path.startswith("/subjects")]
    decode(messages(values), schemas)
    assert len([path for path, _ in server.asked if path.startswith("/subjects")]) == len(asked), "kept"


def test_parts_may_have_parts_and_be_named_twice(server: Registry) -> None:
    top = _record(
        "t", ("a", "n.b"), ("again", ["null", "n.b"]), ("c", {"type": "array", "items": "c"}), namespace="n"
    )
    parts = {
        "n.b": _record("b", ("d", "n.d"), namespace="n"),
        "n.c": _record("n.c", ("d", {"type": "n.d"})),
        "n.d": _record("d", ("x", "int"), namespace="n"),
    }
    _serve(server, top, parts, {"n.b": ["n.d"], "n.c": ["n.d"]})
    text = _get(server)
    assert text is not None
    assert writer_schema(text).paths >= {"a.d.x", "again.d.x", "c[].d.x"}


def test_a_part_that_is_missing_is_a_denial(server: Registry) -> None:
    _serve(server, _record("t", ("a", "b")), {"b": _record("b", ("x", "int"))})
    del server.answers["/subjects/s%2Fb/versions/1"]
    assert _get(server) is None


def test_circles_are_refused_not_followed(server: Registry) -> None:
    parts = {"b": _record("b", ("c", ["null", "c"])), "c": _record("c", ("b", ["null", "b"]))}
    _serve(server, _record("t", ("a", "b")), parts, {"b": ["c"], "c": ["b"]})
    found = [{"name": "b", "subject": "s/b", "version": 1}]
    top = json.dumps(_record("t", ("a", "b")))
    server.answers["/schemas/ids/5000"] = 200, json.dumps({"schema": top, "references": found}).encode()
    text = _get(server)
    assert text is not None
    value = b"\x00" + (5000).to_bytes(4, "big") + bytes(10)
    schemas = RegistrySchemas(server.url, LocalSchemas())
    schemas._found[5000] = text
    (letter,) = decode(messages([value]), schemas).rejects
    assert letter.reason == "unsupported_schema"
    assert "inside itself" in letter.detail
    assert len(server.asked) <= 4


def test_parts_without_end_are_not_fetched(server: Registry) -> None:
    names = [f"p{k}" for k in range(3 * MAX_PARTS)]
    parts = {name: _record(name, ("x", "int")) for name in names}
    _serve(server, _record("t"), parts, {name: [names[k + 1]] for k, name in enumerate(names[:-1])})
    with pytest.raises(RetryBatch, match="more than"):
        _get(server)
    assert len(server.asked) <= MAX_PARTS + 2


HOSTILE: dict[str, bytes] = {
    "HTML": b"<html><body>Sign in</body></html>",
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "no schema": b'{"id": 1}',
    "a schema that is no text": b'{"schema": {"type": "int"}}',
    "brackets": b"[" * 200_000,
    "deep beside it": b'{"schema": "{}", "x": ' + b"[" * 500 + b"]" * 500 + b"}",
    "huge": b'{"schema": "' + b"x" * (5 << 20) + b'"}',
    "half a letter": rb'{"schema": "\ud83d"}',
    "not UTF-8": b'{"schema": "\xff"}',
    "references that are none": b'{"schema": "{}", "references": 7}',
    "references of nothing": b'{"schema": "{}", "references": [7]}',
    "a reference without a version": b'{"schema": "{}", "references": [{"name": "a", "subject": "b"}]}',
    "a reference elsewhere": b'{"schema": "{}", "references": [{"name":"a","subject":"b","version":"../x"}]}',
    "many references": json.dumps({"schema": "{}", "references": [{}] * 10_000}).encode(),
    "brackets with references": json.dumps(
        {"schema": "[" * 100_000, "references": [{"name": "a", "subject": "a", "version": 1}]}
    ).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_registry_answers_the_batch_waits_and_says_why(name: str, server: Registry) -> None:
    server.say(5000, 200, HOSTILE[name])
    server.answers["/subjects/a/versions/1"] = 200, b'{"schema": "{}"}'
    with pytest.raises(RetryBatch) as trouble:
        _get(server)
    assert str(trouble.value).encode()
    assert len(str(trouble.value)) < 1000


def test_an_answer_that_drips_is_given_up(server: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dripping:
        def read1(self, _: int) -> bytes:
            return b" "

    clock = iter(range(10_000))
    monkeypatch.setattr(edge.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(TimeoutError):
        edge._whole(Dripping())


def test_the_shared_example_is_read(server: Registry) -> None:
    wire = [path for path in files("lsst/wire") if "v10_0" in path.name]
    schema = lsst_schema(1000)
    if not wire or schema is None:
        pytest.skip("no shared data")
    top, parts = _split(schema)
    _serve(server, top, parts)
    value = b"\x00" + (5000).to_bytes(4, "big") + wire[0].read_bytes()[5:]
    assert _get(server)
    decoded = decode(messages([value]), RegistrySchemas(server.url, LocalSchemas()))
    assert sum(map(len, decoded.batches)) == 1
