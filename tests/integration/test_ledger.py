"""`broker ledger` on a real Kafka: what it says of topics that lost hits, or got some that are none."""

from __future__ import annotations

import io
import json
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer, TopicPartition
from harness import Shell, control_state, decoded, read_all, send, wait_until

from broker import control
from broker.cli.ledger import as_dict
from broker.config import load
from broker.control.topic import ControlWriter
from broker.embedded import Addresses, owned
from broker.filters.budgets import hour_of
from broker.kafka.clients import admin, create_topics
from broker.kafka.topics import filter_spec
from broker.ledger import Balance, balance
from broker.monitoring.account import FIRST_LEDGER_SCHEMA
from broker.publish.packets import encode_record
from broker.simulate import simulate_ztf

TOPIC = "ztf_replay"
SKY = 120


class Stage:
    """The servers, the command line and a sky."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.bootstrap = addresses.bootstrap_servers
        flags = {"kafka.bootstrap_servers": self.bootstrap, "redis.url": addresses.redis_url}
        self.settings = load(flags, env={})
        small = {"BROKER_RUN_BATCH_MIN": "10", "BROKER_RUN_BATCH_MAX": "20", "BROKER_RUN_POLL_MS": "20"}
        self.shell = Shell(addresses, folder, small)
        self.sky = simulate_ztf(100_000, seed=3)

    def feed(self, count: int) -> None:
        """Put the next alerts of the sky into the input topic, and a byte string that is none."""
        send(self.bootstrap, TOPIC, [*(next(self.sky).value for _ in range(count)), b"not an alert"])

    def run(self) -> None:
        self.shell("run", "--until-idle", "1")

    def ledger(self) -> Balance:
        return balance(self.settings, verify=True)

    def topic(self, name: str) -> str:
        return f"filters.local.{name}"

    def put(self, topic: str, value: bytes) -> None:
        """One record by a producer that is none of ours."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        producer.produce(topic, value)
        assert producer.flush(30) == 0

    def rewrite(self, topic: str, values: list[bytes]) -> None:
        """Make a filter's topic anew, with these records."""
        client = admin(self.settings.kafka)
        client.delete_topics([topic])[topic].result()
        wait_until(lambda: topic not in client.list_topics(timeout=10).topics, "the topic is gone", 30)
        create_topics(client, [filter_spec(*topic.split(".")[1:], self.settings.topics)])
        for value in values:
            self.put(topic, value)

    def recoded(self, topic: str, value: bytes, **fields: Any) -> bytes:
        """A record of ours with other fields."""
        (number,) = struct.unpack(">I", value[1:5])
        schema = fastavro.parse_schema(json.loads(control_state(self.bootstrap).schemas[number]))
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        out = io.BytesIO(value[:5])
        out.seek(5)
        fastavro.schemaless_writer(out, schema, record | fields)
        return out.getvalue()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers.addresses, tmp_path_factory.mktemp("ledger"))
        made.shell("run", "--until-idle", "0")
        with made.shell.running("run"):
            for name, where in {
                "plain": "psf_flux_err > 0",
                "green": "band = 'g'",
                "half": "psf_flux_err > 0",
                "doomed": "psf_flux_err > 0",
            }.items():
                payload = "full" if name == "green" else "light"
                made.shell("filters", "add", name, "--where", where, "--payload", payload)
            made.feed(SKY)
            wait_until(lambda: read_all(made.bootstrap, "alerts.ztf"), "alerts come out")
        made.run()
        yield made


def test_what_nobody_touched_is_balanced_and_shows_hits(stage: Stage) -> None:
    said = json.loads(stage.shell("ledger", "--json"))
    assert said["balanced"], said["problems"]
    assert said["notes"] == []
    plain = said["filters"]["local.plain@1"]
    assert plain["ledger"]["alert"] == plain["topic"]["alert"] == plain["alerts"]["alert"] == SKY
    for label, one in said["filters"].items():
        assert one["ledger"] == one["topic"] == one["alerts"], label
    assert said["rejected"] == said["found"]["rejected"] == 1
    shown = stage.shell("ledger")
    assert "local.plain@1" in shown
    assert "balanced" in shown


