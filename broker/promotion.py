"""Bundles as they are stored in `control`, and which of them is live: one promotion after the other."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

ALL = "all"
"""The group of every survey that has no promotion of its own."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BundleName:
    """Id and version of a bundle, as provenance names them."""

    id: str
    version: str

    def __post_init__(self) -> None:
        for part in (self.id, self.version):
            if not isinstance(part, str) or _NAME.fullmatch(part) is None:
                raise ValueError(
                    f"{part!r} cannot be a bundle's id or version; use 1 to 48 letters, digits, '.', '_', '-'"
                )

    def __str__(self) -> str:
        return f"{self.id}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> BundleName:
        """From id:version.  Raises ValueError."""
        id_, _, version = text.partition(":")
        return cls(id_, version)


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in `control`.

    sha256 : of its manifest, which names the hashes of all other files;  archive : see scores/archive.py
    at : ISO 8601 time;  by : who stored it
    """

    name: BundleName
    sha256: str
    archive: bytes = field(repr=False)
    at: str
    by: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, the archive in base64."""
        return {**self.summary(), "archive": base64.b64encode(self.archive).decode()}

    def summary(self) -> dict[str, Any]:
        """As people are shown it."""
        size = len(self.archive)
        return {**asdict(self.name), "sha256": self.sha256, "bytes": size, "at": self.at, "by": self.by}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StoredBundle:
        """From what to_json gives.  Raises ValueError, KeyError or TypeError."""
        if _SHA256.fullmatch(record["sha256"]) is None:
            raise ValueError("sha256 of a stored bundle is malformed")
        return cls(
            BundleName(record["id"], record["version"]),
            record["sha256"],
            base64.b64decode(record["archive"], validate=True),
            str(record["at"]),
            str(record["by"]),
        )


@dataclass(frozen=True)
class Promotion:
    """From this record on, the alerts of a group are scored by a bundle.

    group : a survey, or ALL;  revision : counts the group's promotions from 1
    bundle : None means none of its own: the bundle of ALL, or else the shipped one
    below : revision to which a rollback goes; 0 is the time before the first
    rollback : whether this is one;  at : ISO 8601 time;  by, why : for people
    """

    group: str
    revision: int
    bundle: BundleName | None
    below: int
    rollback: bool
    at: str
    by: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Promotion:
        """From what to_json gives.  Raises ValueError, KeyError or TypeError."""
        group, revision, below = record["group"], record["revision"], record["below"]
        if not isinstance(group, str) or _NAME.fullmatch(group) is None:
            raise ValueError(f"{group!r} is no group of surveys")
        if type(revision) is not int or type(below) is not int or not 0 <= below < revision:
            raise ValueError(f"revision {revision!r} of {group} cannot lie on {below!r}")
        named = record["bundle"]
        bundle = None if named is None else BundleName(named["id"], named["version"])
        rollback, texts = bool(record["rollback"]), [str(record[name]) for name in ("at", "by", "why")]
        return cls(group, revision, bundle, below, rollback, *texts)


@dataclass(frozen=True)
class Shadow:
    """From this record on, a bundle scores the alerts of a group beside the live one.

    group : a survey, or ALL;  bundle : None means none;  at, by, why : as in Promotion
    epoch : offset of the record in `control`, -1 until it is there
    """

    group: str
    bundle: BundleName | None
    at: str
    by: str
    why: str
    epoch: int = -1

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], epoch: int = -1) -> Shadow:
        """From what to_json gives.  Raises ValueError, KeyError or TypeError."""
        if not isinstance(record["group"], str) or _NAME.fullmatch(record["group"]) is None:
            raise ValueError(f"{record['group']!r} is no group of surveys")
        named = record["bundle"]
        bundle = None if named is None else BundleName(named["id"], named["version"])
        at, by, why = (str(record[name]) for name in ("at", "by", "why"))
        return cls(record["group"], bundle, at, by, why, epoch)


def promoted(history: Mapping[int, Promotion], new: Promotion) -> Promotion:
    """A promotion as the next of its group.  history : the group's promotions by revision."""
    newest = max(history, default=0)
    return replace(new, revision=newest + 1, below=newest, rollback=False)


def rolled_back(history: Mapping[int, Promotion], new: Promotion) -> Promotion | None:
    """The next promotion of a group that restores what was before the newest; None where nothing was.

    Twice in a row goes back twice: the restored one lies on what it lay on before.
    """
    newest = history.get(max(history, default=0))
    if newest is None or newest.bundle is None:
        return None
    before = history.get(newest.below)
    bundle, below = (before.bundle, before.below) if before else (None, 0)
    return replace(new, revision=newest.revision + 1, bundle=bundle, below=below, rollback=True)


def candidates(history: Mapping[int, Promotion]) -> list[BundleName]:
    """The bundle that is live in a group, then what a rollback would come to, one after the other."""
    found: list[BundleName] = []
    item = history.get(max(history, default=0))
    while item is not None and item.bundle is not None:
        found.append(item.bundle)
        item = history.get(item.below)
    return found
