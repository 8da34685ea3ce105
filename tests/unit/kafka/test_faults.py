"""What ends a client, and faults that are told once when they begin and once when they are over."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.errors import RetryBatch, WorkerFenced
from broker.kafka.faults import GROUP, LONG_S, ClientFaults, failure, is_fatal, is_refusal

ENDS = [
    *(KafkaError._FATAL, KafkaError._FENCED, KafkaError.FENCED_INSTANCE_ID, KafkaError.PRODUCER_FENCED),
    KafkaError._DESTROY,
]
LASTS = [
    *(KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError.TOPIC_AUTHORIZATION_FAILED),
    *(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._MAX_POLL_EXCEEDED, KafkaError.UNKNOWN_TOPIC_OR_PART),
    *(KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.NOT_LEADER_FOR_PARTITION),
]


class Noted:
    """Faults of one client, at a time of our own, and what was told of them."""

    def __init__(self) -> None:
        self.at = 0.0
        self.counted: list[str] = []
        self.told: list[str] = []
        self.faults = ClientFaults("input", self.counted.append, self.told.append, lambda: self.at)


@pytest.mark.parametrize("code", ENDS)
def test_what_ends_a_client(code: int) -> None:
    assert is_fatal(KafkaError(code))
    assert isinstance(failure("it failed", KafkaException(KafkaError(code))), WorkerFenced)


@pytest.mark.parametrize("code", LASTS)
def test_what_does_not(code: int) -> None:
    assert not is_fatal(KafkaError(code))
    assert isinstance(failure("it failed", KafkaException(KafkaError(code))), RetryBatch)


def test_any_error_ends_it_that_the_client_calls_fatal() -> None:
    assert is_fatal(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "lost", fatal=True))


def test_being_refused_is_not_being_away() -> None:
    assert is_refusal(KafkaError(KafkaError._AUTHENTICATION))
    assert not is_refusal(KafkaError(KafkaError._ALL_BROKERS_DOWN))


def test_a_fault_is_told_once_however_often_it_is_met() -> None:
    noted = Noted()
    for code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        noted.faults.begin(KafkaError(code))
    assert noted.counted == ["_ALL_BROKERS_DOWN"]
    assert noted.faults.trouble
    noted.at = LONG_S
    noted.faults.over()
    noted.faults.over()
    assert (len(noted.told), noted.faults.trouble) == (1, "")


def test_a_short_fault_is_no_news_to_people() -> None:
    noted = Noted()
    noted.faults.begin(KafkaError(KafkaError._TRANSPORT))
    noted.at = LONG_S / 2
    noted.faults.over()
    assert (noted.counted, noted.told) == (["_TRANSPORT"], [])


def test_each_topic_and_the_group_have_faults_of_their_own() -> None:
    noted = Noted()
    noted.faults.begin(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "secret")
    noted.faults.begin(KafkaError(KafkaError._MAX_POLL_EXCEEDED))
    noted.faults.over("other")
    assert len(noted.counted) == 2
    assert noted.faults.trouble.count("input: ") == 2
    noted.faults.over("secret")
    noted.faults.over(GROUP)
    assert noted.faults.trouble == ""
