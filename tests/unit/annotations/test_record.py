"""Annotations as JSON: what is read, what is refused and why, and how each is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.annotations.record import Annotation, from_json, history_key, read
from broker.errors import AnnotationError
from broker.lightcurves import FORCED

CLASS: dict[str, Any] = {
    "survey": "ztf", "object": "ZTF21abiuvdk", "kind": "class", "by": "alice", "class": "SN Ia",
}  # fmt: skip
POINT = {"midpointMjdTai": 60000.5, "band": "r", "psfFlux": -12.5, "psfFluxErr": 3.0}


def test_what_is_written_is_read_back() -> None:
    points = [POINT, POINT | {"band": "g"}]
    said = (
        CLASS | {"id": "x", "probability": 0.5, "at": "2026-01-01T00:00:00Z"},
        CLASS | {"id": "x", "kind": "redshift", "redshift": 0.03, "redshift_kind": "spectroscopic"},
        CLASS | {"id": "x", "kind": "forced", "points": points},
        CLASS | {"id": "x", "kind": "reevaluate", "text": "model a:1", "scores_only": True},
    )
    for content in said:
        made = from_json(content)
        assert read(made.encode()) == made
        assert made.key == b"ztf:168683916685"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"class": "SN \ud83d"}, "'class' holds half a surrogate pair"),
        ({"by": "\ude00"}, "'by' holds half a surrogate pair"),
        ({"id": "\ud83d"}, "'id' holds half a surrogate pair"),
        ({"object": "ZTF\ud83d"}, "'object' holds half a surrogate pair"),
        ({"survey": "\ud83d"}, "'survey' holds half a surrogate pair"),
        ({"kind": "note", "text": "\ud83d"}, "'text' holds half a surrogate pair"),
        ({"kind": "\ud83d"}, "half a surrogate pair"),
        ({"kind": "opinion"}, "unknown kind 'opinion'; choose one of class, note"),
        ({"class": ""}, "needs 'class'"),
        ({"class": 3}, "'class' must be a text"),
        ({"by": "a\nb"}, "'by' must be a text of 1 to 64 printable characters"),
        ({"by": None}, "'by'"),
        ({"probability": 1.5}, "'probability' must be a number from 0 to 1"),
        ({"probability": float("nan")}, "'probability'"),
        ({"probability": True}, "'probability'"),
        ({"kind": "redshift"}, "needs 'redshift'"),
        ({"kind": "note", "text": "x" * 501}, "at most 500 characters"),
        ({"kind": "forced"}, "needs 'points'"),
        ({"kind": "forced", "points": [POINT] * 5001}, "at most 5,000"),
        ({"kind": "forced", "points": [POINT | {"band": "B"}]}, r"points\[0\]: 'band' must be one of u g r"),
        ({"kind": "forced", "points": [POINT | {"psfFluxErr": 0.0}]}, "psfFluxErr above 0"),
        ({"kind": "forced", "points": [POINT, {}]}, r"points\[1\]"),
        ({"kind": "forced", "points": [POINT | {"midpointMjdTai": 2460000.5}]}, "from 15000 to 90000"),
        ({"object": "ZTF21abi"}, "is no object of ztf"),
        ({"object": "0"}, "is no object"),
        ({"id": 12}, "'id' must be a text"),
    ],
)
def test_what_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(AnnotationError, match=why):
        from_json(CLASS | change)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_bytes_of_any_kind_are_an_annotation_or_refused(value: bytes) -> None:
    with pytest.raises(AnnotationError):
        read(value)


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
nested = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@given(st.sampled_from([*CLASS, "id", "points", "redshift", "text", "at"]), nested)
def test_a_field_of_any_kind_is_read_or_refused(name: str, value: Any) -> None:
    try:
        made = read(json.dumps(CLASS | {name: value}).encode())
    except AnnotationError:
        return
    assert read(made.encode()) == made


def test_a_name_is_made_of_the_content() -> None:
    one, other = from_json(CLASS), from_json(CLASS | {"probability": 0.5})
    assert one.id == from_json(dict(reversed(CLASS.items()))).id != other.id
    assert one.digest == from_json(CLASS | {"id": "x", "at": "now"}).digest != other.digest


def test_objects_by_any_of_their_names() -> None:
    assert history_key("lsst", "170000368276589984") == b"lsst:170000368276589984"
    assert history_key("ztf", "ztf:5") == history_key("ztf", "5") == b"ztf:5"
    assert history_key("winter", "WNTR24awati") == b"winter:6308324345965434499"
    assert history_key("lsst", "ss:-3") == b"ss:-3"
    for survey, name in (("lsst", "ZTF21abiuvdk"), ("ztf", "lsst:5"), ("lsst", "9" * 19), ("ztf", "")):
        with pytest.raises(AnnotationError):
            history_key(survey, name)


def test_forced_points_are_told_by_time_band_and_author() -> None:
    one = from_json(CLASS | {"kind": "forced", "points": [POINT, POINT | {"band": "g"}]}).forced_points(7)
    assert one["kind"].tolist() == [FORCED, FORCED]
    assert one["known_at"].tolist() == [7, 7]
    assert (one["source_id"] > 0).all()
    assert one["source_id"][0] != one["source_id"][1]
    again = from_json(CLASS | {"kind": "forced", "points": [POINT | {"psfFlux": 1.0}]}).forced_points(9)
    assert again["source_id"][0] == one["source_id"][0]
    bob = from_json(CLASS | {"kind": "forced", "points": [POINT], "by": "bob"}).forced_points(7)
    assert bob["source_id"][0] != one["source_id"][0]


def test_causes_are_for_people() -> None:
    said = Annotation("x", "ztf", "5", "redshift", "bob", redshift=0.031)
    assert said.cause == "annotation x: redshift 0.031 by bob"
