"""The worker processes of one run: started, waited for, started again, ended."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from broker import worker
from broker.config import Settings
from broker.environment import variable
from broker.run.restarts import Restarts, exit_cause

log = logging.getLogger(__name__)

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_STOP_PATIENCE_S = 30.0


@dataclass
class Child:
    """The process in one place of the fleet, and those before it.

    ended_for : why the parent ended it; empty while it did not
    due : when another is started in its place; None while it lives
    """

    process: BaseProcess
    started: float
    restarts: Restarts = field(default_factory=Restarts)
    quick_deaths: int = 0
    ended_for: str = ""
    due: float | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid


@dataclass(frozen=True)
class Ended:
    """A worker that ended.

    cause : as a metric's label;  pause_s : until another starts in its place
    """

    child: Child
    pid: int
    cause: str
    lived_s: float
    pause_s: float


class Fleet:
    """As many workers as are wanted. All end when this process lets go of them, or dies."""

    def __init__(self, settings: Settings, slots_folder: Path, metrics_folder: str) -> None:
        self._settings, self._slots, self._metrics = settings, slots_folder, metrics_folder
        self._context = multiprocessing.get_context("spawn")
        self._lifeline, self._held = self._context.Pipe(duplex=False)
        self._gate, self._bolt = self._context.Pipe(duplex=False)
        self.children: list[Child] = []
        self.restarts: Counter[str] = Counter()

    def start(self) -> None:
        """Start all; they load and warm up, and use nothing outside themselves until the gate is opened."""
        for _ in range(self._settings.run.workers):
            self.children.append(Child(self._process(), time.monotonic()))

    def open_gate(self) -> None:
        """There is all that a run stands on."""
        self._bolt.close()

    def running(self) -> list[Child]:
        """Those that live, the oldest first."""
        return sorted((child for child in self.children if child.due is None), key=lambda it: it.started)

    def pids(self) -> list[int]:
        """Process ids of those that live, the oldest first."""
        return [child.pid for child in self.running()]

    def ended(self) -> Iterator[Ended]:
        """Those that ended since it was asked before; each will be started again after a pause."""
        for child in self.running():
            if not child.process.is_alive():
                now = time.monotonic()
                cause = child.ended_for or exit_cause(child.process.exitcode)
                self.restarts[cause] += 1
                lived = now - child.started
                pause = child.restarts.pause_after(lived)
                child.due = now + pause
                yield Ended(child, child.pid, cause, lived, pause)

    def start_due(self) -> None:
        """Start those again whose pause is over; a process that cannot be started is tried later."""
        now = time.monotonic()
        for child in self.children:
            if child.due is None or now < child.due:
                continue
            try:
                process = self._process()
            except OSError as error:  # no memory, no free process: both may pass
                child.due = now + child.restarts.pause_after(0.0)
                log.error("a worker cannot be started: %s; trying again", error)
                continue
            before, child.process = child.process, process
            child.started, child.ended_for, child.due = now, "", None
            before.close()

    def end(self, pid: int, cause: str) -> None:
        """End one at once, whatever it does: its batch is not committed."""
        for child in self.running():
            if child.pid == pid:
                child.ended_for = cause
                child.process.kill()

    def end_all(self) -> None:
        """End all at once, before they have begun: nothing is lost by not asking them."""
        for child in self.running():
            child.process.kill()

    def wait(self, seconds: float) -> None:
        """Return after a while, or as soon as a worker ended."""
        living = [child.process.sentinel for child in self.running()]
        if living:
            wait(living, seconds)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """Let go, and wait for workers to finish their batch; one that does not is killed, uncommitted."""
        self._held.close()
        deadline = time.monotonic() + _STOP_PATIENCE_S
        for child in self.children:
            child.process.join(max(0.0, deadline - time.monotonic()))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
        _close(self._lifeline, self._gate, self._bolt)

    def _process(self) -> BaseProcess:
        ends = self._lifeline, self._gate
        process = self._context.Process(target=worker.main, args=(self._settings, self._slots, *ends))
        with self._countable():
            process.start()
        return process

    def _countable(self) -> AbstractContextManager[None]:
        """The metrics' folder as there now; a worker must not die because it cannot be counted in."""
        try:
            os.makedirs(self._metrics, exist_ok=True)  # it is temporary, and some machines clean such up
            with tempfile.TemporaryFile(dir=self._metrics):
                return nullcontext()
        except OSError as error:
            log.warning(
                "the metrics of a worker are not counted: %s cannot be written: %s", self._metrics, error
            )
            return variable(METRICS_FOLDER, None)


def _close(*ends: Connection) -> None:
    for end in ends:
        end.close()
