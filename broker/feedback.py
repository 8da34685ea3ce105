"""What people said of alerts, and the forests made of it, as they are stored in `control`.

A mark is kept with the alert's features, so that a forest can be made again when the alert itself is long
gone from Kafka. Trees are grown once in a while for a survey and shared; a forest is what one person's marks
made of them. Each has revisions, counted from 1, and old ones stay.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from broker.errors import FeedbackError
from broker.filter import check_name
from broker.text import whole

Verdict = Literal["interesting", "boring"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
MAX_NOTE = 500
MAX_FEATURES = 2000
MAX_ARCHIVE_BYTES = 2 * 1024 * 1024
"""Of the arrays of trees or of a forest, packed."""

_SURVEY = re.compile(r"[a-z0-9]{1,48}")


@dataclass(frozen=True)
class Mark:
    """What an owner said of an alert; a later one of the same alert takes its place.

    alert : its diaSourceId;  object_name : for people;  features : those that were known, by name
    removed : it counts no more;  at : ISO 8601 time;  by : who wrote it
    """

    owner: str
    survey: str
    alert: int
    object_name: str
    verdict: Verdict
    note: str
    features: Mapping[str, float] = field(repr=False)
    removed: bool
    at: str
    by: str

    def __post_init__(self) -> None:
        check_name("owner", self.owner)
        _check_survey(self.survey)
        if not 0 < self.alert < 2**63:
            raise FeedbackError(f"{self.alert} is no diaSourceId")
        if self.verdict not in VERDICTS:
            raise FeedbackError(f"unknown verdict {self.verdict!r}; choose {' or '.join(VERDICTS)}")
        if len(self.note) > MAX_NOTE:
            raise FeedbackError(f"a note of {len(self.note)} characters; at most {MAX_NOTE} are kept")
        if len(self.features) > MAX_FEATURES or not all(map(math.isfinite, self.features.values())):
            raise FeedbackError("the features of a mark are too many, or not all finite")

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is about: owner, survey, alert."""
        return self.owner, self.survey, self.alert

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; the alert's id as text, as it does not fit JSON's numbers."""
        return {**self.summary(), "features": dict(self.features)}

    def summary(self) -> dict[str, Any]:
        """As people are shown it: without the features."""
        texts = {name: getattr(self, name) for name in ("owner", "survey", "verdict", "note", "at", "by")}
        about = {"alert": str(self.alert), "objectName": self.object_name}
        return texts | about | {"removed": self.removed}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Mark:
        """From what to_json gives.  Raises FeedbackError, ValueError, KeyError or TypeError."""
        texts = {name: str(record[name]) for name in ("owner", "survey", "note", "at", "by")}
        return cls(
            alert=whole(record["alert"]),
            object_name=str(record["objectName"]),
            verdict=record["verdict"],
            features={str(name): float(value) for name, value in record["features"].items()},
            removed=bool(record["removed"]),
            **texts,
        )


@dataclass(frozen=True)
class StoredTrees:
    """Trees of a survey.

    archive : see scores.personal.pack_trees;  alerts : how many they were grown on;  at : ISO 8601 time
    """

    survey: str
    revision: int
    archive: bytes = field(repr=False)
    alerts: int
    at: str

    def __post_init__(self) -> None:
        _check_survey(self.survey)
        _check_stored(self.revision, self.archive)
        if datetime.fromisoformat(self.at).tzinfo is None:
            raise FeedbackError(f"trees of {self.at}, a time without a zone")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, the archive in base64."""
        return {**asdict(self), **_sealed(self.archive)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StoredTrees:
        """From what to_json gives.  Raises FeedbackError, ValueError, KeyError or TypeError."""
        archive = _opened(record)
        return cls(
            str(record["survey"]),
            whole(record["revision"]),
            archive,
            whole(record["alerts"]),
            str(record["at"]),
        )


@dataclass(frozen=True)
class StoredForest:
    """The forest of an owner for a survey's alerts.

    trees : revision of the survey's trees;  archive : see scores.personal.pack_forest
    interesting, boring : the marks that it knows, by diaSourceId;  alerts : how many it ranks among
    """

    owner: str
    survey: str
    revision: int
    trees: int
    archive: bytes = field(repr=False)
    interesting: tuple[int, ...]
    boring: tuple[int, ...]
    alerts: int
    at: str

    def __post_init__(self) -> None:
        check_name("owner", self.owner)
        _check_survey(self.survey)
        _check_stored(self.revision, self.archive)

    @property
    def label(self) -> str:
        """How a message names it."""
        return f"{self.owner}/{self.survey}/{self.revision}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, the archive in base64."""
        return {**self.summary(), **_sealed(self.archive)}

    def summary(self) -> dict[str, Any]:
        """As people are shown it."""
        said = {name: value for name, value in asdict(self).items() if name != "archive"}
        return said | {
            "interesting": [str(alert) for alert in self.interesting],
            "boring": [str(alert) for alert in self.boring],
            "sha256": hashlib.sha256(self.archive).hexdigest(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StoredForest:
        """From what to_json gives.  Raises FeedbackError, ValueError, KeyError or TypeError."""
        return cls(
            str(record["owner"]),
            str(record["survey"]),
            whole(record["revision"]),
            whole(record["trees"]),
            _opened(record),
            tuple(whole(alert) for alert in record["interesting"]),
            tuple(whole(alert) for alert in record["boring"]),
            whole(record["alerts"]),
            str(record["at"]),
        )


def _check_survey(survey: str) -> None:
    if _SURVEY.fullmatch(survey) is None:
        raise FeedbackError(f"{survey[:60]!r} is not the name of a survey")


def _check_stored(revision: int, archive: bytes) -> None:
    if not 1 <= revision < 2**31 or len(archive) > MAX_ARCHIVE_BYTES:
        raise FeedbackError(f"revision {revision} with arrays of {len(archive):,} bytes cannot be stored")


def _sealed(archive: bytes) -> dict[str, str]:
    return {
        "sha256": hashlib.sha256(archive).hexdigest(),
        "archive": base64.b64encode(archive).decode(),
    }


def _opened(record: Mapping[str, Any]) -> bytes:
    """The archive of a record.  Raises FeedbackError unless it is the one that was sealed."""
    text = record["archive"]
    if len(text) > 2 * MAX_ARCHIVE_BYTES:
        raise FeedbackError(f"an archive of {len(text):,} characters is too long")
    archive = base64.b64decode(text, validate=True)
    if hashlib.sha256(archive).hexdigest() != record["sha256"]:
        raise FeedbackError("an archive that does not have the sum it was sealed with")
    return archive
