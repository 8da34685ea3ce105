"""Runs that do not stand still: a worker that is fenced, stopped, hung or killed is replaced by the parent.

One Kafka and one Valkey of the module's own. What comes out is judged as in test_faults.py: once, and the
ledger balances. No test asserts a speed; the long form prints how long recoveries took.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from confluent_kafka import Consumer
from faults.test_faults import Stage, workers_of
from harness import Shell, decoded, wait_until

from broker.embedded import owned
from broker.heartbeats import live_workers

BOUND_S = 120.0
"""No recovery takes longer, however busy the machine; how long they take is printed, not asserted."""


class Watched:
    """A run with its parent, its log and its metrics."""

    def __init__(self, stage: Stage, process: subprocess.Popen[bytes], start: int) -> None:
        self.stage, self.parent, self._start = stage, psutil.Process(process.pid), start
        self._beats = redis.Redis.from_url(stage.servers.addresses.redis_url)

    @property
    def log(self) -> str:
        """What the run has said."""
        return (self.stage.shell.folder / "run.log").read_bytes()[self._start :].decode()

    @property
    def workers(self) -> list[psutil.Process]:
        """Its living workers."""
        return workers_of(self.parent)

    def ready(self, count: int) -> bool:
        """Whether so many workers of it are ready."""
        pids = {worker.pid for worker in self.workers}
        return sum(beat.ready and beat.pid in pids for beat in live_workers(self._beats, "broker")) == count

    def figures(self) -> dict[str, float]:
        """Its metrics, by series."""
        (address,) = set(re.findall(r"metrics: (\S+)", self.log))
        with urllib.request.urlopen(address, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[0] != "#")}

    def wait_ready(self, count: int) -> float:
        """Wait until so many workers are ready; the seconds that took."""
        start = time.monotonic()
        wait_until(lambda: self.ready(count), f"{count} workers are ready", BOUND_S)
        return time.monotonic() - start


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("supervision")
    with owned(quiet=True) as servers:
        made = Stage(servers, folder)
        made.shell("run", "--until-idle", "0")
        yield made


@pytest.fixture
def run(stage: Stage) -> Iterator[Callable[[int], Watched]]:
    """Starts a run of some workers, and returns once all are ready; it is ended with the test."""
    running: list[Any] = []

    def start(workers: int) -> Watched:
        log = stage.shell.folder / "run.log"
        size = log.stat().st_size if log.exists() else 0
        block = stage.shell.running("run", "--workers", str(workers))
        process = block.__enter__()
        running.append(block)
        watched = Watched(stage, process, size)
        watched.wait_ready(workers)
        return watched

    yield start
    for block in running:
        block.__exit__(None, None, None)


def test_a_worker_whose_place_is_taken_is_replaced(stage: Stage, run: Callable[[int], Watched]) -> None:
    watched = run(1)
    (before,) = watched.workers
    stage.feed(200)
    options = {
        "bootstrap.servers": stage.bootstrap,
        "group.id": "broker",
        "group.instance.id": f"broker.{re.sub(r'[^A-Za-z0-9._-]', '-', socket.gethostname())}.0",
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }
    with closing(Consumer(options)) as intruder:
        intruder.subscribe(list(stage.settings.run.topics))

        def replaced() -> bool:
            intruder.poll(0.1)
            return before.pid not in {worker.pid for worker in watched.workers} and watched.ready(1)

        wait_until(replaced, "another worker has taken its place", BOUND_S)
    stage.feed(50)
    wait_until(stage.drained, "the backlog is gone")
    stage.check()
    assert "failed for good" in watched.log
    assert watched.figures()['broker_worker_restarts_total{cause="fenced"}'] >= 1


def test_a_worker_that_was_stopped_longer_than_its_session_reads_its_positions_anew(
    stage: Stage, run: Callable[[int], Watched]
) -> None:
    watched = run(2)
    stage.feed(600)
    for _ in range(2):
        victim = watched.workers[0]
        victim.send_signal(signal.SIGSTOP)
        time.sleep(9.0)
        stage.feed(100)
        victim.send_signal(signal.SIGCONT)
        time.sleep(1.0)
    watched.wait_ready(2)
    wait_until(stage.drained, "the backlog is gone")
    stage.check()


def test_a_worker_that_is_stopped_for_good_is_replaced_without_a_person(
    stage: Stage, run: Callable[[int], Watched]
) -> None:
    watched = run(1)
    (victim,) = watched.workers
    victim.send_signal(signal.SIGSTOP)
    stage.feed(100)
    wait_until(lambda: victim.pid not in {it.pid for it in watched.workers}, "it is ended", BOUND_S)
    watched.wait_ready(1)
    wait_until(stage.drained, "the backlog is gone")
    stage.check()
    assert watched.figures()['broker_worker_restarts_total{cause="stuck"}'] == 1
    assert watched.figures()["broker_workers_ready"] == 1
    kinds = [notice["kind"] for notice in decoded(stage.bootstrap, "notices")]
    assert "worker_stuck" in kinds


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_nothing_grows_with_restarts(stage: Stage, run: Callable[[int], Watched], count: int) -> None:
    watched = run(1)

    def killed() -> float:
        (worker,) = watched.workers
        worker.kill()
        start = time.monotonic()
        wait_until(lambda: worker.pid not in {it.pid for it in watched.workers}, "it is gone")
        watched.wait_ready(1)
        return time.monotonic() - start

    for _ in range(2):
        killed()
    before = watched.parent.num_threads(), watched.parent.num_fds()
    memory = watched.parent.memory_info().rss
    took = [killed() for _ in range(count)]
    print(f"\nworker killed {count} times: ready again after {statistics.median(took):.1f} s (median)")
    time.sleep(3.0)
    after = watched.parent.num_threads(), watched.parent.num_fds()
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 3
    assert watched.parent.memory_info().rss < memory + 30 * 2**20
    figures = watched.figures()
    assert figures['broker_worker_restarts_total{cause="signal 9"}'] == count + 2
    assert (figures["broker_workers"], figures["broker_workers_wanted"]) == (1, 1)


def test_a_run_waits_for_servers_that_are_away_at_its_start_and_says_so(stage: Stage) -> None:
    stage.feed(40)
    log = stage.shell.folder / "run.log"
    size = log.stat().st_size if log.exists() else 0
    stage.servers.kill_kafka()
    stage.servers.kill_valkey()
    with stage.shell.running("run", "--until-idle", "1") as process:
        wait_until(
            lambda: "waiting for Redis" in log.read_bytes()[size:].decode(), "it says what it waits for"
        )
        stage.servers.restart_valkey()
        wait_until(
            lambda: "waiting for Kafka" in log.read_bytes()[size:].decode(), "it says what it waits for"
        )
        stage.servers.restart_kafka()
        assert process.wait(BOUND_S) == 0
    stage.check()


def test_a_wrong_setting_ends_a_run_with_exit_code_1_and_the_reason(stage: Stage, tmp_path: Path) -> None:
    shell = Shell(stage.servers.addresses, tmp_path, {"BROKER_RUN_MODEL": str(tmp_path / "nowhere")})
    with shell.running("run") as process:
        assert process.wait(BOUND_S) == 1
    said = (tmp_path / "run.log").read_text().splitlines()
    assert said[-1].startswith("error: a worker died 5 times right after its start")


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_a_run_survives_its_servers(stage: Stage, run: Callable[[int], Watched], rounds: int) -> None:
    watched = run(2)
    pid, took = watched.parent.pid, {"Valkey": [], "Kafka": []}  # type: ignore[var-annotated]
    for _ in range(rounds):
        for name, kill, restart in (
            ("Valkey", stage.servers.kill_valkey, stage.servers.restart_valkey),
            ("Kafka", stage.servers.kill_kafka, stage.servers.restart_kafka),
        ):
            kill()
            time.sleep(3.0)
            restart()
            start = time.monotonic()
            stage.feed(50)
            wait_until(stage.drained, "alerts flow again", BOUND_S)
            took[name].append(time.monotonic() - start)
    for name, seconds in took.items():
        median = statistics.median(seconds)
        print(f"\n{name} back {rounds} times: 50 alerts committed after {median:.1f} s (median)")
    stage.check()
    assert watched.parent.pid == pid
    assert watched.parent.is_running()
    assert json.loads(stage.shell("ledger", "--json"))["balanced"] is True
