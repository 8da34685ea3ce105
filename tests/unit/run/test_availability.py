"""Servers that go away and come back: told once each way."""

from __future__ import annotations

import pytest

from broker.config import KafkaSettings, RedisSettings
from broker.embedded.ports import LOOPBACK, free_port
from broker.errors import BrokerError
from broker.run.availability import LONG_S, Availability, kafka_trouble, redis_trouble


def test_an_absence_that_lasts_is_told_when_it_is_over() -> None:
    told: list[str] = []
    at = [0.0]
    server = Availability("Kafka", told.append, lambda: at[0])
    for second in (1.0, 2.0, LONG_S):
        at[0] = second
        server.silent(f"refused at {second:.0f}")
    assert (server.answering_s, server.why) == (0.0, "refused at 1")
    at[0] = 1.0 + LONG_S
    server.answers()
    server.answers()
    assert told == ["Kafka answers again after 5.0 s (refused at 1)"]
    at[0] += 7.0
    assert server.answering_s == 7.0


def test_a_short_one_is_no_notice() -> None:
    told: list[str] = []
    server = Availability("Kafka", told.append, lambda: 0.0)
    server.silent("refused")
    server.answers()
    assert told == []


def test_a_port_where_nobody_listens_is_waited_for_and_a_wrong_address_is_not() -> None:
    port = free_port()
    assert f"{LOOPBACK}:{port}" in kafka_trouble(KafkaSettings(f"{LOOPBACK}:{port}"))
    assert "refused" in redis_trouble(RedisSettings(f"redis://{LOOPBACK}:{port}"))
    with pytest.raises(BrokerError, match=r"see redis\.url"):
        redis_trouble(RedisSettings("http://nowhere"))
