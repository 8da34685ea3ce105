"""Records as JSON that loses nothing."""

from __future__ import annotations

import json
import math

import pytest

from broker.client.decode import Received, Undecodable, decode
from broker.client.json import as_json, line, undecodable_json
from broker.message import Message, Packet, Reject
from broker.publish.packets import dead_letter
from broker.simulate import simulate_lsst, simulate_ztf
from broker.surveys.avro import LocalSchemas

ALERT = {
    "diaSourceId": 2**60 + 1,
    "diaObjectId": None,
    "ssObjectId": 7,
    "psfFlux": math.nan,
    "flags": 3,
    "count": 2**53 + 1,
    "isDipole": True,
    "features": {"a": 1.5, "b": math.inf},
    "filtersPassed": ["a.b@1"],
    "original": {
        "candid": 2**60,
        "candidate": {"ra": 1.25},
        "prv_candidates": [{"jd": 1.0}, {"jd": 2.0}],
        "cutoutScience": {"fileName": "x", "stampData": b"\x00\x01"},
        "numbers": [1, 2],
    },
    "lightCurve": [{"sourceId": 5, "psfFlux": 1.0}],
}


def message(value: bytes = b"", topic: str = "alerts.ztf", **more: object) -> Message:
    return Message(topic, 2, 41, 1_700_000_000_000, value, **more)  # type: ignore[arg-type]


def as_letter(packet: Packet) -> Received | Undecodable:
    letter = message(packet.value, packet.topic, key=packet.key, headers=packet.headers)
    return decode(letter, LocalSchemas())


def received(value: dict[str, object]) -> Received:
    return Received(message(key=b"ztf:5"), value)


def test_ids_are_strings_and_numbers_that_are_none_are_null() -> None:
    out = as_json(received(ALERT))
    assert out["diaSourceId"] == str(2**60 + 1)
    assert out["ssObjectId"] == "7"
    assert out["count"] == str(2**53 + 1)
    assert out["diaObjectId"] is out["psfFlux"] is out["features"]["b"] is None
    assert (out["flags"], out["isDipole"], out["features"]["a"]) == (3, True, 1.5)
    assert out["lightCurve"] == [{"sourceId": "5", "psfFlux": 1.0}]


def test_where_the_record_was_is_under_kafka() -> None:
    assert as_json(received(ALERT))["kafka"] == {
        "topic": "alerts.ztf",
        "partition": 2,
        "offset": 41,
        "timestamp": 1_700_000_000_000,
        "key": "ztf:5",
    }


def test_an_original_is_summarised_unless_asked_for_in_full() -> None:
    short = as_json(received(ALERT))["original"]
    assert short["candid"] == str(2**60)
    assert short["candidate"] == {"ra": 1.25}
    assert short["prv_candidates"] == {"count": 2}
    assert short["cutoutScience"] == {"fileName": "x", "stampData": {"bytes": 2}}
    assert short["numbers"] == [1, 2]
    full = as_json(received(ALERT), full=True)["original"]
    assert full["cutoutScience"]["stampData"] == "AAE="
    assert full["prv_candidates"] == [{"jd": 1.0}, {"jd": 2.0}]


def test_a_line_is_strict_ascii_json_without_a_way_out_of_it() -> None:
    text = line(as_json(received({"detail": "a\n\x1b[2J é"})))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["detail"] == "a\n\x1b[2J é"
    with pytest.raises(ValueError, match="not JSON compliant"):
        line({"x": math.nan})


@pytest.mark.parametrize("make", [simulate_ztf, simulate_lsst])
def test_an_input_record_is_shown_by_its_alerts(make: object) -> None:
    alert = next(iter(make(1, 2)))  # type: ignore[operator]
    decoded = decode(message(alert.value, "ztf_replay"), LocalSchemas())
    assert isinstance(decoded, Received)
    shown = as_json(decoded)["records"]
    assert len(shown) == 1
    assert str(alert.candid) in (shown[0].get("candid"), shown[0].get("diaSourceId"))
    assert len(line(as_json(decoded))) < len(alert.value)


def test_a_dead_letter_is_its_headers_and_the_size_of_its_bytes() -> None:
    input_record = Message("ztf_replay", 3, 99, 1234, b"damaged", b"key", (("source-file", b"x.avro"),))
    reject = Reject(0, 1, "bad_container", "surveys", "it is cut", 1100)
    decoded = as_letter(dead_letter(input_record, reject, (("diaSourceId", b"5"),)))
    assert isinstance(decoded, Received)
    out = as_json(decoded)
    assert out["reason"] == "bad_container"
    assert (out["stage"], out["detail"], out["schemaId"]) == ("surveys", "it is cut", "1100")
    assert out["source"] == {"topic": "ztf_replay", "partition": 3, "offset": 99, "index": 1}
    assert (out["size"], out["key"], out["sourceTimestamp"]) == (7, "key", 1234)
    assert out["headers"] == {"diaSourceId": "5", "original-source-file": "x.avro"}
    assert out["value"] == {"bytes": 7}
    assert as_json(decoded, full=True)["value"] == "ZGFtYWdlZA=="


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("alerts.ztf", b""),
        ("alerts.ztf", b"nonsense"),
        ("alerts.ztf", b"\x00\x7f\xff\xff\xff123"),
        ("dead-letters", b"no headers"),
        ("control", b"{"),
        ("control", b""),
    ],
)
def test_what_cannot_be_read_says_why(topic: str, value: bytes) -> None:
    bad = decode(message(value, topic), LocalSchemas())
    assert isinstance(bad, Undecodable)
    out = undecodable_json(bad)
    assert out["undecodable"]
    assert out["value"] == {"bytes": len(value)}
    assert out["kafka"]["offset"] == 41
