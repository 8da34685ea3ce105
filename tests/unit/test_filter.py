"""Stored filters: names, topics, and the way through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.errors import FilterError
from broker.filters import Filter


def example(**changes: Any) -> Filter:
    settings = {"owner": "jo", "name": "fast-blue", "version": 3, "where": "mag < 19", **changes}
    return Filter(**settings)


def test_topic_does_not_name_the_version_and_the_control_key_does() -> None:
    assert example().topic == "filters.jo.fast-blue"
    assert example().control_key == "filter/jo.fast-blue/3"


def test_json_and_back() -> None:
    stored = example(payload="full", state="paused", description="é", created_at="2025-01-31T12:00:00Z")
    record = json.loads(json.dumps(stored.to_json()))
    assert record["createdAt"] == "2025-01-31T12:00:00Z"
    assert Filter.from_json({**record, "fromTheFuture": 1}) == stored


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "filter name '' is not allowed; use 1 to 48"),
        ({"name": "Fast"}, "is not allowed"),
        ({"name": "a" * 49}, "is not allowed"),
        ({"name": "a\n"}, "is not allowed"),
        ({"owner": "a.b"}, "owner 'a.b' is not allowed"),
        ({"payload": "huge"}, "unknown payload 'huge'; choose light, standard, full"),
        ({"state": "on"}, "unknown state 'on'"),
        ({"version": 0}, "versions start at 1"),
        ({"created_at": "yesterday"}, "not an ISO 8601 time"),
    ],
)
def test_malformed_filters_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FilterError, match=words):
        example(**changes)


@pytest.mark.parametrize(
    ("key", "value"), [("where", None), ("version", "1"), ("createdAt", 5), ("owner", 1)]
)
def test_malformed_records_are_refused(key: str, value: Any) -> None:
    with pytest.raises(FilterError, match=f"missing or malformed '{key}'"):
        Filter.from_json({**example().to_json(), key: value})
    with pytest.raises(FilterError, match="malformed 'owner'"):
        Filter.from_json({})
