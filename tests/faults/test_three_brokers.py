"""Three brokers, three replicas, two in sync: their deaths in turn cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.schedule import Step
from chaos.trial import under_fire
from cluster import three_brokers

_REPLICATED = {"BROKER_TOPICS_REPLICATION": "3"}


def rolling(rounds: int) -> list[Step]:
    """Every broker killed and started again, in turn."""
    return [Step("kill_kafka", 4.0)] * (3 * rounds)


def test_brokers_killed_in_turn(tmp_path: Path) -> None:
    with three_brokers() as cluster:
        under_fire(cluster, None, tmp_path, rolling(1), alerts=1000, extra=_REPLICATED)


@pytest.mark.soak
def test_brokers_killed_in_turn_again_and_again(tmp_path: Path) -> None:
    steps = [step for kill in rolling(10) for step in (kill, Step("kill_worker"), Step("ask_ledger"))]
    with three_brokers() as cluster:
        under_fire(cluster, None, tmp_path, steps, alerts=20_000, extra=_REPLICATED)
