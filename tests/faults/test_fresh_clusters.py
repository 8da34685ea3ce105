"""Servers just started, and servers that crashed: what was acknowledged is there, and they come back.

The short forms run in the gate; `-m soak` makes them twenty.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chaos import log
from chaos.log import Decoder
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Shell, records_of, repeated, sha256

from broker.simulate import write_folder

_ALERTS = 216
_EVERYTHING = ("filters", "add", "everything", "--where", "psf_flux_err > 0")


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of simulated alerts."""
    folder = tmp_path_factory.mktemp("packets") / "ztf"
    write_folder(folder, _ALERTS, seed=7)
    return folder


def sent_alerts(packets: Path) -> list[tuple[int, str]]:
    """Number and record's hash of every alert of a folder."""
    values = [file.read_bytes() for file in sorted(packets.glob("*.avro"))]
    return sorted((record["candid"], sha256(data)) for value in values for record, data in records_of(value))


def first_hour(folder: Path, packets: Path) -> list[str]:
    """What a new user types on a machine without servers; what is missing or doubled in the end."""
    folder.mkdir()
    shell = Shell(None, folder)
    try:
        bootstrap = json.loads(shell("services", "up", "--json"))["kafka"]["address"]
        shell("replay", str(packets))
        shell(*_EVERYTHING)
        shell("run", "--workers", "2", "--until-idle", "1")
        account = json.loads(shell("ledger", "--json"))
        return [*_missing(bootstrap, sent_alerts(packets)), *account["problems"]]
    finally:
        shell("services", "down")


def _missing(bootstrap: str, sent: list[tuple[int, str]]) -> list[str]:
    decode = Decoder(bootstrap)
    given = [
        (record["candid"], sha256(data))
        for message in log.records(bootstrap, ["ztf_replay"])
        for record, data in records_of(message.value())
    ]
    out = [decode(message.value()) for message in log.records(bootstrap, ["alerts.ztf"])]
    alerts = [(alert["diaSourceId"], alert["provenance"]["recordSha256"]) for alert in out]
    topics = [name for name in log.topic_names(bootstrap) if name.startswith("filters.")]
    hits = [decode(message.value()) for message in log.records(bootstrap, topics)]
    named = Counter(f"{hit['filter']['name']}@{hit['filter']['version']}" for hit in hits)
    passed = Counter(name for alert in out for name in alert["filtersPassed"])
    lost = [f"{len(set(sent) - set(given))} alerts that replay acknowledged are not in its topic"]
    lost += [f"{len(set(sent) - set(alerts))} alerts were not published"]
    lost += [f"{len(repeated(alerts))} alerts were published more than once"]
    lost += [f"{(passed - named).total() + (named - passed).total()} hits differ from filtersPassed"]
    lost += [f"{len(sent) - passed['local.everything@1']} alerts did not pass a filter that all pass"]
    return [line for line in lost if not line.startswith("0 ")]


def fresh_clusters(folder: Path, packets: Path, count: int) -> dict[int, list[str]]:
    """What was wrong, by the number of the cluster; empty if nothing was."""
    found = {number: first_hour(folder / str(number), packets) for number in range(count)}
    return {number: problems for number, problems in found.items() if problems}


def test_on_fresh_servers_nothing_is_missing(tmp_path: Path, packets: Path) -> None:
    assert fresh_clusters(tmp_path, packets, 2) == {}


@pytest.mark.soak
def test_on_twenty_fresh_servers_nothing_is_missing(tmp_path: Path, packets: Path) -> None:
    assert fresh_clusters(tmp_path, packets, 20) == {}


class Crashes:
    """Background servers whose Kafka is killed at moments of a producer's work."""

    def __init__(self, shell: Shell, seed: int) -> None:
        self.shell, self.dice = shell, random.Random(seed)
        self.bootstrap = json.loads(shell("services", "up", "--json"))["kafka"]["address"]
        self.committed: list[bytes] = []
        self._client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for future in self._client.create_topics([NewTopic("kept", 4, 1)]).values():
            future.result()

    def crash(self, number: int) -> None:
        """Commit some records, leave others open, kill Kafka, and start it as a user does."""
        self._write(number, commit=True)
        open_one = self._write(number, commit=False) if self.dice.random() < 0.7 else None
        time.sleep(self.dice.uniform(0.0, 1.0))
        os.kill(self._status()["kafka"]["pid"], signal.SIGKILL)
        del open_one
        answer = json.loads(self.shell("services", "up", "--json"))
        assert answer["running"]
        assert answer["started"] == ["kafka"]

    def _write(self, number: int, *, commit: bool) -> Producer:
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": f"writer-{number % 3}-{commit}",
                "transaction.timeout.ms": 5000,
                "log_level": 0,
                # Every topic here is new to its producer: see what Kafka's clients lose.
                "max.in.flight.requests.per.connection": 1,
            }
        )
        producer.init_transactions(60)
        producer.begin_transaction()
        values = [f"{number} {index} {commit}".encode() for index in range(40)]
        for index, value in enumerate(values):
            producer.produce("kept", value, partition=index % 4)
        assert producer.flush(60) == 0
        if commit:
            producer.commit_transaction(60)
            self.committed += values
        return producer

    def _status(self) -> dict[str, Any]:
        return dict(json.loads(self.shell("services", "status", "--json")))


def crashes(folder: Path, count: int) -> None:
    """Kill Kafka again and again; it comes up each time, with all that was committed and nothing else."""
    shell = Shell(None, folder)
    try:
        made = Crashes(shell, seed=3)
        for number in range(count):
            made.crash(number)
        found = [message.value() for message in log.records(made.bootstrap, ["kept"])]
    finally:
        shell("services", "down")
    assert sorted(found) == sorted(made.committed)


def test_services_come_up_after_crashes_of_kafka(tmp_path: Path) -> None:
    crashes(tmp_path, 3)


@pytest.mark.soak
def test_services_come_up_after_twenty_crashes_of_kafka(tmp_path: Path) -> None:
    crashes(tmp_path, 20)
