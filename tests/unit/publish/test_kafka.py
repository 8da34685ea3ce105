"""How the output answers its client, by a stand-in that says what a real Kafka cannot be brought to say."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.config import KafkaSettings
from broker.errors import BrokerError, RetryBatch, WorkerFenced
from broker.message import Packet
from broker.publish import kafka
from broker.publish.kafka import DeliveryFailed, KafkaOutput

BATCH = [Packet("t", b"%d" % number, b"value") for number in range(10)]


class Metadata:
    def __init__(self, **counts: int) -> None:
        topics = {
            name: type("T", (), {"error": None, "partitions": dict.fromkeys(range(n))})
            for name, n in counts.items()
        }
        self.topics = topics


class Told:
    """A record as its report names it."""

    def __init__(self, topic: str, partition: int, offset: int | None) -> None:
        self._all = topic, partition, offset

    def topic(self) -> str:
        return self._all[0]

    def partition(self) -> int:
        return self._all[1]

    def offset(self) -> int | None:
        return self._all[2]


class Client:
    """A producer that does as it is told.

    fail : what the next call of a name raises, once;  reports : (error, offset) of the next records
    log_lines : what it writes to its log with the next call of a name
    """

    def __init__(self, options: dict[str, Any], logger: Any) -> None:
        self.logger, self.options = logger, options
        self.calls: list[str] = []
        self.fail: dict[str, KafkaError] = {}
        self.reports: list[tuple[KafkaError | None, int | None]] = []
        self.log_lines: dict[str, tuple[str, str]] = {}
        self.waiting: list[Any] = []
        self.sent: list[tuple[int, bytes]] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.log_lines:
            facility, said = self.log_lines.pop(name)
            self.logger.log(logging.INFO, "%s [%s] %s", facility, "me", said)
        if name in self.fail:
            raise KafkaException(self.fail.pop(name))

    def init_transactions(self, _: float) -> None:
        self._called("init")

    def begin_transaction(self) -> None:
        self._called("begin")

    def produce(
        self, topic: str, value: bytes, key: bytes, *, partition: int, headers: Any, on_delivery: Any
    ) -> None:
        self._called("produce")
        self.sent.append((partition, key))
        self.waiting.append((topic, partition, on_delivery))

    def poll(self, _: float) -> int:
        waiting, self.waiting = self.waiting, []
        for topic, partition, report in waiting:
            error, offset = self.reports.pop(0) if self.reports else (None, len(self.sent))
            report(error, Told(topic, max(partition, 0), offset))
        return 0

    def flush(self, _: float) -> int:
        self._called("flush")
        return self.poll(0)

    def send_offsets_to_transaction(self, *_: Any) -> None:
        self._called("offsets")

    def commit_transaction(self, _: float) -> None:
        self._called("commit")

    def abort_transaction(self, _: float) -> None:
        self._called("abort")

    def purge(self) -> None:
        self._called("purge")

    def list_topics(self, *_: Any, timeout: float) -> Metadata:
        return Metadata(t=2)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    made: list[Client] = []

    def make(options: dict[str, Any], logger: Any) -> Client:
        made.append(Client(options, logger))
        return made[-1]

    monkeypatch.setattr(kafka, "Producer", make)
    monkeypatch.setattr(kafka, "_LOOK_S", 0.0)
    return made


def output() -> KafkaOutput:
    return KafkaOutput(KafkaSettings(), "slot")


def steps(client: Client) -> list[str]:
    return [name for name in client.calls if name not in ("produce", "flush", "purge")]


def test_a_batch_goes_out_in_one_transaction_firsts_awaited(clients: list[Client]) -> None:
    made = output()
    made.transact(BATCH, [([], None), ([], None)])
    assert steps(clients[0]) == ["init", "begin", "offsets", "offsets", "commit"]
    calls = [name for name in clients[0].calls if name in ("produce", "flush", "offsets")]
    assert calls[:3] == ["produce", "produce", "flush"], "one record for each of two partitions is awaited"
    assert calls[3:] == ["produce"] * 8 + ["flush", "offsets", "offsets"]
    made.transact(BATCH, [])
    assert {partition for partition, _ in clients[0].sent[10:]} == {-1}, "settled: the client chooses"
    assert len(clients) == 1


@pytest.mark.parametrize("place", [0, 1, 5, 9])
def test_a_report_without_an_offset_aborts_before_the_offsets_are_sent(
    clients: list[Client], place: int
) -> None:
    made = output()
    clients[0].reports = [(None, 5)] * place + [(None, None)]
    with pytest.raises(RetryBatch, match="nowhere"):
        made.transact(BATCH, [([], None)])
    assert steps(clients[0]) == ["init", "begin", "abort"]
    made.settle()
    made.transact(BATCH, [([], None)])
    assert steps(clients[-1])[-3:] == ["begin", "offsets", "commit"]


@pytest.mark.parametrize("when", ["begin", "flush", "offsets", "commit"])
def test_a_connection_that_broke_has_the_client_replaced_before_the_next_batch(
    clients: list[Client], when: str
) -> None:
    made = output()
    clients[0].log_lines[when] = ("FAIL", "1/1: Disconnected: closed by peer (after 9ms in state UP)")
    made.transact(BATCH, [([], None)])
    assert steps(clients[0])[-1] == "commit", "it went well for all that"
    made.transact(BATCH, [([], None)])
    assert len(clients) == 2
    assert steps(clients[1]) == ["init", "begin", "offsets", "commit"]
    assert clients[1].options["transactional.id"] == "slot"


def test_a_server_that_cannot_be_reached_is_no_trouble_while_another_is_there(clients: list[Client]) -> None:
    made = output()
    clients[0].log_lines["flush"] = (
        "FAIL",
        "2/2: Connect to 10.0.0.2 failed: refused (after 0ms in state CONNECT)",
    )
    made.transact(BATCH, [])
    made.transact(BATCH, [])
    assert len(clients) == 1


def test_a_slow_commit_is_trouble(clients: list[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    made = output()
    monkeypatch.setattr(kafka, "_SLOW_END_S", -1.0)
    made.transact(BATCH, [])
    monkeypatch.undo()
    monkeypatch.setattr(
        kafka, "Producer", lambda options, logger: clients.append(Client(options, logger)) or clients[-1]
    )
    made.transact(BATCH, [])
    assert len(clients) == 2


@pytest.mark.parametrize("code", [KafkaError._TIMED_OUT, KafkaError._STATE])
def test_a_commit_of_unknown_outcome_is_settled_by_a_successor(clients: list[Client], code: int) -> None:
    made = output()
    clients[0].fail["commit"] = KafkaError(code)
    with pytest.raises(RetryBatch):
        made.transact(BATCH, [])
    assert steps(clients[0]) == ["init", "begin", "commit"], "an abort could not tell it"
    assert steps(clients[1]) == ["init"]
    made.settle()
    assert len(clients) == 2, "settled already"


def test_an_abort_right_after_begin_that_is_refused_renews(clients: list[Client]) -> None:
    made = output()
    clients[0].fail = {
        "offsets": KafkaError(KafkaError.INVALID_TXN_STATE),
        "abort": KafkaError(KafkaError.INVALID_TXN_STATE),
    }
    with pytest.raises(RetryBatch):
        made.transact(BATCH, [([], None)])
    made.settle()
    made.transact(BATCH, [([], None)])
    assert [steps(client) for client in clients] == [
        ["init", "begin", "offsets", "abort"], ["init", "begin", "offsets", "commit"],
    ]  # fmt: skip


def test_what_cannot_be_replaced_is_waited_for_and_not_begun(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = output()
    clients[0].fail = {"commit": KafkaError(KafkaError._TIMED_OUT)}
    refuse = {"init": KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED)}

    def make(options: dict[str, Any], logger: Any) -> Client:
        clients.append(Client(options, logger))
        clients[-1].fail = dict(refuse)
        return clients[-1]

    monkeypatch.setattr(kafka, "Producer", make)
    with pytest.raises(RetryBatch, match="not be replaced"):
        made.transact(BATCH, [])
    with pytest.raises(RetryBatch, match="not be replaced"):
        made.settle()
    with pytest.raises(RetryBatch):
        made.transact(BATCH, [])
    assert all("begin" not in client.calls for client in clients[1:])
    refuse.clear()
    with pytest.raises(RetryBatch):
        made.transact(BATCH, [])  # polled from positions that were open
    made.transact(BATCH, [])


@pytest.mark.parametrize("call", ["begin", "produce", "flush", "offsets", "commit", "abort"])
@pytest.mark.parametrize("code", [-150, -144, 47, 90, 82])
def test_a_client_that_failed_for_good_ends_the_worker(clients: list[Client], call: str, code: int) -> None:
    made = output()
    clients[0].fail[call] = KafkaError(code)
    if call == "abort":
        clients[0].reports = [(None, None)]
    with pytest.raises(WorkerFenced, match="for good"):
        made.transact(BATCH, [([], None)])
    clients[0].fail |= {"purge": KafkaError(-150), "flush": KafkaError(-150)}
    made.close()
    made.close()


def test_a_report_that_a_client_failed_for_good_ends_the_worker(clients: list[Client]) -> None:
    made = output()
    clients[0].reports = [(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH), None)]
    with pytest.raises(WorkerFenced):
        made.transact(BATCH, [])
    with pytest.raises(WorkerFenced):
        made.settle()


@pytest.mark.parametrize("how", ["report", "call"])
def test_a_topic_that_refuses_is_named(clients: list[Client], how: str) -> None:
    made, error = output(), KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    if how == "report":
        clients[0].reports = [(None, 1), (error, None)]
    else:
        clients[0].fail["produce"] = error
    with pytest.raises(DeliveryFailed) as raised:
        made.transact(BATCH, [])
    assert list(raised.value.failures) == ["t"]
    made.settle()
    assert len(clients) == 1, "a refusal leaves nothing under way"


def test_a_topic_that_is_missing_is_named_before_anything_is_sent(clients: list[Client]) -> None:
    made = output()
    with pytest.raises(DeliveryFailed) as raised:
        made.transact([*BATCH, Packet("gone", b"k", b"v")], [])
    assert list(raised.value.failures) == ["gone"]
    assert clients[0].sent == []


def test_an_error_of_ours_leaves_everything_open(clients: list[Client]) -> None:
    made = output()
    with pytest.raises(AttributeError):
        made.transact([*BATCH, None], [])  # type: ignore[list-item]
    made.settle()
    assert len(clients) == 2


def test_a_client_that_has_been_idle_is_replaced(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = output()
    monkeypatch.setattr(kafka, "_IDLE_S", -1.0)
    made.transact(BATCH, [])
    assert [steps(client) for client in clients] == [["init"], ["init", "begin", "commit"]]


def test_a_kafka_that_never_lets_it_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(options: dict[str, Any], logger: Any) -> Client:
        client = Client(options, logger)
        client.fail["init"] = KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED)
        return client

    monkeypatch.setattr(kafka, "Producer", make)
    monkeypatch.setattr(kafka, "_START_PATIENCE_S", 0.0)
    with pytest.raises(BrokerError, match="is Kafka running"):
        output()
