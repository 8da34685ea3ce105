"""Subjects of the schema registry: which schemas the values of each of our topics can have.

A subject is `<topic>-value`, the name that registry clients derive by default: `alerts.<survey>-value`,
`ledger-value`, `notices-value`, and `filters.<owner>.<name>-value` with the schemas of the filter's present
payload. Versions count from 1 in the order in which the schemas were announced in `control`. What a message
was written with is found by its id; subjects are for tools that ask for a topic's latest schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from broker.control import ControlState
from broker.kafka.topics import LEDGER, NOTICES, alerts_topic

_PAYLOAD_RECORDS = {"light": "LightHit", "standard": "StandardHit", "full": "FullHit"}


@dataclass(frozen=True)
class SubjectVersion:
    """One schema as one version of a subject."""

    subject: str
    version: int
    id: int
    schema: str

    def to_json(self) -> dict[str, Any]:
        """As registries answer."""
        return {"subject": self.subject, "version": self.version, "id": self.id, "schema": self.schema}


def subject_versions(state: ControlState, surveys: Sequence[str]) -> dict[str, list[SubjectVersion]]:
    """Every subject that has a schema, by name."""
    by_record = _by_record(state.schemas)
    topics = {alerts_topic(survey): "Alert" for survey in surveys}
    topics |= {LEDGER: "LedgerRecord", NOTICES: "Notice"}
    topics |= {item.topic: _PAYLOAD_RECORDS[item.payload] for item in state.current_filters().values()}
    return {
        f"{topic}-value": [
            SubjectVersion(f"{topic}-value", number, identifier, state.schemas[identifier])
            for number, identifier in enumerate(by_record[record], 1)
        ]
        for topic, record in sorted(topics.items())
        if record in by_record
    }


def same_schema(one: str, other: str) -> bool:
    """Whether two texts are one schema: the same JSON, whatever its layout."""
    return one == other or _parsed(one) == _parsed(other)


def _by_record(schemas: Mapping[int, str]) -> dict[str, list[int]]:
    by_record: dict[str, list[int]] = {}
    for identifier, schema in schemas.items():
        by_record.setdefault(_record_name(schema), []).append(identifier)
    return by_record


@lru_cache(maxsize=1024)
def _record_name(schema: str) -> str:
    parsed = _parsed(schema)
    return str(parsed.get("name", "")) if isinstance(parsed, dict) else ""


def _parsed(schema: str) -> Any:
    try:
        return json.loads(schema)
    except ValueError:
        return schema
