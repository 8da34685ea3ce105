"""The schema registry away: only the partitions that need it wait, whatever befalls their workers meanwhile.

One Kafka and one Valkey of the module's own, a registry served here on a real port: silent at first, then
there. What is asserted is read back with isolation read_committed and compared with what was sent.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest
from confluent_kafka import Producer
from harness import Shell, decoded, headers, read_all, repeated, wait_until
from redis import Redis

from broker.config import load
from broker.embedded import OwnedServers, owned
from broker.heartbeats import live_workers
from broker.kafka.clients import admin, committed_offsets
from broker.kafka.lag import backlog
from broker.schemas import lsst_schema
from broker.simulate import simulate_lsst, simulate_ztf
from tests.registry_server import Registry

TOPIC, OTHER = "lsst_replay", "ztf_replay"
KNOWN_ID, DENIED_ID = 90_001, 90_002
HELD, FIRST_UNREADABLE = (TOPIC, 0), 60


class Stage:
    """The servers, the command line, and the alerts that go on from one step to the next."""

    def __init__(self, servers: OwnedServers, folder: Path) -> None:
        self.servers = servers
        self.bootstrap = servers.addresses.bootstrap_servers
        self.settings = load({"kafka.bootstrap_servers": self.bootstrap}, env={})
        self.admin = admin(self.settings.kafka)
        small = {"BROKER_RUN_BATCH_MIN": "10", "BROKER_RUN_BATCH_MAX": "25", "BROKER_RUN_POLL_MS": "50"}
        self.shell = Shell(servers.addresses, folder, {"no_proxy": "127.0.0.1", **small})
        self.rubin = (alert.value for alert in simulate_lsst(100_000, seed=5))
        self.ztf = (alert.value for alert in simulate_ztf(100_000, seed=5))
        self.sent: dict[tuple[str, int], int] = {}

    def feed(self, partition: int, count: int, schema_id: int | None = None) -> None:
        """Put the next Rubin alerts into one partition, under another schema id if one is given."""
        values = list(islice(self.rubin, count))
        if schema_id is not None:
            values = [b"\x00" + schema_id.to_bytes(4, "big") + value[5:] for value in values]
        self._produce(TOPIC, partition, values)

    def feed_ztf(self, count: int) -> None:
        """Put the next ZTF alerts into a partition of the other topic."""
        self._produce(OTHER, 2, list(islice(self.ztf, count)))

    def _produce(self, topic: str, partition: int, values: list[bytes]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for value in values:
            producer.produce(topic, value, partition=partition)
        assert producer.flush(60) == 0
        self.sent[(topic, partition)] = self.sent.get((topic, partition), 0) + len(values)

    def left(self) -> dict[tuple[str, int], int]:
        """Alerts of each partition that are not committed, of those that have any."""
        waiting = backlog(self.settings.kafka, "broker", self.settings.run.topics)
        return {key: count for key, count in waiting.items() if count}

    def wait_for_the_others(self, when: str) -> None:
        """Until everything is committed but what one partition holds from its first unreadable alert on."""
        expected = {HELD: self.sent[HELD] - FIRST_UNREADABLE}
        wait_until(lambda: self.left() == expected, f"the others go on {when}")
        assert committed_offsets(self.settings.kafka, "broker", [HELD])[HELD] == FIRST_UNREADABLE

    def ready_workers(self) -> int:
        """Workers with a fresh heartbeat that have joined the group."""
        with Redis.from_url(self.servers.addresses.redis_url) as client:
            return sum(beat.ready for beat in live_workers(client, "broker"))

    def log(self) -> str:
        """What the runs have said so far."""
        return (self.shell.folder / "run.log").read_text()

    def notices(self, kind: str) -> list[str]:
        """Text of the notices of one kind, with what they are about."""
        found = decoded(self.bootstrap, "notices")
        return [f"{item['subject']} {item['text']}" for item in found if item["kind"] == kind]

    def paused(self) -> dict[str, float]:
        """What /metrics of the newest run says of paused partitions, by its labels."""
        address = re.findall(r"metrics: (\S+)", self.log())[-1]
        with build_opener(ProxyHandler({})).open(address, timeout=30) as answer:
            text = answer.read().decode()
        return {
            labels: float(value)
            for labels, value in re.findall(r"broker_partition_paused\{(.*)\} (\S+)", text)
        }

    def ledger_ranges(self) -> list[tuple[int, int]]:
        """The held partition's ranges in the order of the transactions."""
        return [
            (part["before"], part["after"])
            for record in decoded(self.bootstrap, "ledger")
            for part in record["partitions"]
            if (part["topic"], part["partition"]) == HELD
        ]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers, tmp_path)
        made.shell("run", "--until-idle", "0")  # makes the topics
        yield made


