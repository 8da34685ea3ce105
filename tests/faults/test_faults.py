"""The pipeline under fire: what comes out is what went in, once, whatever is killed on the way.

One Kafka and one Valkey of the module's own, a `broker run --workers 2` in the background, and faults while
alerts flow. What is asserted is read back with isolation read_committed and compared with what was sent.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaException, TopicPartition
from harness import Shell, decoded, headers, read_all, records_of, repeated, send, sha256, wait_until

from broker.config import load
from broker.embedded import OwnedServers, owned
from broker.errors import BrokerError
from broker.kafka.clients import admin, end_offsets
from broker.kafka.lag import backlog
from broker.simulate import simulate_ztf

TOPIC = "ztf_replay"


class Stage:
    """The servers, the command line, and the simulated sky that each test goes on with."""

    def __init__(self, servers: OwnedServers, folder: Path) -> None:
        self.servers = servers
        self.bootstrap = servers.addresses.bootstrap_servers
        self.settings = load({"kafka.bootstrap_servers": self.bootstrap}, env={})
        self.admin = admin(self.settings.kafka)
        small = {"BROKER_RUN_BATCH_MIN": "40", "BROKER_RUN_BATCH_MAX": "80", "BROKER_RUN_POLL_MS": "50"}
        self.shell = Shell(servers.addresses, folder, small)
        self.sky = simulate_ztf(100_000, seed=11)
        self.sent: list[bytes] = []

    def feed(self, count: int) -> None:
        """Put the next alerts of the sky into the input topic."""
        values = [next(self.sky).value for _ in range(count)]
        self.sent += values
        send(self.bootstrap, TOPIC, values)

    def feed_bytes(self, *values: bytes) -> None:
        """Put anything into the input topic."""
        self.sent += values
        send(self.bootstrap, TOPIC, list(values))

    def published(self) -> int:
        """Alerts that are out so far."""
        return len(read_all(self.bootstrap, "alerts.ztf"))

    def drained(self) -> bool:
        """Whether the group has committed all of the input."""
        try:
            return not any(backlog(self.settings.kafka, "broker", self.settings.run.topics).values())
        except (BrokerError, KafkaException):  # the cluster is away, or on its way back
            return False

    def check(self) -> Counter[str]:
        """Every record that was sent came out once, or is a dead letter with its bytes; the ledger agrees."""
        alerts = decoded(self.bootstrap, "alerts.ztf")
        letters = read_all(self.bootstrap, "dead-letters")
        expected, bad = [], []
        for value in self.sent:
            try:
                expected += [(record["candid"], sha256(data)) for record, data in records_of(value)]
            except Exception:
                bad.append(sha256(value))
        got = [(alert["diaSourceId"], alert["provenance"]["recordSha256"]) for alert in alerts]
        assert repeated(got) == []
        assert sorted(got) == sorted(expected)
        assert sorted(sha256(letter.value() or b"") for letter in letters) == sorted(bad)
        ledger = self.shell("ledger", "--json")
        assert '"balanced": true' in ledger
        return Counter(headers(letter)["reason"] for letter in letters)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    with owned(quiet=True) as servers:
        made = Stage(servers, folder)
        made.shell("run", "--until-idle", "0")  # makes the topics
        yield made


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The living workers of a run."""
    return [child for child in process.children(recursive=True) if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_sigkill_of_workers_in_mid_batch_loses_and_doubles_nothing(stage: Stage) -> None:
    with stage.shell.running("run", "--workers", "2") as run:
        parent = psutil.Process(run.pid)
        stage.feed(800)
        wait_until(lambda: stage.published() > 40, "the first alerts come out")
        for round_ in range(4):
            stage.feed(250)
            time.sleep(0.3)
            victims = workers_of(parent)
            victims[round_ % len(victims)].send_signal(signal.SIGKILL)
            wait_until(lambda: len(workers_of(parent)) == 2, "the dead worker is replaced")
        wait_until(stage.drained, "the backlog is gone")
    stage.check()


def test_redis_killed_and_restarted(stage: Stage) -> None:
    with stage.shell.running("run", "--workers", "2"):
        before = stage.published()
        stage.feed(600)
        wait_until(lambda: stage.published() > before, "alerts flow")
        stage.servers.kill_valkey()
        stage.feed(200)
        time.sleep(1.0)
        stage.servers.restart_valkey()
        wait_until(stage.drained, "the backlog is gone")
    stage.check()


def test_kafka_killed_and_restarted(stage: Stage) -> None:
    with stage.shell.running("run", "--workers", "2"):
        before = stage.published()
        stage.feed(600)
        wait_until(lambda: stage.published() > before, "alerts flow")
        stage.servers.kill_kafka()
        time.sleep(2.0)
        stage.servers.restart_kafka()
        stage.feed(100)
        wait_until(stage.drained, "the backlog is gone")
    stage.check()


def test_the_parent_killed_takes_its_workers_along_and_the_next_run_goes_on(stage: Stage) -> None:
    with stage.shell.running("run", "--workers", "2") as run:
        before = stage.published()
        stage.feed(600)
        wait_until(lambda: stage.published() > before, "alerts flow")
        children = workers_of(psutil.Process(run.pid))
        os.kill(run.pid, signal.SIGKILL)
        wait_until(
            lambda: not any(_is_worker(child) for child in children), "no worker outlives its parent", 60
        )
    stage.shell("run", "--until-idle", "1")
    stage.check()


def test_bad_messages_become_dead_letters_and_harm_no_neighbour(stage: Stage) -> None:
    before = stage.check()
    stage.feed(30)
    good = next(stage.sky).value
    stage.feed_bytes(
        b"not an alert at all",
        b"",
        os.urandom(5 * 2**20),
        good[: len(good) // 2],
        b"\x00" + struct.pack(">I", 4242) + b"datum of a schema nobody knows",
    )
    stage.feed(30)
    stage.shell("run", "--until-idle", "1")
    new = stage.check() - before
    assert sum(new.values()) == 5
    assert new["unknown_schema"] == 1
    assert new["empty"] == 1


def test_a_deleted_filter_topic_pauses_that_filter_alone(stage: Stage) -> None:
    with stage.shell.running("run", "--workers", "2"):
        for name in ("doomed", "healthy"):
            stage.shell("filters", "add", name, "--where", "psf_flux_err > 0")
        stage.feed(50)
        wait_until(stage.drained, "the filters have hits")
        topic = "filters.local.doomed"
        stage.admin.delete_topics([topic])[topic].result()
        stage.feed(200)
        wait_until(stage.drained, "the backlog is gone")
    stage.check()
    assert "paused" in stage.shell("filters", "show", "doomed")
    hits = decoded(stage.bootstrap, "filters.local.healthy")
    assert len(hits) == 250
    notices = decoded(stage.bootstrap, "notices")
    paused = {notice["subject"] for notice in notices if notice["kind"] == "filter_paused"}
    assert paused == {"local.doomed"}, "two workers that notice at once may both say so"


def test_records_that_expired_unread_are_counted(stage: Stage) -> None:
    """They are a line in the ledger, never a silent jump."""
    stage.feed(40)
    stage.shell("run", "--until-idle", "1")
    sent = len(stage.sent)
    stage.feed(200)
    lost = stage.sent[sent:]
    del stage.sent[sent:]
    ends = end_offsets(stage.admin, [(TOPIC, number) for number in range(4)])
    cuts = [TopicPartition(topic, number, end) for (topic, number), end in ends.items()]
    for done in stage.admin.delete_records(cuts).values():
        done.result()
    stage.feed(40)
    stage.shell("run", "--until-idle", "1")
    stage.check()
    assert json.loads(stage.shell("ledger", "--json"))["expired"] == len(lost)
