"""What a transaction's ledger record counts of what goes out."""

from __future__ import annotations

from collections import Counter

from broker.filter import Filter
from broker.message import Packet
from broker.publish.account import hits_of, outputs_of
from broker.publish.records import frame, kind_of

FILTERS = [Filter("a", "one", 3, "ra > 0"), Filter("a", "two", 1, "ra > 0"), Filter("b", "one", 2, "ra > 0")]


def published(kind: str) -> bytes:
    return frame(7) + bytes([2 * len(kind)]) + kind.encode() + b"more"


def test_only_filters_with_something_are_counted_each_in_its_version() -> None:
    found = hits_of(
        FILTERS, Counter({"a.one": 4}), Counter({"b.one": 2}), Counter({"a.one@2": 1, "a.one@3": 1})
    )
    assert [(it["filter"], it["alerts"], it["updates"], it["retractions"]) for it in found] == [
        ("a.one@2", 0, 0, 1),
        ("a.one@3", 4, 0, 1),
        ("b.one@2", 0, 2, 0),
    ]


def test_every_other_record_is_counted_by_topic_and_those_of_alerts_by_kind() -> None:
    packets = [
        Packet("alerts.ztf", None, published(kind)) for kind in ("alert", "update", "alert", "retraction")
    ]
    packets += [
        Packet("dead-letters", None, b"x"),
        Packet("archive", None, b""),
        Packet("filters.a.one", None, b"x"),
    ]
    assert [(it["topic"], it["kind"], it["records"]) for it in outputs_of(packets)] == [
        ("alerts.ztf", "alert", 2),
        ("alerts.ztf", "retraction", 1),
        ("alerts.ztf", "update", 1),
        ("archive", "", 1),
        ("dead-letters", "", 1),
    ]
    assert kind_of(published("retraction")) == "retraction"
