"""A worker's start on real servers: warm before it joins its group, and once there is what it stands on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker import service
from broker.assemble import prepare
from broker.bench import start as bench_start
from broker.config import Settings
from broker.errors import BrokerError
from broker.service import Worker
from broker.slots import take_slot
from broker.supervisor import Supervisor


def test_a_worker_joins_once_it_is_warm_and_everything_is_there(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, run=replace(settings.run, group=f"start-{uuid4().hex}"))
    done: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(service, name)

        def call(*args: Any) -> Any:
            done.append(name)
            return real(*args)

        return call

    for name in ("warm_up", "RedisStore", "ControlTail", "KafkaOutput", "KafkaInput"):
        monkeypatch.setattr(service, name, noting(name))

    def wait() -> None:
        done.append("wait")
        prepare(settings)

    slot = take_slot(tmp_path, settings.run.group)
    Worker(settings, slot, lambda: "join" in done, wait, done.append).run()
    before = ["load", "warm_up", "warm_up", "wait"]
    inputs = ["KafkaInput", "KafkaInput"]  # of alerts, and of annotations
    assert done == [*before, "RedisStore", "ControlTail", "KafkaOutput", "state", *inputs, "join"]


def test_a_worker_that_is_stopped_while_it_waits_touches_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(service, "RedisStore", None)
    Worker(settings, take_slot(tmp_path, "any"), stopping.is_set, stopping.set).run()
    assert stopping.is_set()


def test_a_run_that_cannot_be_prepared_leaves_no_worker(settings: Settings, tmp_path: Path) -> None:
    def refuse() -> None:
        raise BrokerError("no such cluster")

    settings = replace(settings, run=replace(settings.run, workers=2))
    settings = replace(settings, metrics=replace(settings.metrics, port=0))
    supervisor = Supervisor(settings, tmp_path, prepare=refuse)
    with pytest.raises(BrokerError, match="no such cluster"):
        supervisor.run()
    assert [child.process.exitcode for child in supervisor.fleet.children] == [-9, -9]


def test_each_part_of_a_start_is_measured(settings: Settings, tmp_path: Path) -> None:
    prepare(settings)
    said: list[str] = []
    result = bench_start.measure(settings, tmp_path, repeats=1, cold=False, say=said.append)
    assert list(result.steps) == list(bench_start.STEPS)
    assert all(seconds > 0.0 for seconds in result.steps.values())
    assert result.ready == pytest.approx(sum(result.steps.values()) - result.steps["join"])
    assert result.run > result.steps["join"]
    assert len(said) == 2, "one start that does not count, and one that does"


def test_a_worker_that_dies_in_its_start_is_an_error(settings: Settings, tmp_path: Path) -> None:
    broken = replace(settings, run=replace(settings.run, model=str(tmp_path / "nowhere")))
    with pytest.raises(BrokerError, match="ended in its start"):
        bench_start.measure(broken, tmp_path, repeats=1, cold=False, say=lambda _: None)
