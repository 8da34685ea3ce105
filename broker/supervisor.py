"""The parent of a run: starts workers, replaces those that die, serves their metrics, sees the end."""

from __future__ import annotations

import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import redis

from broker import worker
from broker.archive_process import ArchiveChild
from broker.config import Settings
from broker.environment import variable
from broker.errors import BrokerError
from broker.heartbeats import live_workers
from broker.kafka.lag import Backlog
from broker.metrics_server import DriftGauge, MetricsServer

log = logging.getLogger(__name__)

_TICK_S = 0.25
_LAG_EVERY_S = 1.0
_DRIFT_EVERY_S = 15.0
_RESTART_PAUSE_S = 0.5
_STOP_PATIENCE_S = 30.0
_QUICK_DEATH_S = 10.0
_MAX_QUICK_DEATHS = 5


@dataclass
class _Child:
    process: BaseProcess
    started: float
    quick_deaths: int = 0


@dataclass
class Supervisor:
    """Runs the workers of one `broker run`.

    until_idle_s : end once the input has been used up for this long; None = run until told to stop
    prepare : makes what a run stands on, called while the workers load and warm up
    on_start : called once, with the metrics endpoint;  on_tick : called often
    """

    settings: Settings
    slots_folder: Path
    until_idle_s: float | None = None
    prepare: Callable[[], None] = lambda: None
    on_start: Callable[[MetricsServer], None] = lambda _: None
    on_tick: Callable[[], None] = lambda: None
    lag: dict[tuple[str, int], int] = field(default_factory=dict)
    drift: list[DriftGauge] = field(default_factory=list)
    restarts: int = 0
    _children: list[_Child] = field(default_factory=list)
    _stop: bool = False
    _lag_at: float = 0.0
    _drift_at: float = 0.0
    _idle_since: float | None = None

    def run(self) -> None:
        """Work until stopped or idle.  Raises BrokerError when workers keep dying at their start."""
        with (
            tempfile.TemporaryDirectory(prefix="broker-metrics-") as folder,
            variable("PROMETHEUS_MULTIPROC_DIR", folder),
            ArchiveChild(self.settings, lambda: self.until_idle_s is not None and not self._stop) as archive,
            Backlog(self.settings.kafka, self.settings.run.group, self.settings.run.topics) as self._behind,
        ):
            context = multiprocessing.get_context("spawn")
            lifeline, held = context.Pipe(duplex=False)
            gate, bolt = context.Pipe(duplex=False)
            ends = lifeline, gate
            server = MetricsServer(self.settings.metrics, folder, lambda: self.lag, lambda: self.drift)
            try:
                self._children = [self._start(context, ends, 0) for _ in range(self.settings.run.workers)]
                self._prepare()
                bolt.close()
                self.on_start(server)
                self._watch(context, ends, server, archive)
            finally:
                held.close()
                self._join()
                server.close()

    def stop(self) -> None:
        """Ask for the end: every worker finishes its batch."""
        self._stop = True

    def worker_pids(self) -> list[int]:
        """Process ids of the workers as they are now."""
        return [child.process.pid for child in self._children if child.process.pid is not None]

    def _prepare(self) -> None:
        try:
            self.prepare()
        except BaseException:
            for child in self._children:  # they have not begun: nothing is lost by not asking them
                child.process.kill()
            raise

    def _start(self, context: Any, ends: tuple[Connection, Connection], quick_deaths: int) -> _Child:
        process = context.Process(target=worker.main, args=(self.settings, self.slots_folder, *ends))
        process.start()
        return _Child(process, time.monotonic(), quick_deaths)

    def _watch(
        self,
        context: Any,
        ends: tuple[Connection, Connection],
        server: MetricsServer,
        archive: ArchiveChild,
    ) -> None:
        beats = redis.Redis.from_url(self.settings.redis.url, socket_timeout=2, socket_connect_timeout=2)
        while not self._stop:
            for number, child in enumerate(self._children):
                if not child.process.is_alive():
                    server.forget(child.process.pid)
                    self._children[number] = self._replace(context, ends, child)
            archive.look()
            self._look_at_lag()
            self._look_at_drift(beats)
            if self.until_idle_s is not None and self._idle_long_enough(beats):
                return
            self.on_tick()
            time.sleep(_TICK_S)

    def _replace(self, context: Any, ends: tuple[Connection, Connection], child: _Child) -> _Child:
        code = child.process.exitcode
        quick = time.monotonic() - child.started < _QUICK_DEATH_S
        deaths = child.quick_deaths + 1 if quick else 0
        if deaths >= _MAX_QUICK_DEATHS:
            raise BrokerError(f"a worker died {deaths} times right after its start (exit code {code})")
        log.warning("worker %s ended with exit code %s; starting another", child.process.pid, code)
        self.restarts += 1
        time.sleep(_RESTART_PAUSE_S)
        return self._start(context, ends, deaths)

    def _look_at_lag(self) -> None:
        if time.monotonic() - self._lag_at < _LAG_EVERY_S:
            return
        self._lag_at = time.monotonic()
        try:
            self.lag = self._behind.look()
        except Exception as error:  # the cluster is away: the workers wait for it, and so do we
            log.info("cannot see the backlog: %s", error)
            self._idle_since = None
            return
        if any(self.lag.values()):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()

    def _look_at_drift(self, client: Any) -> None:
        if time.monotonic() - self._drift_at < _DRIFT_EVERY_S:
            return
        from broker.drift.look import gauges  # noqa: PLC0415 (heavy: workers start before it is asked for)
        from broker.drift.nights import every_survey  # noqa: PLC0415

        try:
            self.drift = gauges(every_survey(client, self.settings.run.group))
        except (redis.RedisError, OSError) as error:
            log.info("cannot see the nights' counts: %s", error)
        self._drift_at = time.monotonic()

    def _idle_long_enough(self, beats: Any) -> bool:
        """No backlog for `until_idle_s`, counted from when every worker had joined the group."""
        if self._idle_since is None:
            return False
        if not self._all_ready(beats):
            self._idle_since = time.monotonic()
            return False
        return time.monotonic() - self._idle_since >= (self.until_idle_s or 0.0)

    def _all_ready(self, beats: Any) -> bool:
        try:
            ready = {beat.pid for beat in live_workers(beats, self.settings.run.group) if beat.ready}
        except (redis.RedisError, OSError):
            return False
        return set(self.worker_pids()) <= ready

    def _join(self) -> None:
        """Wait for workers to finish their batch; one that does not is killed, its batch uncommitted."""
        deadline = time.monotonic() + _STOP_PATIENCE_S
        for child in self._children:
            child.process.join(max(0.0, deadline - time.monotonic()))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
