"""The index of objects: against an exact search, and what it keeps of whom."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from broker.scores.embedding import DIMENSIONS, EMBEDDING_NAMES
from broker.similar import SimilarIndex, State, UnknownObject, embedded

MODEL = "ztf:2"


def state(number: int, mjd: float = 60000.0, space: str = MODEL, **changes: Any) -> State:
    made = State(
        f"ztf:{number}",
        f"ZTF{number}",
        "ztf",
        space,
        mjd,
        10**18 + number,
        10.5,
        -1.25,
        0.5,
        0.25,
        "SNIa",
        0.75,
    )
    return replace(made, **changes)


def filled(places: np.ndarray, **changes: Any) -> SimilarIndex:
    index = SimilarIndex()
    for first in range(0, len(places), 500):
        rows = range(first, min(first + 500, len(places)))
        index.add((state(row, **changes), places[row].tolist()) for row in rows)
    return index


def keys(found: Any) -> list[str]:
    return [other.key for _, other in found.found]


def clumps(rng: np.random.Generator, count: int) -> np.ndarray:
    """Places as embeddings lie: clumps of different width, and many objects at the very same place."""
    centre = rng.normal(0.0, 3.0, (20, DIMENSIONS))[rng.integers(20, size=count)]
    places = centre + rng.normal(size=(count, DIMENSIONS)) * rng.gamma(1.0, 0.5, (count, 1))
    places[rng.random(count) < 0.02] = 0.0
    return places


@pytest.mark.parametrize("made", [clumps, lambda rng, count: rng.normal(size=(count, DIMENSIONS))])
def test_recall_against_an_exact_search(made: Any) -> None:
    rng = np.random.default_rng(1)
    before, places = made(rng, 3000), made(rng, 3000)
    index = filled(before)
    index.add((state(row, 60001.0), place.tolist()) for row, place in enumerate(places))
    distinct = [row for row in range(0, 3000, 30) if places[row].any()]
    recall = []
    for row in distinct:
        exact, near = index.exact(f"ztf:{row}"), index.similar(f"ztf:{row}")
        recall.append(len(set(keys(exact)) & set(keys(near))) / 10)
        own = np.sort(np.linalg.norm(places - places[row], axis=1))[1:11]
        np.testing.assert_allclose([distance for distance, _ in exact.found], own, rtol=1e-4)
    assert np.mean(recall) >= 0.95


def test_the_nearest_come_first_and_never_the_object_itself() -> None:
    index = filled(np.arange(20.0)[:, np.newaxis] * np.ones(DIMENSIONS))
    found = index.similar("ztf:3", 4)
    assert found.object.key == "ztf:3"
    assert set(keys(found)) == {"ztf:1", "ztf:2", "ztf:4", "ztf:5"}
    distances = [distance for distance, _ in found.found]
    assert distances == sorted(distances)
    assert distances[0] == pytest.approx(math.sqrt(DIMENSIONS))
    assert len(index.similar("ztf:3", 1000).found) == 19


def test_a_newer_alert_moves_an_object_and_an_older_one_does_not() -> None:
    index = filled(np.arange(10.0)[:, np.newaxis] * np.ones(DIMENSIONS))
    assert index.add([(state(0, 60002.0, leaf="AGN"), [8.9] * DIMENSIONS)]) == 1
    assert index.add([(state(0, 60001.0, leaf="YSO"), [5.0] * DIMENSIONS)]) == 0
    assert len(index) == 10
    assert keys(index.similar("ztf:9", 1)) == ["ztf:0"]
    assert index.similar("ztf:0").object.leaf == "AGN"
    assert "ztf:0" not in keys(index.similar("ztf:1", 3))


def test_of_one_batch_the_newest_alert_counts_whatever_its_place() -> None:
    index = filled(np.arange(10.0)[:, np.newaxis] * np.ones(DIMENSIONS))
    newer, older = (state(0, 60005.0), [8.9] * DIMENSIONS), (state(0, 60004.0), [2.1] * DIMENSIONS)
    index.add([newer, older])
    assert keys(index.similar("ztf:9", 1)) == ["ztf:0"]


def test_models_are_not_mixed_and_an_object_is_in_the_newest() -> None:
    index = filled(np.arange(10.0)[:, np.newaxis] * np.ones(DIMENSIONS))
    index.add([(state(row, 60001.0, space="ztf:3"), [float(row)] * DIMENSIONS) for row in (1, 2, 100)])
    assert set(keys(index.similar("ztf:1"))) == {"ztf:2", "ztf:100"}
    assert set(keys(index.similar("ztf:0"))) == {f"ztf:{row}" for row in range(3, 10)}
    index.add([(state(1, 60002.0), [1.0] * DIMENSIONS)])  # rolled back
    assert keys(index.similar("ztf:0", 1)) == ["ztf:1"]
    assert keys(index.similar("ztf:2")) == ["ztf:100"]


def test_without_room_the_longest_silent_are_forgotten() -> None:
    index = SimilarIndex(room=100)
    for number in range(250):
        index.add([(state(number, 60000.0 + number), [float(number)] * DIMENSIONS)])
        assert len(index) <= 100
    found = index.similar("ztf:249", 1000)
    assert set(keys(found)) == {f"ztf:{number}" for number in range(250 - len(index), 249)}
    with pytest.raises(UnknownObject, match="ztf:10'"):
        index.similar("ztf:10")
    with pytest.raises(UnknownObject):
        index.similar("ZTF10")


def test_when_most_have_left_the_rest_is_still_found() -> None:
    rng = np.random.default_rng(0)
    index = filled(rng.normal(size=(600, DIMENSIONS)))
    index.add((state(row, 60001.0, space="other"), [0.0] * DIMENSIONS) for row in range(590))
    assert set(keys(index.similar("ztf:595", 20))) == {f"ztf:{row}" for row in range(590, 600)} - {"ztf:595"}


def test_a_name_is_as_good_as_a_key() -> None:
    index = filled(np.arange(5.0)[:, np.newaxis] * np.ones(DIMENSIONS))
    assert index.similar("ZTF3").object.key == "ztf:3"


def record(**changes: Any) -> dict[str, Any]:
    scores = dict.fromkeys(EMBEDDING_NAMES, 0.5)
    scores |= {
        "prob_SNIa": 0.2,
        "prob_AGN": 0.7,
        "prob_CV": None,
        "prob_family_stochastic": 0.9,
        "anomaly": 0.4,
    }
    value = {
        "objectName": "ZTF21abc", "survey": "ztf", "midpointMjdTai": 60000.5, "diaSourceId": 2**60, "ra": 1.0,
        "dec": 2.0, "scores": scores, "provenance": {"modelId": "ztf", "modelVersion": "2"},
    }  # fmt: skip
    return value | changes


def test_what_an_alert_says() -> None:
    found = embedded(b"ztf:7", record())
    assert found is not None
    own, place = found
    assert (own.key, own.space, own.leaf, own.probability) == ("ztf:7", "ztf:2", "AGN", 0.7)
    assert place == [0.5] * DIMENSIONS
    shown = own.to_json()
    assert (shown["diaSourceId"], shown["anomaly"], shown["reconstructionError"]) == (str(2**60), 0.4, None)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (None, {}),
        (b"ztf:7", {"scores": dict.fromkeys(EMBEDDING_NAMES)}),
        (b"ztf:7", {"scores": {}}),
        (b"ztf:7", {"scores": dict.fromkeys(EMBEDDING_NAMES, 0.5) | {EMBEDDING_NAMES[3]: math.nan}}),
    ],
)
def test_what_has_no_embedding_is_left_out(key: bytes | None, changes: dict[str, Any]) -> None:
    assert embedded(key, record(**changes)) is None
