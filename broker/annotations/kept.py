"""What is kept of an object's annotations, in Redis: the newest of each kind.

`an:{<key>}` is a string of JSON lines, one an annotation, that are only ever appended: so two workers that
write at once lose nothing, and a batch that is done again repeats a line, which the reader does not see. Of
each kind the newest by its record's Kafka timestamp counts, of equal ones the one with the larger id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.annotations.record import KEPT_KINDS, Annotation
from broker.history.base import Addition
from broker.history.pack import annotation_key

MAX_LINES = 16
"""A string of more lines is rewritten with those that count."""
_EMPTY: dict[str, Any] = {}


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
    for one in blob.splitlines():
        try:
            item = json.loads(one)
            kind, age = item["kind"], _age(item)
        except (ValueError, KeyError, TypeError):
            continue
        if kind not in newest or age > _age(newest[kind]):
            newest[kind] = item
    return Kept(newest)


def addition(key: bytes, stored: bytes, lines: Sequence[bytes]) -> Addition:
    """How new lines are stored beside those that are there."""
    both = stored + b"".join(lines)
    if both.count(b"\n") <= MAX_LINES:
        return Addition(annotation_key(key), b"".join(lines))
    newest = b"".join(_encoded(item) for _, item in sorted(kept(both).newest.items()))
    if not stored:
        return Addition(annotation_key(key), newest)
    return Addition(annotation_key(key), newest, len(stored))


def _encoded(item: dict[str, Any]) -> bytes:
    return json.dumps(item, separators=(",", ":")).encode() + b"\n"


def _age(item: dict[str, Any]) -> tuple[int, str]:
    return int(item["t"]), str(item["id"])
