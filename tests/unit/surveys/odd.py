"""A schema with everything that Avro has, and a layout that reads some of it."""

from __future__ import annotations

from typing import Any

from broker.surveys.columns import ChildTable, Field, Layout

_POINT = {
    "type": "record",
    "name": "point",
    "fields": [
        {"name": "t", "type": "double"},
        {"name": "f", "type": ["float", "null"]},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string", "long"]}},
        {"name": "g", "type": ["null", "double"]},
        {"name": "n", "type": ["null", "int"]},
        {"name": "band", "type": ["null", "string"]},
    ],
}

ODD_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "odd",
    "fields": [
        {"name": "nothing", "type": "null"},
        {"name": "flag", "type": "boolean"},
        {"name": "maybe", "type": ["boolean", "null"]},
        {"name": "small", "type": "int"},
        {"name": "big", "type": "long"},
        {"name": "other_big", "type": ["null", "long"]},
        {"name": "kind", "type": {"type": "enum", "name": "kinds", "symbols": ["a", "b", "c"]}},
        {"name": "key", "type": {"type": "fixed", "name": "sixteen", "size": 16}},
        {"name": "keys", "type": ["null", "sixteen"]},
        {"name": "text", "type": ["null", "string"]},
        {"name": "alternative", "type": "string"},
        {"name": "many", "type": ["null", "long", "string", {"type": "array", "items": "double"}, "kinds"]},
        {"name": "map", "type": {"type": "map", "values": {"type": "array", "items": "int"}}},
        {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": "float"}}},
        {"name": "first", "type": _POINT},
        {"name": "second", "type": ["null", "point"]},
        {"name": "points", "type": ["null", {"type": "array", "items": "point"}]},
        {"name": "sparse", "type": {"type": "array", "items": ["null", "point"]}},
        {"name": "stamp", "type": ["null", "bytes"]},
        {"name": "tail", "type": ["null", "float"]},
    ],
}

_POINT_FIELDS = (
    Field("t", "float", ("t",)),
    Field("f", "float", ("f", "g")),
    Field("n", "int", ("missing", "n")),
    Field("band", "text", ("band",)),
    Field("absent", "text", ("absent",)),
)

ODD_LAYOUT = Layout(
    alert=(
        Field("flag", "float", ("flag",)),
        Field("maybe", "float", ("maybe",)),
        Field("small", "float", ("small",)),
        Field("big", "int", ("other_big", "big")),
        Field("text", "text", ("text", "alternative")),
        Field("t", "float", ("second.t", "first.t")),
        Field("n", "int", ("second.n", "first.n")),
        Field("tail", "float", ("tail",)),
    ),
    children=(
        ChildTable("points", "points", _POINT_FIELDS),
        ChildTable("sparse", "sparse", _POINT_FIELDS),
        ChildTable("none", "none", (Field("x", "int", ("x",)),)),
    ),
    cutouts=(("stamp",), ("no_stamp",)),
)


def odd_records() -> list[dict[str, Any]]:
    """Records that take every branch."""
    return [_odd(number) for number in range(8)]


def _point(number: int) -> dict[str, Any]:
    return {
        "t": 60_000.5 + number,
        "f": None if number % 3 == 0 else 0.1 * number,
        "tags": [None, "tag", number][: number % 4],
        "g": None if number % 2 else -0.5,
        "n": None if number % 2 else number - 3,
        "band": [None, "", "g", "é→𝄞"][number % 4],
    }


def _odd(number: int) -> dict[str, Any]:
    return {
        "nothing": None,
        "flag": number % 2 == 0,
        "maybe": [None, True, False][number % 3],
        "small": (-1) ** number * (2**31 - 1),
        "big": (-1) ** number * (2**63 - 1) if number else 0,
        "other_big": [None, 0, -(2**63)][number % 3],
        "kind": "abc"[number % 3],
        "key": bytes(range(number, number + 16)),
        "keys": None if number % 2 else b"k" * 16,
        "text": [None, "", "näme", "x" * 128][number % 4],
        "alternative": f"text {number}",
        "many": [None, -number, "one", [1.5, 2.5], "b"][number % 5],
        "map": {f"key {k}": list(range(k)) for k in range(number % 4)},
        "grid": [[0.5] * k for k in range(number % 5)],
        "first": _point(number),
        "second": None if number % 3 == 1 else _point(number + 1),
        "points": None if number == 4 else [_point(k) for k in range(number)],
        "sparse": [None if k % 2 else _point(k) for k in range(number)],
        "stamp": None if number % 4 == 3 else bytes([number]) * 20,
        "tail": None if number % 2 else 1e-42 * number,
    }
