"""Similar objects and a night's anomalies from what is on a real Kafka, by API and command line."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Shell, wait_until

from broker import control
from broker.api import serving
from broker.assemble import ensure_topics
from broker.config import Settings
from broker.control.topic import ControlWriter
from broker.data.schema_ids import canonical, schema_id
from broker.embedded import Addresses
from broker.features.catalog import FEATURE_SPECS
from broker.kafka.clients import writer
from broker.publish import records
from broker.publish.packets import PUBLISHED_PACKET_COLUMNS, encode_record
from broker.scores.catalog import SCORE_SPECS
from broker.scores.embedding import DIMENSIONS, EMBEDDING_NAMES

SCHEMA = records.alert_schema(records.alert_fields(PUBLISHED_PACKET_COLUMNS, FEATURE_SPECS, SCORE_SPECS))
NIGHT, NIGHT_MJD = "19951010", 50000.2
"""A night that no other test has alerts of."""
OBJECTS, FLARES, DIPPERS = 120, 8, 6


def alert(number: int, place: np.ndarray | None, model: str, mjd: float, **features: float) -> bytes:
    """A published alert; without a place its light curve says too little."""
    scores: dict[str, float] = {"prob_SNIa": 0.75, "prob_AGN": 0.25, "anomaly": 0.4}
    if place is not None:
        scores |= dict(zip(EMBEDDING_NAMES, place.tolist(), strict=True))
        scores |= {"reconstruction_error": 0.9 if features else 0.2, "anomaly": 0.8 if features else 0.4}
    value = {
        "kind": "alert", "diaSourceId": 10**9 + number, "objectName": f"ZTF95{number:05}", "survey": "ztf",
        "midpointMjdTai": mjd, "ra": 10.5, "dec": -1.25, "flags": 1, "historyIncomplete": False,
        "solarSystem": {"status": "none"}, "packet": {}, "scores": scores, "filtersPassed": [],
        "features": {"amplitude": 0.5 + number % 7 / 100, "rise_rate_g": number % 5 / 100, **features},
        "source": {"topic": "ztf_replay", "partition": 1, "offset": number, "index": 0},
        "provenance": {
            "surveySchema": "ztf 4.02", "brokerVersion": "0", "featureSet": "f", "modelId": model,
            "modelVersion": "1", "controlEpoch": 3, "observedAt": 8e8, "ingestedAt": 1, "publishedAt": 2,
            "recordSha256": "00" * 32,
        },
    }  # fmt: skip
    return encode_record(SCHEMA, value)


class Sky:
    """One night's alerts of a model of its own, so that other tests' objects are never near."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = f"made-{uuid.uuid4().hex[:8]}"
        rng = np.random.default_rng(7)
        self.places = rng.normal(size=(OBJECTS, DIMENSIONS))
        self.places[:FLARES] = 9.0 + rng.normal(0.0, 0.2, (FLARES, DIMENSIONS))
        self.places[-DIPPERS:] = -9.0 + rng.normal(0.0, 0.2, (DIPPERS, DIMENSIONS))
        ensure_topics(settings)
        text = canonical(SCHEMA)
        ControlWriter(settings.kafka).write(*control.schema_record(schema_id(text), text))
        seen = [(number, self.alert(number)) for number in range(OBJECTS)]
        self.publish([*seen, (OBJECTS, alert(OBJECTS, None, self.model, NIGHT_MJD))])

    def key(self, number: int) -> str:
        return f"ztf:{self.model}-{number}"

    def alert(self, number: int, mjd: float = NIGHT_MJD) -> bytes:
        strange = {"rise_rate_g": 40.0} if number < FLARES else {}
        strange |= {"amplitude": 9.0} if number >= OBJECTS - DIPPERS else {}
        return alert(number, self.places[number], self.model, mjd, **strange)

    def publish(self, alerts: list[tuple[int, bytes]]) -> None:
        producer = writer(self.settings.kafka)
        for number, value in alerts:
            producer.produce("alerts.ztf", value, self.key(number))
        assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def sky(own: Settings) -> Sky:
    return Sky(own)


@pytest.fixture(scope="module")
def own(servers: Addresses) -> Settings:
    from broker.config import load  # noqa: PLC0415

    flags = {"kafka.bootstrap_servers": servers.bootstrap_servers, "redis.url": servers.redis_url}
    return load({**flags, "api.port": "0"}, env={}, path=None)