def workers_of(run: int) -> list[psutil.Process]:
    """The living workers of a run."""
    found = []
    for child in psutil.Process(run).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_only_the_partition_waits_through_faults_and_a_stop(stage: Stage) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    stage.shell.extra["BROKER_REGISTRY_URL"] = f"http://127.0.0.1:{port}"
    stage.feed(0, FIRST_UNREADABLE)
    stage.feed(0, 1, KNOWN_ID)
    stage.feed(0, 15)
    for partition in (1, 2, 3):
        stage.feed(partition, 40)
    stage.feed_ztf(60)
    with stage.shell.running("run", "--workers", "2") as first:
        wait_until(lambda: stage.ready_workers() == 2, "both workers join")
        stage.wait_for_the_others("while the registry says nothing")
        silent.close()
        see_what_is_out_and_what_is_said(stage)
        let_valkey_die_and_come_back(stage)
        kill_each_worker(stage, first.pid)
        stage.feed(0, 30)
        with stage.shell.running("run", "--workers", "2") as second:
            wait_until(lambda: stage.ready_workers() == 4, "two more workers join")
            stage.feed(3, 20)
            stage.wait_for_the_others("in four workers")
        assert second.returncode == 0
        stage.feed_ztf(20)
        stage.wait_for_the_others("in two workers again")
    assert first.returncode == 0, "a run stops while a partition waits"

    with stage.shell.running("run", "--workers", "1"):
        stage.feed(1, 10)
        stage.wait_for_the_others("in the next run")
        usual = int.from_bytes(next(stage.rubin)[1:5], "big")
        registry = Registry({KNOWN_ID: json.dumps(lsst_schema(usual))}, port)
        wait_until(lambda: stage.left() == {}, "the partition goes on")
        wait_until(lambda: set(stage.paused().values()) == {0.0}, "nothing is paused any more")
        stage.feed(0, 1, KNOWN_ID)
        wait_until(lambda: stage.left() == {}, "what was fetched is known")
    registry.stop()
    assert [path for path, _ in registry.asked] == [f"/schemas/ids/{id_}" for id_ in (KNOWN_ID, DENIED_ID)]
    assert any("goes on at offset 60" in text for text in stage.notices("partition_resumed"))
    compare_what_came_out_with_what_went_in(stage)


def see_what_is_out_and_what_is_said(stage: Stage) -> None:
    """All that can be read is published, nothing else is; log, notice and metric name the partition."""
    assert len(decoded(stage.bootstrap, "alerts.lsst")) == 60 + 3 * 40
    assert len(read_all(stage.bootstrap, "alerts.ztf")) == 60
    assert read_all(stage.bootstrap, "dead-letters") == []
    said = f"lsst_replay[0] paused at offset 60, whose alert names schema id {KNOWN_ID}"
    assert said in stage.log()
    assert all(notice.startswith(said) for notice in stage.notices("partition_paused"))
    wait_until(lambda: stage.paused() == {'partition="0",topic="lsst_replay"': 1.0}, "one owner counts it")


def let_valkey_die_and_come_back(stage: Stage) -> None:
    """Batches are aborted and done again while the partition waits; nothing is said of it again."""
    told = len(stage.notices("partition_paused"))
    assert told >= 1
    stage.servers.kill_valkey()
    stage.feed(0, 5, DENIED_ID)
    stage.feed(1, 20)
    wait_until(lambda: "done again" in stage.log(), "Valkey is missed")
    stage.servers.restart_valkey()
    stage.wait_for_the_others("after Valkey came back")
    assert len(stage.notices("partition_paused")) == told


def kill_each_worker(stage: Stage, run: int) -> None:
    """One after the other; whoever has the partition next says so."""
    told = len(stage.notices("partition_paused"))
    for victim in workers_of(run):
        victim.send_signal(signal.SIGKILL)
        victim.wait(60)
        wait_until(lambda: len(workers_of(run)) == 2, "the dead worker is replaced")
        stage.feed(2, 20)
        stage.feed_ztf(20)
        stage.wait_for_the_others("after a kill")
    wait_until(lambda: len(stage.notices("partition_paused")) > told, "the next owner says so")


def compare_what_came_out_with_what_went_in(stage: Stage) -> None:
    """Every alert came out once, the partition's in their order; only the id that was denied is refused."""
    denied = range(76, 81)
    letters = read_all(stage.bootstrap, "dead-letters")
    assert {headers(letter)["reason"] for letter in letters} == {"unknown_schema"}
    assert sorted(json.loads(headers(letter)["source"])["offset"] for letter in letters) == list(denied)
    alerts = decoded(stage.bootstrap, "alerts.lsst") + decoded(stage.bootstrap, "alerts.ztf")
    sources = [alert["source"] for alert in alerts]
    places = [(source["topic"], source["partition"], source["offset"]) for source in sources]
    sent = {(*key, offset) for key, count in stage.sent.items() for offset in range(count)}
    assert repeated(places) == []
    assert set(places) == sent - {(*HELD, offset) for offset in denied}
    ranges = stage.ledger_ranges()
    assert (ranges[0][0], ranges[-1][1]) == (0, stage.sent[HELD])
    assert all(earlier[1] == later[0] for earlier, later in pairwise(ranges))
    assert json.loads(stage.shell("ledger", "--json"))["balanced"]
