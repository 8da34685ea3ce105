"""The embedded servers for real: started, killed, found again, never orphaned."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from broker.embedded import Addresses, OwnedServers, attach_or_start, down, owned, status, up
from broker.embedded.child import Fate
from broker.embedded.kafka import KafkaPlace, start_kafka
from broker.embedded.ports import LOOPBACK, free_port
from broker.embedded.record import Process, read_record, write_record
from broker.embedded.valkey import ValkeyPlace, start_valkey
from broker.errors import EmbeddedServerError


@pytest.fixture(scope="module")
def servers() -> Iterator[OwnedServers]:
    with owned(quiet=True) as running:
        yield running


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose background servers are ended with the test."""
    yield tmp_path
    down(tmp_path)


def _new_topic(addresses: Addresses) -> str:
    name = f"t-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": addresses.bootstrap_servers})
    admin.create_topics([NewTopic(name, num_partitions=1)])[name].result(30)
    return name


def _commit(addresses: Addresses, topic: str, values: list[bytes], *, abort: bool = False) -> None:
    producer = Producer(
        {
            "bootstrap.servers": addresses.bootstrap_servers,
            "transactional.id": f"tx-{topic}",
            "message.max.bytes": 17 * 1024 * 1024,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.flush(30)
    (producer.abort_transaction if abort else producer.commit_transaction)(30)


def _committed(addresses: Addresses, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": addresses.bootstrap_servers,
            "group.id": f"g-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": 17 * 1024 * 1024,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages: list[Message] = consumer.consume(count, timeout=30)
        return [message.value() for message in messages]
    finally:
        consumer.close()


def _until(condition: Callable[[], bool], what: str, within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _valkey(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=5)


def test_only_committed_messages_arrive_and_large_ones_fit(servers: OwnedServers) -> None:
    topic = _new_topic(servers.addresses)
    large = os.urandom(16 * 1024 * 1024)
    _commit(servers.addresses, topic, [b"lost"], abort=True)
    _commit(servers.addresses, topic, [b"kept", large])
    assert _committed(servers.addresses, topic, 2) == [b"kept", large]


def test_topics_are_never_created_by_accident(servers: OwnedServers) -> None:
    producer = Producer(
        {"bootstrap.servers": servers.addresses.bootstrap_servers, "message.timeout.ms": 1500}
    )
    delivered: list[bool] = []
    producer.produce("nobody-made-this", b"x", on_delivery=lambda error, _: delivered.append(error is None))
    assert producer.flush(10) == 0
    assert delivered == [False]
    topics = (
        AdminClient({"bootstrap.servers": servers.addresses.bootstrap_servers}).list_topics(timeout=10).topics
    )
    assert "nobody-made-this" not in topics


def test_servers_listen_on_the_loopback_interface_only(servers: OwnedServers) -> None:
    for pid, count in ((servers.kafka_pid, 2), (servers.valkey_pid, 1)):
        listening = [c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
        assert {address.ip.removeprefix("::ffff:") for address in listening} == {LOOPBACK}
        assert len(listening) == count


def test_valkey_acknowledges_only_what_is_on_disk(servers: OwnedServers) -> None:
    with _valkey(servers.addresses.redis_url) as client:
        settings = client.config_get("append*", "maxmemory-policy")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"


def test_kafka_comes_back_on_its_port_with_its_data(servers: OwnedServers) -> None:
    topic = _new_topic(servers.addresses)
    before, old_pid = servers.addresses, servers.kafka_pid
    _commit(before, topic, [b"before the crash"])
    servers.kill_kafka()
    assert _gone(old_pid)
    with (
        socket.create_server((LOOPBACK, int(before.bootstrap_servers.split(":")[1]))),
        pytest.raises(EmbeddedServerError, match="another program listens"),
    ):
        servers.restart_kafka()
    servers.restart_kafka()
    assert servers.addresses == before
    assert servers.kafka_pid != old_pid
    assert _committed(before, topic, 1) == [b"before the crash"]


def test_valkey_comes_back_on_its_port_with_its_data(servers: OwnedServers) -> None:
    before, old_pid = servers.addresses, servers.valkey_pid
    with _valkey(before.redis_url) as client:
        for number in range(100):
            client.set(f"point-{number}", number)
    servers.kill_valkey()
    assert _gone(old_pid)
    servers.restart_valkey()
    assert servers.addresses == before
    with _valkey(before.redis_url) as client:
        assert client.dbsize() == 100


def test_a_server_on_the_port_is_not_mistaken_for_ours(servers: OwnedServers, tmp_path: Path) -> None:
    kafka_port = int(servers.addresses.bootstrap_servers.split(":")[1])
    valkey_port = int(servers.addresses.redis_url.split(":")[2].split("/")[0])
    with pytest.raises(EmbeddedServerError, match=r"Kafka ended|answered by the Kafka cluster"):
        start_kafka(KafkaPlace(tmp_path / "kafka", kafka_port, free_port()), Fate(), 30, quiet=True)
    with pytest.raises(EmbeddedServerError, match=r"Valkey ended|answered by process"):
        start_valkey(ValkeyPlace(tmp_path / "valkey", valkey_port), Fate(), 30)
    assert not _gone(servers.kafka_pid)
    assert not _gone(servers.valkey_pid)


def test_a_mute_program_on_the_port_is_an_error_and_no_wait_for_ever(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, free_port())) as silent:
        place = ValkeyPlace(tmp_path, silent.getsockname()[1])
        with pytest.raises(
            EmbeddedServerError, match=r"(?s)Valkey ended while starting:.*Address already in use"
        ):
            start_valkey(place, Fate(), 30)


def test_a_failed_start_shows_the_end_of_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(EmbeddedServerError, match=r"(?s)Kafka.*num\.partitions"),
        owned(tmp_path, quiet=True, kafka_settings={"num.partitions": "none"}),
    ):
        pytest.fail("Kafka started with a setting it cannot have")
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(one.info["cmdline"])]


def test_kept_data_is_there_in_the_next_run_and_not_shared(tmp_path: Path) -> None:
    with owned(tmp_path, quiet=True, kafka_settings={"log.retention.hours": "7"}) as first:
        before = first.addresses
        topic = _new_topic(before)
        _commit(before, topic, [b"of the first run"])
        admin = AdminClient({"bootstrap.servers": before.bootstrap_servers})
        broker = ConfigResource(ResourceType.BROKER, "1")
        assert admin.describe_configs([broker])[broker].result(10)["log.retention.hours"].value == "7"
        with pytest.raises(EmbeddedServerError, match="in use"), owned(tmp_path, quiet=True):
            pytest.fail("two owners of one folder")
    with owned(tmp_path, quiet=True) as second:
        assert second.addresses == before
        assert _committed(second.addresses, topic, 1) == [b"of the first run"]


def test_one_of_the_two_can_be_left_out() -> None:
    with owned(kafka=False, quiet=True) as only_valkey:
        assert only_valkey.addresses.bootstrap_servers == ""
        with pytest.raises(EmbeddedServerError, match="Kafka was not asked for"):
            only_valkey.restart_kafka()


_OWNER = """
import sys, time
from broker.embedded import owned
with owned(quiet=True, kafka="kafka" in sys.argv) as servers:
    print(servers.kafka_pid if "kafka" in sys.argv else servers.valkey_pid, servers.valkey_pid, flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize(
    ("number", "extra"),
    [(signal.SIGKILL, ["kafka"]), (signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGHUP, [])],
)
def test_no_server_outlives_its_owner(number: signal.Signals, extra: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, *extra],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 2
    os.killpg(owner.pid, number)  # as a terminal does: to the whole group
    owner.wait(30)
    owner.stdout.close()
    for pid in pids:
        _until(lambda pid=pid: _gone(pid), f"the end of process {pid}")
    _until(lambda: not any(tmp_path.iterdir()), "the end of the private folder")


def test_background_servers_are_found_again_and_keep_ports_and_data(background: Path) -> None:
    assert status(background).kafka.state == "absent"
    first = up(background, quiet=True)
    assert first.started == ("kafka", "valkey")
    topic = _new_topic(first.addresses)
    _commit(first.addresses, topic, [b"kept"])
    second = up(background, quiet=True)
    assert second.started == ()
    assert replace(second, started=first.started) == first
    assert attach_or_start(background, quiet=True) == (first.addresses, False)
    with pytest.raises(EmbeddedServerError, match="run in the background"), owned(background, quiet=True):
        pytest.fail("started a second time on the same data")

    os.kill(first.kafka_pid, signal.SIGKILL)  # a crash: one is stale, the other untouched
    _until(lambda: _gone(first.kafka_pid), "the end of Kafka")
    assert status(background).kafka.state == "stale"
    third = up(background, quiet=True)
    assert third.started == ("kafka",)
    assert third.addresses == first.addresses
    assert third.valkey_pid == first.valkey_pid
    assert _committed(third.addresses, topic, 1) == [b"kept"]

    assert down(background) is True
    assert _gone(third.kafka_pid)
    assert _gone(third.valkey_pid)
    assert down(background) is False
    assert status(background).running is False


def test_two_that_start_at_once_share_one_pair_of_servers(background: Path) -> None:
    found: list[tuple[Addresses, bool]] = []
    starters = [
        threading.Thread(target=lambda: found.append(attach_or_start(background, quiet=True)))
        for _ in range(2)
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len({addresses for addresses, _ in found}) == 1
    assert sorted(started for _, started in found) == [False, True]


def test_a_process_that_was_given_the_old_number_is_left_alone(background: Path) -> None:
    first = up(background, ephemeral=True, quiet=True)
    assert first.ephemeral
    assert (background / "ephemeral" / "kafka").is_dir()
    assert down(background) is True
    assert not (background / "ephemeral").exists()
    record = read_record(background)
    assert record is not None
    with subprocess.Popen(["sleep", "60"]) as stranger:
        theirs = Process(stranger.pid, Process.of(stranger.pid).start_time - 60)
        write_record(background, replace(record, kafka=theirs, valkey=theirs))
        assert status(background).kafka.state == "stale"
        assert down(background) is False
        assert stranger.poll() is None
        stranger.kill()


def test_a_stopped_server_is_reported_and_can_be_ended(background: Path) -> None:
    with owned(quiet=True, kafka=False) as other, subprocess.Popen(["sleep", "60"]) as mute:
        # A record that names a live process, at an address where somebody else answers.
        port = int(other.addresses.redis_url.split(":")[2].split("/")[0])
        first = read_record(background)
        assert first is None
        with owned(background, quiet=True, kafka=False):
            pass
        record = read_record(background)
        assert record is not None
        write_record(
            background, replace(record, ports=replace(record.ports, valkey=port), valkey=Process.of(mute.pid))
        )
        assert status(background).valkey.state == "silent"
        with pytest.raises(EmbeddedServerError, match="does not answer"):
            up(background, quiet=True)
        assert down(background) is True
        mute.wait(10)
        with _valkey(other.addresses.redis_url) as client:
            assert client.ping()


def test_an_interrupted_start_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        f"from pathlib import Path; from broker.embedded import up; up(Path({str(tmp_path)!r}), quiet=True)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        _until((tmp_path / "valkey" / "appendonlydir").exists, "Valkey's start", 60)
    finally:
        starter.kill()
        starter.wait()
    _until(
        lambda: not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info["cmdline"])],
        "the end of all its servers",
    )
    assert status(tmp_path).running is False


def test_a_transaction_survives_no_crash_of_kafka_half_done(servers: OwnedServers) -> None:
    topic = _new_topic(servers.addresses)
    producer = Producer(
        {"bootstrap.servers": servers.addresses.bootstrap_servers, "transactional.id": f"half-{topic}"}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"half done")
    producer.flush(30)
    servers.kill_kafka()
    servers.restart_kafka()
    with pytest.raises(KafkaException):
        producer.abort_transaction(0.001)
    _commit(servers.addresses, topic, [b"whole"])
    assert _committed(servers.addresses, topic, 1) == [b"whole"]