@pytest.fixture
def shell(servers: Addresses, tmp_path: Path) -> Shell:
    """A command line whose API port has nothing behind it."""
    return Shell(servers, tmp_path, {"BROKER_API_PORT": "9"})


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def api(settings: Settings, key: str) -> Iterator[str]:
    """A running API that has read all there was; its address up to the object."""
    with serving(settings) as address:
        url = f"{address}/api/v1/objects/{key}/similar"

        def complete() -> bool:
            try:
                return bool(get(url)["complete"])
            except urllib.error.HTTPError:  # not ready, or not come to the object yet
                return False

        wait_until(complete, "the alert topics have been read")
        yield url


def nearest(sky: Sky, number: int, count: int) -> list[str]:
    distance = np.linalg.norm(sky.places - sky.places[number], axis=1)
    return [sky.key(int(other)) for other in np.argsort(distance) if other != number][:count]


def test_similar_objects_follow_the_stream_and_survive_a_restart(sky: Sky, own: Settings) -> None:
    with api(own, sky.key(20)) as url:
        found = get(url)
        assert [item["key"] for item in found["similar"]] == nearest(sky, 20, 10)
        assert found["object"]["model"] == f"{sky.model}:1"
        assert (found["similar"][0]["class"], found["similar"][0]["probability"]) == ("SNIa", 0.75)
        assert len(get(f"{url}?limit=3")["similar"]) == 3
        sky.places[50] = sky.places[20] + 1e-3
        sky.publish([(50, sky.alert(50, NIGHT_MJD + 0.1))])
        wait_until(lambda: get(url)["similar"][0]["key"] == sky.key(50), "the newest alert counts", 30)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(url.replace(sky.key(20), sky.key(OBJECTS)))  # known, but nothing can be said of it
        with pytest.raises(urllib.error.HTTPError, match="422"):
            get(f"{url}?limit=0")
    with api(own, sky.key(20)) as url:
        assert [item["key"] for item in get(url)["similar"]] == nearest(sky, 20, 10)


def test_the_search_can_be_switched_off(sky: Sky, own: Settings) -> None:
    off = replace(own, api=replace(own.api, similar_objects=0))
    with serving(off) as address, pytest.raises(urllib.error.HTTPError, match="404") as refused:
        get(f"{address}/api/v1/objects/{sky.key(1)}/similar")
    assert "api.similar_objects is 0" in refused.value.read().decode()


def test_the_command_asks_the_api_and_without_it_reads_the_topics(
    sky: Sky, own: Settings, shell: Shell
) -> None:
    direct = json.loads(shell("similar", sky.key(30), "--limit", "5", "--json"))
    assert [item["key"] for item in direct["similar"]] == nearest(sky, 30, 5)
    with api(own, sky.key(30)) as url:
        shell.extra["BROKER_API_PORT"] = url.split(":")[2].split("/")[0]
        shell.extra["BROKER_KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"  # the API alone can answer
        asked = json.loads(shell("similar", sky.key(30), "--limit", "5", "--json"))
        assert asked["similar"] == direct["similar"]
        assert "ZTF9500030" in shell("similar", sky.key(30))
        shell("similar", "ztf:nobody", expect=1)


def test_a_nights_anomalies_by_command_and_api(sky: Sky, own: Settings, shell: Shell, tmp_path: Path) -> None:
    words = ("anomalies", "--survey", "ztf", "--night", NIGHT, "--top", "14")
    found = json.loads(shell(*words, "--json", "--out", str(tmp_path / "page")))
    assert (found["objects"], found["objectsWithoutEmbedding"], len(found["anomalies"])) == (OBJECTS, 1, 14)
    assert [group["size"] for group in found["groups"]] == [FLARES, DIPPERS]
    assert [group["traits"][0]["name"] for group in found["groups"]] == ["rise_rate_g", "amplitude"]
    assert set(found["groups"][0]["examples"]) <= {sky.key(number) for number in range(FLARES)}
    assert (tmp_path / "page" / "index.html").exists()
    assert "in no group" in shell(*words)
    with serving(own) as address:
        url = f"{address}/api/v1/anomalies/clusters"
        assert get(f"{url}?survey=ztf&night={NIGHT}&top=14") == found
        for wrong in ("top=x", "night=19951399", "survey=none", f"night={NIGHT}&since=1995-10-10"):
            with pytest.raises(urllib.error.HTTPError, match="422"):
                get(f"{url}?{wrong}")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}?night=19900101")
    shell("anomalies", "--night", "yesterday", expect=2)
    shell("anomalies", "--night", "19900101", expect=1)
