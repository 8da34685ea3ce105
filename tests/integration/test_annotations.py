"""Annotations on a real Kafka and Valkey, with two workers: what follows from them, once and at once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka import KafkaException, Producer
from harness import Shell, decoded, read_all, send, wait_until
from made_bundle import made_bundle

from broker.annotations.originals import Originals
from broker.annotations.record import Annotation
from broker.annotations.send import known_of, tell
from broker.annotations.send import send as send_annotations
from broker.api import serving
from broker.assemble import prepare
from broker.config import load
from broker.embedded import OwnedServers, owned
from broker.errors import BrokerError
from broker.heartbeats import live_workers
from broker.history.pack import topic_hash
from broker.kafka.clients import admin, create_topics
from broker.kafka.lag import backlog
from broker.kafka.topics import input_spec
from broker.simulate import simulate_ztf
from tests.withdrawals import closed, one_object

ALERTS = [alert.value for alert in simulate_ztf(80, seed=21)]
HITS, SCORED = "filters.local.sn", "filters.local.scored"
FIRST, SECOND = one_object(2)


class Stage:
    """Servers of this module's own, with a sky in them."""

    def __init__(self, servers: OwnedServers, folder: Path) -> None:
        self.bootstrap = servers.addresses.bootstrap_servers
        self.redis = redis.Redis.from_url(servers.addresses.redis_url)
        flags = {"kafka.bootstrap_servers": self.bootstrap, "redis.url": servers.addresses.redis_url}
        self.settings = load(flags, env={}, path=None)
        self.admin = admin(self.settings.kafka)
        self.shell = Shell(servers.addresses, folder)

    def drained(self) -> bool:
        """Whether the group has committed all of the input."""
        try:
            return not any(backlog(self.settings.kafka, "broker", self.settings.run.topics).values())
        except (BrokerError, KafkaException):
            return False

    def published(self, topic: str, kind: str) -> list[dict[str, Any]]:
        return [item for item in decoded(self.bootstrap, topic) if item["kind"] == kind]

    def hits_of(self, cause: str) -> list[str]:
        """Names of the objects of which the filter on classes got an update with a cause."""
        return sorted(item["objectName"] for item in self.published(HITS, "update") if cause in item["cause"])

    def wait(self) -> None:
        wait_until(self.drained, "all of the input is processed")

    def workers(self) -> list[int]:
        return [beat.pid for beat in live_workers(self.redis, "broker") if beat.ready]

    def names(self) -> list[str]:
        """Objects of which alerts were published, each once."""
        return sorted({item["objectName"] for item in self.published("alerts.ztf", "alert")})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers, tmp_path_factory.mktemp("annotations"))
        prepare(made.settings)
        made.shell("filters", "add", "sn", "--where", "annotation_class = 'SN Ia'", "--payload", "full")
        scored = "prob_family_transient >= 0 or prob_family_transient is null"
        made.shell("filters", "add", "scored", "--where", scored)
        send(made.bootstrap, "ztf_replay", ALERTS)
        with made.shell.running("run", "--workers", "2"):
            wait_until(lambda: len(made.workers()) == 2, "both workers are there")
            made.wait()
            yield made


def test_a_class_makes_its_filter_hear_of_the_object_at_once(stage: Stage) -> None:
    name = stage.names()[0]
    assert stage.published(HITS, "alert") == stage.published(HITS, "update") == []
    said = json.loads(stage.shell("annotate", name, "--class", "SN Ia", "--by", "alice", "--json"))
    assert [item["written"] for item in said] == [True]
    stage.wait()
    assert stage.hits_of("class SN Ia by alice") == [name]
    again = json.loads(stage.shell("annotate", name, "--class", "SN Ia", "--by", "alice", "--json"))
    assert (again[0]["written"], again[0]["annotation"]["id"]) == (False, said[0]["annotation"]["id"])
    repeated = Annotation(**{"class_name": "SN Ia"}, **_about(said[0]["annotation"]))
    send_annotations(stage.settings, [repeated])
    stage.wait()
    assert stage.hits_of("class SN Ia by alice") == [name]


