"""The client stream and `broker listen` on a real Kafka: all that is committed, decoded, nothing hidden."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer, TopicPartition

from broker import control
from broker.assemble import ensure_topics
from broker.client import Received, Stream, Undecodable, as_json
from broker.config import Settings
from broker.control.topic import ControlWriter
from broker.data.schema_ids import canonical, schema_id
from broker.errors import BrokerError
from broker.kafka.clients import admin, create_topics, producer_options, writer
from broker.kafka.topics import TopicSpec
from broker.message import Message, Reject
from broker.publish import records
from broker.publish.packets import dead_letter, encode_record
from broker.simulate import simulate_lsst, simulate_ztf
from broker.table import ColumnSpec

FEATURES = [ColumnSpec("amplitude", "mag", "spread"), ColumnSpec("n_nights", "", "nights")]
SCORES = [ColumnSpec("prob_SNIa", "", ""), ColumnSpec("prob_AGN", "", ""), ColumnSpec("anomaly", "", "")]
SCHEMA = records.alert_schema(records.alert_fields((), FEATURES, SCORES))


@pytest.fixture
def topic(settings: Settings) -> str:
    return new_topic(settings)


@pytest.fixture
def announced(settings: Settings) -> None:
    """The alert schema, in the control topic as a worker would announce it."""
    ensure_topics(settings)
    text = canonical(SCHEMA)
    ControlWriter(settings.kafka).write(*control.schema_record(schema_id(text), text))


def new_topic(settings: Settings, name: str = "", partitions: int = 2) -> str:
    chosen = f"out-{name}{uuid.uuid4().hex}"
    create_topics(admin(settings.kafka), [TopicSpec(chosen, partitions, 1, ())])
    return chosen


def alert(number: int) -> bytes:
    """A published alert, as fastavro encodes it."""
    value = {
        "kind": "alert",
        "diaSourceId": 2**60 + number,
        "diaObjectId": 5,
        "objectName": "ZTF21abcdefg",
        "survey": "ztf",
        "midpointMjdTai": 61000.25,
        "ra": 10.5,
        "dec": -1.25,
        "band": "g",
        "psfFlux": 1000.0,
        "psfFluxErr": math.nan,
        "mag": 23.9,
        "flags": 1,
        "historyIncomplete": False,
        "solarSystem": {"status": "none"},
        "packet": {},
        "features": {"amplitude": 0.5},
        "scores": {"prob_SNIa": 0.75, "prob_AGN": 0.25, "anomaly": 0.5},
        "filtersPassed": ["broker.young@1"],
        "source": {"topic": "ztf_replay", "partition": 1, "offset": number, "index": 0},
        "provenance": {
            "surveySchema": "ztf 4.02",
            "brokerVersion": "0",
            "featureSet": "f",
            "modelId": "m",
            "modelVersion": "1",
            "controlEpoch": 3,
            "observedAt": 1_763_700_000.0,
            "ingestedAt": 1,
            "publishedAt": 2,
            "recordSha256": "00" * 32,
        },
    }
    return encode_record(SCHEMA, value)


class Transaction:
    """A transactional producer, one transaction at a time."""

    def __init__(self, settings: Settings) -> None:
        options = {"transactional.id": uuid.uuid4().hex, "transaction.timeout.ms": 60000}
        self._producer = Producer(producer_options(settings.kafka, **options))
        self._producer.init_transactions(30)

    def open(self, topic: str, values: list[bytes]) -> None:
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(topic, value, b"ztf:5")
        self._producer.flush(30)

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.abort_transaction(30)


def send(settings: Settings, topic: str, values: list[bytes]) -> None:
    producer = writer(settings.kafka)
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def command(*words: str, settings: Settings) -> list[str]:
    kafka = ("--kafka", settings.kafka.bootstrap_servers)
    return [sys.executable, "-c", "from broker.cli import main; main()", "listen", *words, *kafka]


def listen(*words: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, settings=settings), capture_output=True, text=True, timeout=120, check=False
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def offsets(received: list[Received]) -> set[int]:
    return {item.value["source"]["offset"] for item in received}


@pytest.mark.usefixtures("announced")
def test_exactly_the_committed_alerts_are_shown(settings: Settings, topic: str) -> None:
    transaction = Transaction(settings)
    transaction.open(topic, [alert(number) for number in range(5)])
    transaction.commit()
    transaction.open(topic, [alert(number) for number in range(5, 10)])
    transaction.abort()
    transaction.open(topic, [alert(10)])
    transaction.commit()
    shown = lines(listen(topic, "--from", "beginning", "--until-idle", "0.5", settings=settings))
    assert sorted(line["source"]["offset"] for line in shown) == [0, 1, 2, 3, 4, 10]
    one = shown[0]
    assert one["diaSourceId"] == str(2**60 + one["source"]["offset"])
    assert (one["diaObjectId"], one["objectName"], one["survey"], one["band"]) == (
        "5",
        "ZTF21abcdefg",
        "ztf",
        "g",
    )
    assert (one["midpointMjdTai"], one["ra"], one["dec"]) == (61000.25, 10.5, -1.25)
    assert (one["psfFlux"], one["psfFluxErr"]) == (1000.0, None)
    assert one["features"] == {"amplitude": 0.5, "n_nights": None}
    assert one["scores"]["prob_SNIa"] == 0.75
    assert one["provenance"]["controlEpoch"] == 3
    assert one["filtersPassed"] == ["broker.young@1"]
    assert (one["kafka"]["topic"], one["kafka"]["key"]) == (topic, "ztf:5")


@pytest.mark.usefixtures("announced")
def test_an_open_transaction_is_not_idle(settings: Settings, topic: str) -> None:
    send(settings, topic, [alert(1)])
    transaction = Transaction(settings)
    transaction.open(topic, [alert(2), alert(3)])
    with Stream(topic, settings.kafka, start="beginning") as stream:
        found = _drain(stream, 3.0)
        assert offsets(found) == {1}
        assert not stream.idle(0.0)
        transaction.commit()
        found = list(stream.until_idle(0.3))
        assert offsets(found) == {2, 3}
        transaction.open(topic, [alert(4)])
        assert _becomes(lambda: not stream.idle(0.0))
        transaction.abort()
        assert list(stream.until_idle(0.3)) == []


def _drain(stream: Stream, seconds: float) -> list[Received]:
    end = time.monotonic() + seconds
    found: list[Received] = []
    while time.monotonic() < end:
        found += stream.poll(0.1)
    return found


def _becomes(condition: Any, timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_an_empty_topic_is_idle_after_the_quiet_time(settings: Settings, topic: str) -> None:
    with Stream(topic, settings.kafka, start="beginning") as stream:
        assert _becomes(lambda: not stream.poll(0.1) and stream.idle(0.0))
        assert list(stream.until_idle(1.0)) == []


@pytest.mark.usefixtures("announced")
def test_latest_starts_with_what_is_committed_from_now_on(settings: Settings, topic: str) -> None:
    send(settings, topic, [alert(1)])
    transaction = Transaction(settings)
    transaction.open(topic, [alert(2)])
    with Stream(topic, settings.kafka) as stream:
        transaction.commit()
        send(settings, topic, [alert(3)])
        assert offsets(list(stream.until_idle(0.5))) == {2, 3}


@pytest.mark.usefixtures("announced")
def test_a_time_starts_with_the_records_from_then_on(settings: Settings, topic: str) -> None:
    send(settings, topic, [alert(1)])
    time.sleep(0.1)
    now = datetime.now(UTC)
    time.sleep(0.1)
    send(settings, topic, [alert(2)])
    with Stream(topic, settings.kafka, start=now) as stream:
        assert offsets(list(stream.until_idle(0.3))) == {2}
    with Stream(topic, settings.kafka, start=now + timedelta(days=1)) as stream:
        assert list(stream.until_idle(0.3)) == []
    with Stream(topic, settings.kafka, start=now.replace(tzinfo=None)) as stream:
        assert offsets(list(stream.until_idle(0.3))) == {2}


@pytest.mark.usefixtures("announced")
def test_what_cannot_be_decoded_is_told_and_not_fatal(settings: Settings) -> None:
    topic = new_topic(settings, partitions=1)
    send(settings, topic, [alert(1), b"nonsense", b"", alert(2)[:-4], b"\x00\x7f\x00\x00\x01x", alert(3)])
    bad: list[Undecodable] = []
    with Stream(topic, settings.kafka, start="beginning", on_undecodable=bad.append) as stream:
        assert offsets(list(stream.until_idle(0.3))) == {1, 3}
    assert [item.message.offset for item in bad] == [1, 2, 3, 4]
    assert [item.why.partition(":")[0] for item in bad] == [
        "bad_wire_format",
        "empty",
        "undecodable",
        "unknown_schema",
    ]
    shown = lines(listen(topic, "--from", "beginning", "--until-idle", "0.3", settings=settings))
    assert sorted(line["kafka"]["offset"] for line in shown) == [0, 1, 2, 3, 4, 5]
    assert sum("undecodable" in line for line in shown) == 4


def test_a_schema_announced_later_is_found(settings: Settings, topic: str) -> None:
    ensure_topics(settings)
    schema = records.alert_schema(
        records.alert_fields((), FEATURES, [ColumnSpec(f"prob_{topic[4:]}", "", "")])
    )
    text = canonical(schema)
    number = schema_id(text)
    with Stream("^" + topic, settings.kafka, start="beginning") as stream:
        assert stream.poll(0.5) == []
        ControlWriter(settings.kafka).write(*control.schema_record(number, text))
        value = {**_decoded(alert(7)), "scores": {}}
        send(settings, topic, [encode_record(schema, value)])
        assert offsets(list(stream.until_idle(0.3))) == {7}


def _decoded(value: bytes) -> dict[str, Any]:
    decoded = fastavro.schemaless_reader(io.BytesIO(value[records.FRAME_BYTES :]), SCHEMA, None)
    assert isinstance(decoded, dict)
    return decoded


def test_dead_letters_are_json_with_their_reason(settings: Settings) -> None:
    ensure_topics(settings)
    mark = uuid.uuid4().hex
    with Stream("dead-letters", settings.kafka) as stream:
        letter = dead_letter(
            Message("ztf_replay", 3, 99, 1234, b"damaged", b"key"),
            Reject(0, 0, "bad_container", "surveys", mark),
        )
        producer = writer(settings.kafka)
        producer.produce(letter.topic, letter.value, letter.key, headers=list(letter.headers))
        assert producer.flush(30) == 0
        (received,) = [item for item in stream.until_idle(0.3) if item.value["detail"] == mark]
    assert received.message.value == b"damaged"
    shown = lines(listen("dead-letters", "--from", "beginning", "--until-idle", "0.3", settings=settings))
    (mine,) = [line for line in shown if line.get("detail") == mark]
    assert mine["reason"] == "bad_container"
    assert mine["source"] == {"topic": "ztf_replay", "partition": 3, "offset": 99, "index": 0}
    assert mine["value"] == {"bytes": 7}


@pytest.mark.parametrize("make", [simulate_ztf, simulate_lsst])
def test_input_topics_can_be_read_too(settings: Settings, topic: str, make: Any) -> None:
    alerts = list(make(3, 5))
    send(settings, topic, [item.value for item in alerts])
    with Stream(topic, settings.kafka, start="beginning") as stream:
        received = list(stream.until_idle(0.3))
    ids = {str(item.candid) for item in alerts}
    found = {
        record.get("candid") or record.get("diaSourceId")
        for r in received
        for record in as_json(r)["records"]
    }
    assert found == ids


@pytest.mark.usefixtures("announced")
def test_a_pattern_follows_topics_that_appear_later(settings: Settings) -> None:
    mark = uuid.uuid4().hex[:8]
    first = new_topic(settings, mark)
    send(settings, first, [alert(1)])
    with Stream(f"^out-{mark}", settings.kafka, start="beginning") as stream:
        assert offsets(list(stream.until_idle(0.3))) == {1}
        second = new_topic(settings, mark)
        send(settings, second, [alert(2)])
        assert offsets(_drain(stream, 8.0)) == {2}
        assert stream.topics == tuple(sorted([first, second]))


@pytest.mark.usefixtures("announced")
def test_records_that_expired_unread_are_counted(settings: Settings) -> None:
    topic = new_topic(settings, partitions=1)
    send(settings, topic, [alert(1)])
    with Stream(topic, settings.kafka, start="beginning") as stream:
        assert offsets(list(stream.until_idle(0.1))) == {1}
        part = TopicPartition(topic, 0)
        stream._consumer.pause([part])
        send(settings, topic, [alert(number) for number in range(2, 7)])
        client = admin(settings.kafka)
        for future in client.delete_records([TopicPartition(topic, 0, 4)]).values():
            future.result(30)
        stream._consumer.resume([part])
        assert offsets(_drain(stream, 3.0)) == {5, 6}
        assert stream.expired == 3


def test_a_topic_that_does_not_exist_names_near_ones(settings: Settings, topic: str) -> None:
    with pytest.raises(BrokerError, match=f"did you mean .*{topic}"):
        Stream(topic[:-1], settings.kafka)
    done = listen(topic[:-1], settings=settings)
    assert done.returncode == 1
    assert topic in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kafka_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BrokerError, match="Kafka does not answer"):
        Stream("t", "127.0.0.1:1")


@pytest.mark.usefixtures("announced")
def test_listening_shows_each_record_at_once_and_ends_on_ctrl_c(settings: Settings, topic: str) -> None:
    with subprocess.Popen(
        command(topic, "--from", "beginning", settings=settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        guard = threading.Timer(60, process.kill)
        guard.start()
        send(settings, topic, [alert(1)])
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["source"]["offset"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        guard.cancel()


@pytest.mark.usefixtures("announced")
def test_a_reader_that_goes_away_is_no_error(settings: Settings, topic: str) -> None:
    send(settings, topic, [alert(number) for number in range(2000)])
    with subprocess.Popen(
        command(topic, "--from", "beginning", settings=settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


@pytest.mark.usefixtures("announced")
def test_the_table_has_a_row_an_alert_and_a_limit(settings: Settings, topic: str) -> None:
    send(settings, topic, [alert(number) for number in range(5)])
    done = listen(topic, "--from", "beginning", "--limit", "2", "--format", "table", settings=settings)
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == [
        "time",
        "(UTC)",
        "object",
        "survey",
        "band",
        "mag",
        "class",
        "anomaly",
        "filters",
    ]
    assert len(rows) == 2
    expected = ["2025-11-21", "04:40:00", "ZTF21abcdefg", "ztf", "g", "23.90", "SNIa", "0.75", "0.50"]
    assert rows[0].split() == [*expected, "broker.young@1"]


@pytest.mark.usefixtures("announced")
def test_the_past_ends_where_alerts_never_cease(settings: Settings, topic: str) -> None:
    send(settings, topic, [alert(number) for number in range(20)])
    done = threading.Event()

    def go_on() -> None:
        number = 20
        while not done.is_set():
            send(settings, topic, [alert(number)])
            number += 1

    with Stream(topic, settings.kafka, start="beginning") as stream:
        writing = threading.Thread(target=go_on)
        writing.start()
        try:
            found = list(stream.past())
        finally:
            done.set()
            writing.join()
    assert set(range(20)) <= offsets(found)


@pytest.mark.usefixtures("announced")
def test_the_past_of_aborted_and_empty_partitions(settings: Settings, topic: str) -> None:
    with Stream(topic, settings.kafka, start="beginning") as stream:
        assert list(stream.past()) == []
    transaction = Transaction(settings)
    transaction.open(topic, [alert(1)])
    transaction.commit()
    transaction.open(topic, [alert(2)])
    transaction.abort()
    with Stream(topic, settings.kafka, start="beginning") as stream:
        assert offsets(list(stream.past())) == {1}
