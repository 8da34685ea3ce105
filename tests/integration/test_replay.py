"""`broker replay` and `broker simulate` into a real Kafka: every byte arrives, and what does not is named."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path

import fastavro
import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition
from confluent_kafka.admin import NewTopic

from broker.client.send import Pace, Sender
from broker.config import Settings
from broker.kafka.clients import admin, reader, topic_partitions
from broker.message import MAX_INPUT_BYTES, Packet
from broker.simulate import simulate_lsst, simulate_ztf

ZTF = [alert.value for alert in simulate_ztf(8, seed=11)]
LSST = [alert.value for alert in simulate_lsst(2, seed=11)]


@pytest.fixture
def topic() -> str:
    return f"in-{uuid.uuid4().hex}"


def broker(*words: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    kafka = ("--kafka", settings.kafka.bootstrap_servers)
    command = [sys.executable, "-c", "from broker.cli import main; main()", *words, *kafka]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def read_all(settings: Settings, topic: str, partitions: int = 0) -> list[Message]:
    """Every record of a topic, each partition to its end; an input topic if no number of them is given."""
    left = set(range(partitions or settings.topics.partitions))
    consumer = reader(settings.kafka, **{"enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
    found: list[Message] = []
    end = time.monotonic() + 60
    while left:
        assert time.monotonic() < end, f"partitions {left} of {topic} do not end"
        messages = consumer.consume(500, 0.5)
        found += [message for message in messages if message.error() is None]
        for error in (message for message in messages if message.error() is not None):
            assert error.error().code() == KafkaError._PARTITION_EOF, error.error()
            left.discard(error.partition())
    consumer.close()
    return found


def several(values: list[bytes]) -> bytes:
    """One container of the records of several."""
    readers = [fastavro.reader(io.BytesIO(value)) for value in values]
    out = io.BytesIO()
    fastavro.writer(out, readers[0].writer_schema, [next(reader) for reader in readers])
    return out.getvalue()


def fill(folder: Path) -> list[bytes]:
    """A folder with good, multi-record, damaged and empty files and a tarball; returns the damaged ones."""
    damaged = [b"", b"nonsense", ZTF[1][:-30]]
    content = {"good.avro": ZTF[0], "many.avro": several(ZTF[2:5]), "notes.txt": b"-"}
    content |= {f"bad{number}.avro": value for number, value in enumerate(damaged)}
    for name, value in content.items():
        (folder / name).write_bytes(value)
    with tarfile.open(folder / "night.tar.gz", "w:gz") as tar:
        for number, value in enumerate(ZTF[5:8]):
            member = tarfile.TarInfo(f"{number}.avro")
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
    return damaged


def record_of(value: bytes) -> object:
    return next(fastavro.reader(io.BytesIO(value)))


def test_a_folder_arrives_whole(settings: Settings, topic: str, tmp_path: Path) -> None:
    damaged = fill(tmp_path)
    before_ms = time.time() * 1000
    done = broker("replay", str(tmp_path), "--topic", topic, settings=settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"sent 10 messages to {topic} (7 alerts)\n"
    assert "10 messages in" in done.stderr
    found = read_all(settings, topic)
    arrived = sorted(message.value() or b"" for message in found)
    assert sorted(value for value in arrived if value in damaged) == sorted(damaged)
    good = [record_of(value) for value in arrived if value not in damaged]
    assert len(good) == 7
    assert all(record_of(value) in good for value in (ZTF[0], *ZTF[2:]))
    assert all(message.timestamp()[1] >= before_ms - 1 for message in found)
    names = sorted(dict(message.headers())["source-file"].decode() for message in found)
    assert names == ["0.avro", "1.avro", "2.avro", "bad0.avro", "bad1.avro", "bad2.avro", "good.avro"] + 3 * [
        "many.avro"
    ]


def test_each_file_goes_to_its_surveys_topic(settings: Settings, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    for number, value in enumerate([LSST[0], b"", ZTF[0], b"bad"]):
        (tmp_path / f"{number}-{mark}.avro").write_bytes(value)
    done = broker("replay", str(tmp_path), "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "topics": {
            "lsst_replay": {"messages": 2, "alerts": 1},
            "ztf_replay": {"messages": 2, "alerts": 1},
        },
        "unsent": [],
        "failures": {},
    }
    for name, expected in (("lsst_replay", [b"", LSST[0]]), ("ztf_replay", [b"bad", ZTF[0]])):
        mine = [
            message.value() or b""
            for message in read_all(settings, name)
            if mark in dict(message.headers() or ()).get("source-file", b"").decode()
        ]
        assert sorted(mine) == sorted(expected)


def test_what_cannot_be_sent_is_named_and_the_rest_is_sent(
    settings: Settings, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "a.avro").write_bytes(bytes(MAX_INPUT_BYTES + 1))
    (tmp_path / "b.avro").write_bytes(bytes(MAX_INPUT_BYTES))
    (tmp_path / "c.avro").write_bytes(ZTF[0])
    (tmp_path / "d.tgz").write_bytes(b"no tarball")
    done = broker("replay", str(tmp_path), "--topic", topic, settings=settings)
    assert done.returncode == 1
    assert f"sent 2 messages to {topic}" in done.stdout
    assert "not sent: a.avro: 16.0 MiB" in done.stderr
    assert "not sent: d.tgz: damaged" in done.stderr
    assert sorted(len(message.value() or b"") for message in read_all(settings, topic)) == sorted(
        [len(ZTF[0]), MAX_INPUT_BYTES]
    )


def test_a_path_that_does_not_exist_stops_before_anything_is_sent(
    settings: Settings, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "a.avro").write_bytes(ZTF[0])
    done = broker("replay", str(tmp_path), str(tmp_path / "no"), "--topic", topic, settings=settings)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert topic not in topic_partitions(admin(settings.kafka))


def test_simulated_alerts_into_a_topic(settings: Settings, topic: str) -> None:
    words = ("simulate", "--alerts", "8", "--seed", "11", "--topic", topic, "--rate", "200")
    done = broker(*words, settings=settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"sent 8 messages to {topic} (8 alerts)\n"
    assert sorted(message.value() or b"" for message in read_all(settings, topic)) == sorted(ZTF)


@pytest.mark.parametrize(("pace", "expected_s"), [((1, 1 / 400), 0.9975), ((100, 0.5), 1.5)])
def test_the_pace_is_kept(settings: Settings, topic: str, pace: tuple[int, float], expected_s: float) -> None:
    sender = Sender(settings)
    sender.send(Packet(topic, None, b"creates the topic"))
    sender.finish()
    sender = Sender(settings, Pace(*pace))
    start = time.monotonic()
    for _ in range(400):
        sender.send(Packet(topic, None, b"x"))
    took = time.monotonic() - start
    assert sender.finish().total == 400
    assert expected_s <= took + 0.1, "never faster than the pace; how much slower depends on the machine"


def test_a_kafka_that_is_not_there_is_an_error_in_time(tmp_path: Path, topic: str) -> None:
    (tmp_path / "a.avro").write_bytes(ZTF[0])
    words = ["replay", str(tmp_path), "--topic", topic, "--kafka", "127.0.0.1:1"]
    command = [sys.executable, "-c", "from broker.cli import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Kafka does not answer" in done.stderr


def test_what_the_topic_refuses_is_counted(settings: Settings, topic: str, tmp_path: Path) -> None:
    new = NewTopic(topic, 1, 1, config={"max.message.bytes": "1000"})
    client = admin(settings.kafka)
    client.create_topics([new])[topic].result(30)
    (tmp_path / "a.avro").write_bytes(ZTF[0])
    (tmp_path / "b.avro").write_bytes(b"small")
    done = broker("replay", str(tmp_path), "--topic", topic, "--rate", "5", settings=settings)
    assert done.returncode == 1
    assert "1 of 2 messages were not delivered" in done.stderr
    assert [message.value() for message in read_all(settings, topic, 1)] == [b"small"]
