"""Hostile bytes for what a run reads besides alerts: `control`, `annotations`, Redis, headers.

Each maker takes a source of chance and gives one thing that a careless or malicious writer could have left
there: broken text, numbers beyond every range, nesting without end, the wrong type, or a good record with one
place changed.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from typing import Any

from kafka_raw import RawRecord

_TOKENS = (
    b"1e999", b"-1e999", b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"1e-999",
    b"9" * 400, b'"\\ud800"', b'"\\udc80x"', b'"\\u0000"', b'"\xff\xfe"', b'"' + b"x" * 70_000 + b'"',
    b"[" * 100_000, b"[" * 400 + b"]" * 400, b'{"a":1,"a":2}', b"\xed\xa0\x80", b'"../../x"', b'"a/b"',
    b"9223372036854775808", b"1.5", b'"1.5"', b"[null]", b'{"":{}}', b'"\xf0\x9f\x94\xad"',
)  # fmt: skip
_MARK = "@@place@@"
_KINDS = (
    "filter", "schema", "bundle", "model", "feedback", "trees", "forest", "shadow", "catalog", "watchlist",
    "region", "blob", "future-kind",
)  # fmt: skip
_PLAUSIBLE: dict[str, Any] = {
    "owner": "fuzz", "name": "f", "version": 1, "where": "mag < 19", "state": "active", "payload": "light",
    "survey": "ztf", "alert": 1, "id": "m", "revision": 1, "at": 1.0, "by": "fuzz", "sha256": "0" * 64,
    "schema": "{}", "features": ["mag"], "label": "SNIa", "group": "ztf", "parts": 1, "size": 1,
}  # fmt: skip
_ANNOTATION: dict[str, Any] = {
    "survey": "ztf", "object": "ZTF18aaaaaaa", "kind": "class", "by": "fuzz", "at": "2026-01-01T00:00:00Z",
    "class": "SNIa", "probability": 0.5, "redshift": 0.1, "redshiftKind": "photometric", "text": "a note",
    "id": "fuzz", "points": [{"midpointMjdTai": 61000.0, "band": "g", "psfFlux": 1.0, "psfFluxErr": 0.1}],
}  # fmt: skip
_ANNOTATION_KINDS = ("class", "note", "redshift", "spectrum-type", "forced", "reevaluate", "odd")


def control_record(
    dice: random.Random, known: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes | None, bytes | None]:
    """Key and value of a `control` record.  known : good records, which serve as patterns.

    What is in force keeps its own name: a filter that is changed is another one, of the owner `fuzz`.
    """
    if known and dice.random() < 0.5:
        key, value = dice.choice(known)
        kind = key.split(b"/", 1)[0]
        content = _renamed(json.loads(value), dice)
    else:
        kind, content = dice.choice(_KINDS).encode(), dict(_PLAUSIBLE)
    name = f"fuzz-{dice.randrange(50)}".encode()
    key = b"%s/fuzz.%s/%d" % (kind, name, dice.randrange(1, 4))
    roll = dice.random()
    if roll < 0.05:
        return dice.choice([None, b"", b"/", b"\xff\xfe", kind, b"%s/\xed\xa0\x80/1" % kind]), b"{}"
    if roll < 0.1:
        return key, dice.choice([None, b"", b"\x00", os.urandom(40), *_TOKENS])
    return key, spoilt(dice, content)


def annotation(dice: random.Random, objects: Sequence[str]) -> tuple[bytes | None, bytes]:
    """Key and value of an `annotations` record, about one of some objects or about none."""
    content = {**_ANNOTATION, "kind": dice.choice(_ANNOTATION_KINDS), "id": f"fuzz-{dice.getrandbits(40)}"}
    if objects and dice.random() < 0.7:
        content["object"] = dice.choice(objects)
    key = dice.choice([b"ztf:1", None, b"\xff", str(content["object"]).encode()])
    if dice.random() < 0.1:
        return key, dice.choice([b"", os.urandom(30), *_TOKENS])
    return key, spoilt(dice, content)


def header_record(dice: random.Random, value: bytes) -> RawRecord:
    """A record with headers that no client would write."""
    names = (
        b"", b"\xff\xfe", b"\xed\xa0\x80", b"a\x00b", b"x" * 5000, b"source-file", b"reason", b"size",
        b"source", b"original-source", b"schema-id", b"sha256", b"letter", b"\xf0\x9f\x94\xad", b"traceback",
    )  # fmt: skip
    values = (None, b"", b"\xff", b"1e999", b"{", b"[" * 3000, b"x" * 20_000, b"ztf", b"-1", os.urandom(16))
    count = dice.choice([0, 1, 2, 5, 200])
    headers = [(dice.choice(names), dice.choice(values)) for _ in range(count)]
    return RawRecord(value, headers, dice.choice([None, b"", b"\xff\xfe", b"123", b"k" * 2000]))


def stored_value(dice: random.Random, value: bytes) -> bytes:
    """A value of Redis with some of its bytes gone, changed, or too many."""
    how = dice.randrange(6)
    if how == 0 or not value:
        return os.urandom(dice.randrange(1, 100))
    cut = dice.randrange(len(value))
    if how == 1:
        return value[:cut]
    if how == 2:
        return value + os.urandom(dice.randrange(1, 40))
    if how == 3:
        return dice.choice(_TOKENS)
    spoilt_bytes = bytearray(value)
    for _ in range(dice.randrange(1, 9)):
        spoilt_bytes[dice.randrange(len(value))] = dice.randrange(256)
    return bytes(spoilt_bytes)


def spoilt(dice: random.Random, content: Any) -> bytes:
    """JSON with one of its places taken by something hostile, or with some of its bytes changed."""
    if dice.random() < 0.2:
        data = bytearray(json.dumps(content).encode())
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data[: dice.randrange(1, len(data) + 1)] if dice.random() < 0.3 else data)
    text = json.dumps(_with_mark(dice, content)).encode()
    return text.replace(f'"{_MARK}"'.encode(), dice.choice(_TOKENS), 1)


def _with_mark(dice: random.Random, content: Any) -> Any:
    """A copy with the mark in one place, at any depth."""
    if isinstance(content, dict) and content and dice.random() < 0.95:
        place = dice.choice(sorted(content))
        return {**content, place: _with_mark(dice, content[place])}
    if isinstance(content, list) and content and dice.random() < 0.7:
        place = dice.randrange(len(content))
        return [*content[:place], _with_mark(dice, content[place]), *content[place + 1 :]]
    return _MARK


def _renamed(content: Any, dice: random.Random) -> Any:
    if isinstance(content, dict) and "where" in content:
        return {
            **content,
            "owner": "fuzz",
            "name": f"fuzz-{dice.randrange(50)}",
            "version": dice.randrange(1, 4),
        }
    return content
