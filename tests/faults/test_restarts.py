"""One run, and what is around it coming and going: Kafka five times, its slots taken, the wire frozen."""

from __future__ import annotations

from pathlib import Path

from chaos.schedule import Step
from chaos.trial import under_fire
from kafka_proxy import servers_behind_proxy


def test_one_run_outlives_five_restarts_of_kafka(tmp_path: Path) -> None:
    with servers_behind_proxy() as (servers, proxy):
        under_fire(servers, proxy, tmp_path, [Step("kill_kafka", 1.0)] * 5, alerts=1000)


def test_fenced_slots_and_a_frozen_wire(tmp_path: Path) -> None:
    steps = [Step("fence_producers"), Step("freeze", 10.0), Step("fence_members"), Step("fence_producers")]
    with servers_behind_proxy() as (servers, proxy):
        under_fire(servers, proxy, tmp_path, steps, alerts=1000)