def _about(said: dict[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name in ("id", "survey", "object", "kind", "by", "at")}


def test_the_api_says_the_same_and_forced_photometry_changes_features(stage: Stage) -> None:
    name = stage.names()[-1]
    alerts = [item for item in stage.published("alerts.ztf", "alert") if item["objectName"] == name]
    newest = max(alerts, key=lambda item: item["midpointMjdTai"])
    mjd = newest["midpointMjdTai"]
    points = [
        {"midpointMjdTai": mjd + day, "band": "r", "psfFlux": 50.0, "psfFluxErr": 9.0} for day in (1, 2)
    ]
    with serving(stage.settings) as address:
        url = f"{address}/api/v1/objects/ztf/{name}/annotations"
        answer = httpx.post(url, json={"kind": "forced", "by": "bob", "points": points})
        assert answer.status_code == 201, answer.text
        refused = httpx.post(url, json={"kind": "redshift", "by": "bob"})
        assert (refused.status_code, "redshift" in refused.json()["error"]) == (422, True)
        stage.wait()
        assert [item["kind"] for item in httpx.get(url).json()] == ["forced"]
    found = [item for item in stage.published("alerts.ztf", "update") if item["objectName"] == name]
    assert [item["cause"].endswith("2 forced points by bob") for item in found] == [True]
    assert found[0]["diaSourceId"] == newest["diaSourceId"]
    assert found[0]["features"]["n_forced"] == newest["features"]["n_forced"] + 2


def test_a_killed_worker_loses_and_doubles_nothing(stage: Stage) -> None:
    names = stage.names()
    send_annotations(
        stage.settings,
        [
            Annotation(f"k{n}", "ztf", name, "class", "kay", class_name="SN Ia")
            for n, name in enumerate(names)
        ],
    )
    for pid in stage.workers():
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    stage.wait()
    assert stage.hits_of(" by kay") == names


def test_an_emptied_redis_knows_it_again(stage: Stage) -> None:
    name = stage.names()[0]
    before = known_of(stage.settings, "ztf", name)
    assert before.of("class")["class"] == "SN Ia"
    updates = Counter(item["cause"] for item in stage.published("alerts.ztf", "update"))
    stage.redis.flushdb()
    send(stage.bootstrap, "ztf_replay", ALERTS)
    stage.wait()
    assert known_of(stage.settings, "ztf", name) == before
    producer = Producer({"bootstrap.servers": stage.bootstrap})
    for message in read_all(stage.bootstrap, "annotations"):  # once more, all of it
        producer.produce("annotations", message.value(), message.key())
    assert producer.flush(10) == 0
    stage.wait()
    assert Counter(item["cause"] for item in stage.published("alerts.ztf", "update")) == updates


def test_an_annotation_before_the_first_alert(stage: Stage) -> None:
    about = {"survey": "ztf", "object": "ZTF99aaaaaaa", "by": "dan"}
    assert tell(stage.settings, {**about, "kind": "note", "text": "look out"}).written
    stage.wait()
    notices = [item for item in decoded(stage.bootstrap, "notices") if item["owner"] == "dan"]
    assert [item["kind"] for item in notices] == ["annotation_waits"]


def test_a_late_packet_has_the_newest_alert_judged_again(stage: Stage) -> None:
    alone = SECOND | {"prvDiaSources": [], "prvDiaForcedSources": []}
    now, producer = int(time.time() * 1000), Producer({"bootstrap.servers": stage.bootstrap})
    for minutes, record in ((0, alone), (2, FIRST)):
        producer.produce("lsst_replay", closed(record), timestamp=now + minutes * 60_000)
        assert producer.flush(10) == 0
        stage.wait()
    wait_until(lambda: stage.published("alerts.lsst", "update"), "the newest alert is judged again")
    found = stage.published("alerts.lsst", "update")
    assert [item["diaSourceId"] for item in found] == [SECOND["diaSource"]["diaSourceId"]]
    assert f"late detection {FIRST['diaSource']['diaSourceId']}" in found[0]["cause"]


def test_another_model_has_each_object_scored_again_once(stage: Stage, tmp_path: Path) -> None:
    folder = made_bundle(tmp_path / "made", "1", ("transient", "moving"))
    words = ("models", "promote", str(folder), "--for", "ztf", "--json")
    assert json.loads(stage.shell(*words))["reevaluated"] == len(stage.names())
    stage.wait()
    found = [item for item in stage.published(SCORED, "update") if item["cause"] == "model made:1"]
    assert sorted(item["objectName"] for item in found) == stage.names()
    assert {item["provenance"]["modelId"] for item in found} == {"made"}
    assert not stage.hits_of("model made:1")
    assert json.loads(stage.shell(*words))["reevaluated"] == 0
    assert json.loads(stage.shell("ledger", "--verify", "--json"))["balanced"]


def test_records_far_apart_are_fetched_once_more(stage: Stage) -> None:
    create_topics(stage.admin, [input_spec("far_apart", stage.settings.topics)])
    send(stage.bootstrap, "far_apart", [b"%d" % number for number in range(2000)])
    originals, name = Originals(stage.settings.kafka), topic_hash("far_apart")
    wanted = [(name, 0, 0), (name, 0, 1), *((name, part, 7 * part + 60) for part in range(4)), (name, 3, 499)]
    try:
        for positions in (wanted, wanted[:2], [(name, 1, offset) for offset in (3, 120, 130, 400)]):
            found = originals.fetch([*positions, (name, 2, 500), (b"none", 0, 0)])
            assert {at: message.value for at, message in found.items()} == {
                (topic, part, offset): b"%d" % (4 * offset + part) for topic, part, offset in positions
            }
    finally:
        originals.close()