def test_without_reading_the_topics_the_ledger_tells_its_own_hits(stage: Stage) -> None:
    said = json.loads(stage.shell("ledger", "--json", "--no-verify"))
    assert said["filters"]["local.plain@1"] == {"ledger": {"alert": SKY}}
    assert said["found"] is None


def test_a_hit_that_is_gone_a_double_and_a_forged_one_are_named(stage: Stage) -> None:
    topic = stage.topic("plain")
    values = [record.value() for record in read_all(stage.bootstrap, topic)]
    hits = decoded(stage.bootstrap, topic)
    forged = {"topic": TOPIC, "partition": 0, "offset": 0, "index": 7}
    stage.rewrite(topic, [*values[1:], values[5], stage.recoded(topic, values[3], source=forged)])
    result = stage.ledger()
    assert not result.balanced
    problems = "\n".join(result.problems)
    gone, double = (place(hits[at]) for at in (0, 5))
    assert f"{topic}: {gone} passed it (local.plain@1) and is not in its topic" in result.problems
    assert (
        f"{topic}: {double} is 2 times in its topic, and passed it 1 times (local.plain@1)" in result.problems
    )
    strange = (
        f"{topic}: {TOPIC}[0] offset 0 index 7 ({hits[3]['objectName']}) is in its topic, and alerts.* do not"
    )
    assert strange in problems
    assert f"{topic}: alerts of local.plain@1: the ledger counts {SKY}, the topic holds {SKY + 1}" in problems
    assert "green" not in problems
    stage.shell("ledger", expect=1)
    stage.rewrite(topic, values)
    assert stage.ledger().problems == []


def test_a_hit_that_was_exchanged_for_another_is_named_though_the_counts_agree(stage: Stage) -> None:
    topic = stage.topic("green")
    values = [record.value() for record in read_all(stage.bootstrap, topic)]
    hits = decoded(stage.bootstrap, topic)
    stage.rewrite(topic, [values[1], *values[1:]])
    problems = stage.ledger().problems
    assert any(f"{place(hits[0])} passed it" in line for line in problems)
    assert any(f"{place(hits[1])} is 2 times in its topic" in line for line in problems)
    stage.rewrite(topic, values)


def test_of_many_differences_some_are_named_and_the_others_counted(stage: Stage) -> None:
    topic = stage.topic("plain")
    values = [record.value() for record in read_all(stage.bootstrap, topic)]
    stage.rewrite(topic, values[70:])
    problems = stage.ledger().problems
    assert sum("passed it (local.plain@1) and is not in its topic" in line for line in problems) == 20
    assert "and 50 more alerts on which topics do not agree" in problems
    stage.rewrite(topic, values)


def test_a_record_that_is_none_of_ours_and_one_in_the_wrong_topic_are_named(stage: Stage) -> None:
    plain, green = stage.topic("plain"), stage.topic("green")
    values = [record.value() for record in read_all(stage.bootstrap, plain)]
    stage.put(plain, b"anything")
    stage.put(plain, read_all(stage.bootstrap, green)[0].value())
    problems = "\n".join(stage.ledger().problems)
    assert f"{plain}[0] offset" in problems
    assert "cannot be read as a record of the broker" in problems
    assert f"{plain}: it holds a hit of local.green@1" in problems
    stage.rewrite(plain, values)


def place(hit: dict[str, Any]) -> str:
    source = hit["source"]
    where = f"{source['topic']}[{source['partition']}] offset {source['offset']} index {source['index']}"
    return f"{where} ({hit['objectName']})"


def test_it_is_right_each_time_it_is_asked_while_the_pipeline_runs(stage: Stage) -> None:
    over = threading.Event()

    def flow() -> None:
        while not over.wait(0.1):
            stage.feed(15)

    with stage.shell.running("run", "--workers", "2"):
        thread = threading.Thread(target=flow)
        thread.start()
        try:
            for _ in range(8):
                result = stage.ledger()
                assert result.problems == []
                time.sleep(0.5)
        finally:
            over.set()
            thread.join()
    stage.run()
    assert stage.ledger().problems == []


