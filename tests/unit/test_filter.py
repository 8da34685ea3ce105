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
        ({"changed_at": "yesterday"}, "not an ISO 8601 time"),
        ({"on_excess": "shout"}, "unknown on_excess 'shout'; choose sample-then-pause, sample, pause"),
        ({"max_hits_per_hour": -1}, "max_hits_per_hour = -1; give a positive number, or 0"),
        ({"max_us_per_alert": float("nan")}, "max_us_per_alert = nan"),
        ({"sample": 0.0}, "a share of 0.0 of the hits"),
        ({"sample": 1.5}, "a share of 1.5 of the hits"),
    ],
)
def test_malformed_filters_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FilterError, match=words):
        example(**changes)


def test_a_record_from_before_a_field_was_there_reads_as_it_was_meant() -> None:
    old = {
        name: example().to_json()[name] for name in ("owner", "name", "version", "where", "payload", "state")
    }
    assert Filter.from_json(old | {"description": ""}) == example()


def test_a_rule_is_what_its_owner_chose() -> None:
    assert example().rule == example(version=4, state="paused", sample=0.5, changed_by="jo").rule
    assert example().rule != example(max_hits_per_hour=5).rule


@pytest.mark.parametrize(
    ("key", "value"),
    [("maxHitsPerHour", "1"), ("where", None), ("version", "1"), ("createdAt", 5), ("owner", 1)],
)
def test_malformed_records_are_refused(key: str, value: Any) -> None:
    with pytest.raises(FilterError, match=f"missing or malformed '{key}'"):
        Filter.from_json({**example().to_json(), key: value})
    with pytest.raises(FilterError, match="malformed 'owner'"):
        Filter.from_json({})
