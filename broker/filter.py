"""A filter as its owner stored it: one version of a rule, its state, and what it publishes."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from broker.errors import FilterError

Payload = Literal["light", "standard", "full"]
State = Literal["draft", "active", "paused", "removed"]
Excess = Literal["sample-then-pause", "sample", "pause"]

MAX_VERSION = 2**31 - 1
_NAME = re.compile(r"[a-z0-9-]{1,48}")
_TEXTS = ("owner", "name", "where", "payload", "state", "description")
_LATER_FIELDS: dict[str, tuple[type, ...]] = {
    "created_at": (str,),
    "select": (str,),
    "max_hits_per_hour": (int,),
    "max_us_per_alert": (int, float),
    "on_excess": (str,),
    "sample": (int, float),
    "sampled_hour": (int,),
    "reason": (str,),
    "changed_at": (str,),
    "changed_by": (str,),
}
"""Fields that a stored filter may lack because it is older than they are."""


@dataclass(frozen=True)
class Filter:
    """One version of a user's rule.

    where : the condition.  payload : how much of the alert each message carries.
    created_at : ISO 8601 time of this version, '' for one that is part of the broker.
    select : expressions whose values each message carries, '' for none
    max_hits_per_hour, max_us_per_alert : its budget, 0 = the one that the settings give
    on_excess : what happens to it beyond its budget of hits
    sample : share of its hits that is published;  sampled_hour : the hour in which that share was set [Unix s
    / 3600]
    reason : why it is paused or sampled, '' where its owner wished so
    changed_at, changed_by : when this version took its present state, and who gave it
    """

    owner: str
    name: str
    version: int
    where: str
    payload: Payload = "light"
    state: State = "active"
    description: str = ""
    created_at: str = ""
    select: str = ""
    max_hits_per_hour: int = 0
    max_us_per_alert: float = 0.0
    on_excess: Excess = "sample-then-pause"
    sample: float = 1.0
    sampled_hour: int = 0
    reason: str = ""
    changed_at: str = ""
    changed_by: str = ""

    def __post_init__(self) -> None:
        check_name("owner", self.owner)
        check_name("filter name", self.name)
        _check_choice("payload", self.payload, get_args(Payload))
        _check_choice("state", self.state, get_args(State))
        _check_choice("on_excess", self.on_excess, get_args(Excess))
        _check_limit("max_hits_per_hour", self.max_hits_per_hour)
        _check_limit("max_us_per_alert", self.max_us_per_alert)
        if not 0 < self.sample <= 1:
            raise FilterError(f"a share of {self.sample} of the hits; it is above 0 and at most 1")
        if not 1 <= self.version <= MAX_VERSION:
            raise FilterError(
                f"version {self.version} of filter {self.owner}.{self.name}; versions start at 1"
            )
        _check_time(self.created_at)
        _check_time(self.changed_at)

    @property
    def full_name(self) -> str:
        """owner.name, the same for all versions."""
        return f"{self.owner}.{self.name}"

    @property
    def rule(self) -> tuple[object, ...]:
        """All that its owner chose: two versions with the same rule do the same."""
        limits = self.max_hits_per_hour, self.max_us_per_alert, self.on_excess
        return self.where, self.select, self.payload, self.description, *limits

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
        return {_camel(name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Filter:
        """From what to_json gives; fields that a later version of the broker added are ignored."""
        faulty = [key for key in _TEXTS if not isinstance(record.get(key), str)]
        faulty += ["version"] if type(record.get("version")) is not int else []
        later = {name: record[_camel(name)] for name in _LATER_FIELDS if _camel(name) in record}
        faulty += [_camel(name) for name, value in later.items() if type(value) not in _LATER_FIELDS[name]]
        if faulty:
            raise FilterError(f"stored filter has a missing or malformed {faulty[0]!r}; store it again")
        return cls(version=record["version"], **{key: record[key] for key in _TEXTS}, **later)


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


def _check_limit(what: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise FilterError(f"{what} = {value}; give a positive number, or 0 for the one of the settings")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _check_time(text: str) -> None:
    try:
        if text:
            datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise FilterError(f"{text[:60]!r} is not an ISO 8601 time; write 2025-01-31T12:00:00Z") from None
