"""A filter as its owner stored it: one version of a rule, its state, and what it publishes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from broker.errors import FilterError

Payload = Literal["light", "standard", "full"]
State = Literal["draft", "active", "paused", "removed"]

_NAME = re.compile(r"[a-z0-9-]{1,48}")
_TEXTS = ("owner", "name", "where", "payload", "state", "description")


@dataclass(frozen=True)
class Filter:
    """One version of a user's rule.

    where : the condition.  payload : how much of the alert each message carries.
    created_at : ISO 8601 time of this version, '' for one that is part of the broker.
    """

    owner: str
    name: str
    version: int
    where: str
    payload: Payload = "light"
    state: State = "active"
    description: str = ""
    created_at: str = ""

    def __post_init__(self) -> None:
        check_name("owner", self.owner)
        check_name("filter name", self.name)
        _check_choice("payload", self.payload, get_args(Payload))
        _check_choice("state", self.state, get_args(State))
        if self.version < 1:
            raise FilterError(
                f"version {self.version} of filter {self.owner}.{self.name}; versions start at 1"
            )
        _check_time(self.created_at)

    @property
    def topic(self) -> str:
        """The topic its hits go to; the same for all versions."""
        return f"filters.{self.owner}.{self.name}"

    @property
    def control_key(self) -> str:
        """Its key in the control topic."""
        return f"filter/{self.owner}.{self.name}/{self.version}"

    @property
    def label(self) -> str:
        """How a message names this version."""
        return f"{self.owner}.{self.name}@{self.version}"

    @property
    def mark(self) -> bytes:
        """How a claim names it (see filter_mark)."""
        return filter_mark(self.label)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, names in camelCase."""
        record = asdict(self)
        record["createdAt"] = record.pop("created_at")
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Filter:
        """From what to_json gives; fields that a later version of the broker added are ignored."""
        version, created_at = record.get("version"), record.get("createdAt", "")
        faulty = [key for key in _TEXTS if not isinstance(record.get(key), str)]
        if faulty or not isinstance(version, int) or not isinstance(created_at, str):
            key = faulty[0] if faulty else "createdAt" if isinstance(version, int) else "version"
            raise FilterError(f"stored filter has a missing or malformed {key!r}; store it again")
        return cls(version=version, created_at=created_at, **{key: record[key] for key in _TEXTS})


def filter_mark(label: str) -> bytes:
    """Four bytes for a version of a filter: the same whatever the control topic has compacted away.

    label : owner.name@version
    """
    return hashlib.blake2b(label.encode(), digest_size=4).digest()


def check_name(what: str, name: str) -> None:
    """Raise FilterError unless a name can be part of a topic's: 1 to 48 of a-z, 0-9 and '-'."""
    if _NAME.fullmatch(name) is None:
        raise FilterError(f"{what} {name[:60]!r} is not allowed; use 1 to 48 of a-z, 0-9 and '-'")


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise FilterError(f"unknown {what} {value[:60]!r}; choose {', '.join(choices)}")


def _check_time(text: str) -> None:
    try:
        if text:
            datetime.fromisoformat(text)
    except ValueError:
        raise FilterError(f"{text[:60]!r} is not an ISO 8601 time; write 2025-01-31T12:00:00Z") from None
