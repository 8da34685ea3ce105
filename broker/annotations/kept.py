"""What is kept of an object's annotations, in Redis: the newest of each kind.

`an:{<key>}` is a string of JSON lines, one an annotation, that are only ever appended: so two workers that
write at once lose nothing, and a batch that is done again repeats a line, which the reader does not see. Of
each kind the newest by its record's Kafka timestamp counts, of equal ones the one with the larger id.

A line that is damaged, or that this version would not write, is passed over: what it said is in Kafka still.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.annotations.record import KEPT_KINDS, KINDS, Annotation
from broker.history.base import Addition
from broker.history.pack import annotation_key
from broker.text import is_text

MAX_LINES = 16
"""A string of more lines is rewritten with those that count."""
_EMPTY: dict[str, Any] = {}
_TEXTS = ("id", "by", "class", "redshiftKind", "text", "digest")
_NUMBERS = ("probability", "redshift")
_LARGEST = 1e6
_LARGEST_MS = 2**63 - 1


@dataclass(frozen=True)
class Kept:
    """What is known of one object.  newest : by kind, as `line` has it."""

    newest: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, Any]:
        """The newest of a kind, empty if there is none."""
        return self.newest.get(kind, _EMPTY)

    @property
    def last(self) -> dict[str, Any]:
        """The newest of all kinds that say something of the object."""
        said = [item for kind, item in self.newest.items() if kind in KEPT_KINDS]
        return max(said, key=_age, default=_EMPTY)


def line(said: Annotation, timestamp_ms: int) -> bytes:
    """An annotation as it is kept; of forced photometry only that it came."""
    content: dict[str, Any] = {
        "kind": said.kind,
        "id": said.id,
        "t": timestamp_ms,
        "by": said.by,
        "class": said.class_name or None,
        "probability": said.probability,
        "redshift": said.redshift,
        "redshiftKind": said.redshift_kind or None,
        "text": (said.text or None) if said.kind == "note" else None,
        "digest": said.digest,
    }
    return _encoded({name: value for name, value in content.items() if value is not None})


def kept(blob: bytes) -> Kept:
    """What the lines of an object come to; a line that is none of ours is passed over."""
    newest: dict[str, dict[str, Any]] = {}
    for one in blob.split(b"\n"):
        item = _item(one)
        if item is not None and (item["kind"] not in newest or _age(item) > _age(newest[item["kind"]])):
            newest[item["kind"]] = item
    return Kept(newest)


def sound(blob: bytes) -> bool:
    """Whether every line of an object is one that can be read, and ended."""
    lines = blob.split(b"\n")
    return lines[-1] == b"" and all(_item(one) is not None for one in lines[:-1])


def sound_lines(blob: bytes) -> bytes:
    """The lines of an object that can be read."""
    return b"".join(one + b"\n" for one in blob.split(b"\n") if _item(one) is not None)


def _item(one: bytes) -> dict[str, Any] | None:
    """A line's content, every field of its type; None if it is none of ours."""
    try:
        item = json.loads(one)
        texts, numbers = [item.get(name, "") for name in _TEXTS], [item.get(name, 0.0) for name in _NUMBERS]
        kind, at = item["kind"], item["t"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    good = (
        kind in KINDS
        and type(at) is int
        and abs(at) <= _LARGEST_MS
        and all(isinstance(text, str) and is_text(text) for text in texts)
        and all(type(number) in (int, float) and abs(number) <= _LARGEST for number in numbers)
        and "id" in item
    )
    return item if good else None


def addition(key: bytes, stored: bytes, lines: Sequence[bytes]) -> Addition:
    """How new lines are stored beside those that are there."""
    both = stored + b"".join(lines)
    if both.count(b"\n") <= MAX_LINES and sound(stored):
        return Addition(annotation_key(key), b"".join(lines))
    if not sound(stored):  # it may end in the middle of a line
        both = stored + b"\n" + b"".join(lines)
    newest = b"".join(_encoded(item) for _, item in sorted(kept(both).newest.items()))
    if not stored:
        return Addition(annotation_key(key), newest)
    return Addition(annotation_key(key), newest, len(stored))


def _encoded(item: dict[str, Any]) -> bytes:
    return json.dumps(item, separators=(",", ":")).encode() + b"\n"


def _age(item: dict[str, Any]) -> tuple[int, str]:
    return int(item["t"]), str(item["id"])
