"""Those who only look on while Kafka is killed: no process dies, and each sees right once it is back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Shell, send, wait_until

from broker.embedded import OwnedServers, owned
from broker.simulate import simulate_ztf

RESTARTS = 3
_LOOK_ON = """
import sys, time
from broker.config import load
from broker.kafka.lag import Backlog, backlog

settings = load({"kafka.bootstrap_servers": sys.argv[1]}, env={})
with Backlog(settings.kafka, "broker", settings.run.topics) as behind:
    for line in sys.stdin:
        for look in (behind.look, lambda: backlog(settings.kafka, "broker", settings.run.topics)):
            try:
                print(sum(look().values()), flush=True)
            except Exception as error:
                print(type(error).__name__, flush=True)
print("closed", flush=True)
"""
"""Answers each line with what it sees, by clients that live long and by new ones."""


class Stage:
    """The servers, an input that was worked on, and processes that look on."""

    def __init__(self, servers: OwnedServers, folder: Path) -> None:
        self.servers = servers
        self.bootstrap = servers.addresses.bootstrap_servers
        self.shell = Shell(servers.addresses, folder)
        self.folder = folder

    def ledger(self) -> int:
        """Exit code of the verb, whatever it says."""
        done = subprocess.run(
            [sys.executable, "-m", "broker", "ledger", "--json"],
            env=self.shell.env, cwd=self.folder, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        return done.returncode


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with owned(quiet=True) as servers:
        made = Stage(servers, tmp_path_factory.mktemp("positions"))
        made.shell("run", "--until-idle", "0")
        send(made.bootstrap, "ztf_replay", [alert.value for alert in simulate_ztf(60, seed=8)])
        made.shell("run", "--until-idle", "1")
        yield made


class LookingOn:
    """A process that looks at the backlog when it is asked."""

    def __init__(self, bootstrap: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOK_ON, bootstrap],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.seen: list[str] = []

    def ask(self) -> list[str]:
        """What it sees by its old clients and by new ones; nothing if it is dead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        answers = [self.process.stdout.readline().strip() for _ in range(2)]
        self.seen += answers
        return answers

    def end(self) -> tuple[str, int]:
        """Let it end by itself: its last words and its exit code."""
        words, _ = self.process.communicate(timeout=60)
        return words.strip(), self.process.returncode


def test_kafka_restarted_under_those_who_look_on(stage: Stage) -> None:
    looking_on = LookingOn(stage.bootstrap)
    over, codes = threading.Event(), list[int]()

    def account() -> None:
        while not over.is_set():
            codes.append(stage.ledger())

    assert looking_on.ask() == ["0", "0"]
    thread = threading.Thread(target=account)
    thread.start()
    try:
        for _ in range(RESTARTS):
            stage.servers.kill_kafka()
            looking_on.ask()
            stage.servers.restart_kafka()
            wait_until(lambda: looking_on.ask() == ["0", "0"], "both see the positions again", 90)
    finally:
        over.set()
        thread.join()
    assert looking_on.end() == ("closed", 0)
    assert "" not in looking_on.seen, "an answer of nothing is a process that died"
    assert codes
    assert set(codes) <= {0, 1}, "killed by a signal"
    assert json.loads(stage.shell("ledger", "--json"))["balanced"]
