"""A record as JSON that people and other languages can read without loss.

Ids and numbers over 2**53 are strings (JSON readers round them otherwise), NaN and infinities null, bytes
base64. Without `full`, bytes are given as their size alone, and so are the lists in an original alert.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from broker.client.decode import Received, Undecodable, as_text
from broker.message import Message

Json = dict[str, Any]
_SAFE_INTEGER = 2**53
_KINDS = ("number", "integer", "text", "truth")
"""Fields of a selected value, of which at most one is given."""
_BULKY = ("original", "records")
"""Fields that hold a survey's own record: history and images included."""


def as_json(received: Received, *, full: bool = False) -> Json:
    """A record's fields, and under `kafka` where it was; what a filter selects as one object.

    full : bytes in base64 and original alerts whole; else sizes stand for both
    """
    fields = {
        name: readable(value, name, full=full, short=name in _BULKY and not full)
        for name, value in received.value.items()
    }
    if "selected" in fields.get("filter", ()):
        chosen = {name: readable(value, name, full=full) for name, value in selected(received.value).items()}
        fields["filter"] = fields["filter"] | {"selected": chosen}
    return fields | {"kafka": place(received.message)}


def undecodable_json(bad: Undecodable, *, full: bool = False) -> Json:
    """A record that could not be read: why, and what it is all the same."""
    value = readable(bad.message.value, "", full=full)
    return {"undecodable": bad.why, "value": value, "kafka": place(bad.message)}


def line(content: Json) -> str:
    """One line of JSON, ASCII only: what a record carries cannot steer a terminal."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def place(message: Message) -> Json:
    """Where a record was, when it was written [Unix ms] and its key."""
    return {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp": message.timestamp_ms,
        "key": as_text(message.key),
    }


def selected(hit: Mapping[str, Any]) -> Json:
    """What the filter of a hit selects, by name; None where it is not known.

    hit : the value of a record of a filter's topic
    """
    chosen = hit.get("filter", {}).get("selected", ())
    return {item["name"]: next((item[k] for k in _KINDS if item[k] is not None), None) for item in chosen}


def readable(value: Any, name: str = "", *, full: bool, short: bool = False) -> Any:
    """A decoded value as JSON has it.

    name : of the field it is in;  short : give lists of records by their length
    """
    if isinstance(value, dict):
        return {key: readable(item, key, full=full, short=short) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if short and name not in _BULKY and any(isinstance(item, dict) for item in value):
            return {"count": len(value)}
        return [readable(item, name, full=full, short=short) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode() if full else {"bytes": len(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if name.endswith("Id") or abs(value) > _SAFE_INTEGER else value
    return value if value is None or isinstance(value, (str, bool)) else str(value)