def test_a_sampled_filter_counts_as_what_it_publishes(stage: Stage) -> None:
    item = control_state(stage.bootstrap).filters_in_force()["local.half"]
    share = replace(item, sample=0.5, sampled_hour=hour_of(time.time()) + 10)
    ControlWriter(stage.settings.kafka).write(*control.filter_record(share))
    before = as_dict(stage.ledger())["filters"]
    stage.feed(SKY)
    stage.run()
    result = stage.ledger()
    assert result.problems == []
    after = as_dict(result)["filters"]
    new = {name: after[name]["ledger"]["alert"] - before[name]["ledger"]["alert"] for name in before}
    assert new["local.plain@1"] == SKY
    assert 0.3 * SKY < new["local.half@1"] < 0.7 * SKY


def test_removed_filters_count_and_a_deleted_topic_is_said(stage: Stage) -> None:
    stage.shell("filters", "remove", "half")
    result = stage.ledger()
    assert result.problems == []
    assert "local.half@1" in as_dict(result)["filters"]
    topic = stage.topic("doomed")
    client = admin(stage.settings.kafka)
    client.delete_topics([topic])[topic].result()
    wait_until(lambda: topic not in client.list_topics(timeout=10).topics, "the topic is gone", 30)
    result = stage.ledger()
    assert result.problems == []
    assert result.compared is not None
    assert any(note.startswith(f"{topic} does not exist any more") for note in result.compared.notes)


def test_a_transaction_that_stays_open_is_the_only_finding(stage: Stage) -> None:
    """What it hides is not taken for a loss."""
    topic = stage.topic("plain")
    values = [record.value() for record in read_all(stage.bootstrap, topic)]
    stage.rewrite(topic, values[:10])
    options = {
        "bootstrap.servers": stage.bootstrap,
        "transactional.id": "x",
        "transaction.timeout.ms": 300_000,
    }
    producer = Producer(options)
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, values[10])
    assert producer.flush(30) == 0
    for value in values[10:]:
        stage.put(topic, value)
    result = stage.ledger()
    (problem,) = result.problems
    assert "hanging transaction" in problem
    assert f"{topic}[0] from offset 10 on" in problem
    producer.abort_transaction(30)
    assert stage.ledger().problems == []


def test_an_alert_of_no_transaction_and_a_double_are_named(stage: Stage) -> None:
    value = read_all(stage.bootstrap, "alerts.ztf")[0].value()
    stage.put("alerts.ztf", value)
    stray = {"topic": TOPIC, "partition": 1, "offset": 10**9, "index": 0}
    stage.put("alerts.ztf", stage.recoded("alerts.ztf", value, source=stray))
    problems = stage.ledger().problems
    assert any("is published twice" in line for line in problems)
    assert any(f"no ledger record covers {TOPIC}[1] offset {10**9} index 0" in line for line in problems)


def test_what_retention_dropped_is_said_and_nothing_else_is_made_of_it(stage: Stage) -> None:
    topic = stage.topic("plain")
    values = [record.value() for record in read_all(stage.bootstrap, topic)]
    stage.rewrite(topic, values)
    client = admin(stage.settings.kafka)
    for done in client.delete_records([TopicPartition(topic, 0, 5)]).values():
        done.result()
    result = stage.ledger()
    assert not any(topic in line for line in result.problems)
    assert result.compared is not None
    assert any(note.startswith(f"{topic}: its first records have expired") for note in result.compared.notes)


def test_a_record_of_the_ledgers_first_version_counts_with_its_hits_not_recorded(stage: Stage) -> None:
    before = stage.ledger()
    old = {
        "slot": "old", "worker": "old:1", "epoch": 1, "committedAt": 1,
        "partitions": [{"topic": "old_topic", "partition": 0, "before": 0, "after": 3, "expired": 0}],
        "counts": [
            {"survey": "unknown", "outcome": "in", "reason": "", "count": 0},
        ],
    }  # fmt: skip
    stage.put("ledger", encode_record(FIRST_LEDGER_SCHEMA, old))
    after = stage.ledger()
    assert after.transactions == before.transactions + 1
    assert after.unrecorded == before.unrecorded + 1
    assert "1 transactions are of a time when hits were not recorded" in after.compared.notes  # type: ignore[union-attr]
    assert after.problems == before.problems
