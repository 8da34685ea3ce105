"""The sums by which filters' budgets are judged, in a Redis that somebody else wrote to."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from broker.budget_keeper import BudgetKeeper
from broker.config import Settings
from broker.filters.budgets import hour_of


@pytest.mark.parametrize(
    "damage",
    [
        lambda client, key: client.set(key, b"\xff\x00rubbish"),
        lambda client, key: client.hset(key, "ann.bright/7", b"many"),
        lambda client, key: client.hset(key, "ann.bright/7", 2**63 - 1),
        lambda client, key: client.sadd(key, "x"),
    ],
)
def test_damaged_sums_are_set_aside_once_and_counted_anew(settings: Settings, damage: Any) -> None:
    client, now = redis.Redis.from_url(settings.redis.url), time.time()
    key = f"filter-hits:{settings.run.group}:{hour_of(now)}"
    client.delete(key)
    damage(client, key)
    keeper = BudgetKeeper(settings)
    counted = {("ann.bright", 7): 3}
    try:
        assert keeper._fleet_sums(counted, now) == {}
        assert keeper._fleet_sums(counted, now) == {("ann.bright", 7): 3}
        assert keeper._fleet_sums(counted, now) == {("ann.bright", 7): 6}
        assert client.exists(f"corrupt:{key}")
        assert 0 < client.ttl(f"corrupt:{key}") <= 7 * 86400
    finally:
        client.delete(key, f"corrupt:{key}")
        client.close()
