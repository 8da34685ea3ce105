"""The parent of a run: starts workers, replaces those that die or hang, serves metrics, sees the end."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from broker.archive_process import ArchiveChild
from broker.config import Settings
from broker.environment import variable
from broker.errors import BrokerError
from broker.heartbeats import heartbeats
from broker.kafka.clients import PartitionKey
from broker.kafka.lag import Backlog
from broker.metrics_server import DriftGauge, FleetFigures, MetricsServer
from broker.run.availability import Availability, kafka_trouble, redis_trouble
from broker.run.bulletin import Bulletin
from broker.run.fleet import METRICS_FOLDER, Ended, Fleet
from broker.run.lookout import Lookout
from broker.run.restarts import STUCK, Repetition
from broker.run.stalls import END_S, STALLED_S, Stalls, culprit
from broker.run.vitals import Vitals

log = logging.getLogger(__name__)

_TICK_S = 0.25
_LAG_EVERY_S = 1.0
_LAG_FRESH_S = 3.0
_STALLS_EVERY_S = 5.0
_DRIFT_EVERY_S = 15.0
_WAIT_S = 1.0
_SAY_EVERY_S = 30.0
_PREPARE_TRIES = 5
_QUICK_DEATH_S = 10.0
_MAX_QUICK_DEATHS = 5
_SLOW_START_S = 15.0
_NEXT_END_S = 60.0
"""A worker that was ended for a partition that stands still: another gets so long to move it."""


@dataclass
class Supervisor:
    """Runs the workers of one `broker run`.

    until_idle_s : end once the input has been used up for this long; None = run until told to stop
    prepare : makes what a run stands on, called while the workers load and warm up
    on_start : called once, with the metrics endpoint;  on_tick : called often

    What asks Kafka or Redis does so in threads of its own: however slow they are, a worker that ends is
    replaced at once.
    """

    settings: Settings
    slots_folder: Path
    until_idle_s: float | None = None
    prepare: Callable[[], None] = lambda: None
    on_start: Callable[[MetricsServer], None] = lambda _: None
    on_tick: Callable[[], None] = lambda: None
    lag: dict[tuple[str, int], int] = field(default_factory=dict)
    drift: list[DriftGauge] = field(default_factory=list)
    _stop: bool = False
    _lag_at: float = 0.0
    _lag_seen: float = 0.0
    _stalls_at: float = 0.0
    _drift_at: float = 0.0
    _unready_at: float = 0.0
    _next_end: float = 0.0
    _slow_at: float = field(default_factory=lambda: time.monotonic() + _SLOW_START_S)
    _idle_since: float | None = None

    def __post_init__(self) -> None:
        self._bulletin = Bulletin(self.settings.kafka)
        self._kafka = Availability("Kafka", lambda text: self._bulletin.tell("kafka", "kafka_away", text))
        self._redis = Availability("Redis", lambda text: self._bulletin.tell("redis", "redis_away", text))
        self._repetition = Repetition()
        self._vitals, self._stalls, self._seen = Vitals(), Stalls(), threading.Lock()
        self._stalled: frozenset[PartitionKey] = frozenset()

    def run(self) -> None:
        """Work until stopped or idle.

        Raises BrokerError when a worker keeps dying at its start before any has worked, or when the cluster
        refuses what a run stands on. Once a worker has worked, no fault ends the run.
        """
        with ExitStack() as ends:
            temporary = tempfile.TemporaryDirectory(prefix="broker-metrics-", ignore_cleanup_errors=True)
            folder = ends.enter_context(temporary)
            ends.enter_context(variable(METRICS_FOLDER, folder))
            to_the_end = lambda: self.until_idle_s is not None and not self._stop  # noqa: E731
            archive = ends.enter_context(ArchiveChild(self.settings, to_the_end))
            ends.enter_context(self._bulletin)
            server = MetricsServer(
                self.settings.metrics, folder, lambda: self.lag, lambda: self.drift, self.figures
            )
            ends.callback(server.close)
            self.fleet = Fleet(self.settings, self.slots_folder, folder)
            ends.callback(self.fleet.close)
            self.fleet.start()
            self._prepare()
            self.fleet.open_gate()
            self.on_start(server)
            self._watch(server, archive)

    def stop(self) -> None:
        """Ask for the end: every worker finishes its batch."""
        self._stop = True

    def worker_pids(self) -> list[int]:
        """Process ids of the workers as they are now."""
        return self.fleet.pids()

    def figures(self) -> FleetFigures:
        """The workers as they are now, for /metrics."""
        pids = self.fleet.pids()
        with self._seen:
            ready = self._vitals.ready(pids, time.monotonic())
        restarts = dict(self.fleet.restarts)
        return FleetFigures(self.settings.run.workers, len(pids), len(ready), restarts, len(self._stalled))

    def _prepare(self) -> None:
        try:
            tries = _PREPARE_TRIES if self._await_servers() else 1
            while not self._stop:
                try:
                    return self.prepare()
                except BrokerError:
                    tries -= 1
                    if self._await_servers():
                        tries = _PREPARE_TRIES
                    elif not tries:
                        raise
                    time.sleep(_WAIT_S)
        except BaseException:
            self.fleet.end_all()
            raise

    def _await_servers(self) -> bool:
        """Wait until Kafka and Redis answer, saying what is waited for; whether that took any waiting.

        Raises BrokerError when one of them refuses us.
        """
        waited, say_at = False, 0.0
        while not self._stop and (why := self._server_trouble()):
            if time.monotonic() >= say_at:
                log.warning("waiting for %s", why)
                say_at = time.monotonic() + _SAY_EVERY_S
            waited = True
            time.sleep(_WAIT_S)
        return waited

    def _server_trouble(self) -> str:
        if why := redis_trouble(self.settings.redis):
            return f"Redis: {why}"
        why = kafka_trouble(self.settings.kafka)
        return f"Kafka: {why}" if why else ""

    def _watch(self, server: MetricsServer, archive: ArchiveChild) -> None:
        run = self.settings.run
        behind = Backlog(self.settings.kafka, run.group, run.topics)
        beats = redis.Redis.from_url(self.settings.redis.url, socket_timeout=2, socket_connect_timeout=2)
        with (
            beats,
            behind,
            Lookout("backlog", _TICK_S, lambda: self._look_at_kafka(behind, server)),
            Lookout("heartbeats", _TICK_S, lambda: self._look_at_redis(beats)),
        ):
            while not self._stop:
                for ended in self.fleet.ended():
                    self._take_note(ended, server)
                self.fleet.start_due()
                self._end_the_stuck()
                self._look_at_repetition()
                self._say_if_slow()
                archive.look()
                if self.until_idle_s is not None and self._idle_long_enough():
                    return
                self.on_tick()
                self.fleet.wait(_TICK_S)

    def _say_if_slow(self) -> None:
        """A first start takes minutes on a slow machine: say so, once."""
        if self._slow_at and time.monotonic() > self._slow_at:
            self._slow_at = 0.0
            if not self._vitals.ever_ready:
                log.warning("no worker is ready yet: the first start on a machine compiles for some minutes")

    def _take_note(self, ended: Ended, server: MetricsServer) -> None:
        server.forget(ended.pid)
        again = f"starting another in {ended.pause_s:.1f} s"
        log.warning("worker %d ended after %.1f s: %s; %s", ended.pid, ended.lived_s, ended.cause, again)
        self._repetition.note(time.monotonic())
        if self._vitals.ever_ready or self._kafka.why or self._redis.why:
            return
        child = ended.child
        child.quick_deaths = child.quick_deaths + 1 if ended.lived_s < _QUICK_DEATH_S else 0
        if child.quick_deaths >= _MAX_QUICK_DEATHS and not self._await_servers():
            raise BrokerError(
                f"a worker died {child.quick_deaths} times right after its start ({ended.cause}); "
                "it said why above"
            )

    def _look_at_repetition(self) -> None:
        now = time.monotonic()
        if self._repetition.begins(now):
            causes = ", ".join(f"{count} x {cause}" for cause, count in self.fleet.restarts.items())
            self._tell("workers", "workers_restarting", f"workers end again and again: {causes}")
        if self._repetition.ends(now):
            self._tell("workers", "workers_steady", "no worker has ended for two minutes")

    def _end_the_stuck(self) -> None:
        """End each worker that nothing else would: another takes its place, its batch is done again."""
        now, answering = time.monotonic(), min(self._kafka.answering_s, self._redis.answering_s)
        for child in self.fleet.running():
            with self._seen:
                why = self._vitals.why_stuck(child.pid, now - child.started, answering, now)
            if why and not child.ended_for:
                self._end(child.pid, why)
        if answering and now >= self._next_end and (pid := self._stalling(now)) is not None:
            self._next_end = now + _NEXT_END_S
            self._end(pid, "a partition that it should read stands still")

    def _end(self, pid: int, why: str) -> None:
        self._tell("workers", "worker_stuck", f"worker {pid} was ended: {why}")
        self.fleet.end(pid, STUCK)

    def _stalling(self, now: float) -> int | None:
        pids = self.fleet.pids()
        with self._seen:
            stalled = self._stalls.longer_than(END_S, now)
            ours = [beat for beat in self._vitals.of(pids) if not beat.starting]
            others = [beat for beat in self._vitals.beats if beat.pid not in pids]
        beat = culprit(stalled, ours, others)
        return None if beat is None else beat.pid

    def _look_at_kafka(self, behind: Backlog, server: MetricsServer) -> None:
        self._look_at_lag(behind)
        if self._kafka.why or not self._vitals.ever_ready:  # nobody could have moved them
            with self._seen:
                self._stalls.forget()
        elif time.monotonic() - self._stalls_at >= _STALLS_EVERY_S:
            self._stalls_at = time.monotonic()
            self._look_at_stalls(behind.positions, server)

    def _look_at_lag(self, behind: Backlog) -> None:
        if time.monotonic() - self._lag_at < _LAG_EVERY_S:
            return
        self._lag_at = time.monotonic()
        try:
            self.lag = behind.look()
        except Exception as error:  # the cluster is away: the workers wait for it, and so do we
            self._kafka.silent(str(error))
            self._idle_since = None
            return
        self._kafka.answers()
        self._lag_seen = time.monotonic()
        if any(self.lag.values()):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()

    def _look_at_stalls(self, positions: Mapping[PartitionKey, int], server: MetricsServer) -> None:
        lag = {key: records for key, records in self.lag.items() if records}
        waiting = _waiting_for_schemas(server)  # which asks for our figures too, and so needs the lock
        now = time.monotonic()
        with self._seen:
            self._stalls.look(positions, lag, waiting, now)
            stalled = frozenset(self._stalls.longer_than(STALLED_S, now))
        for topic, number in sorted(stalled - self._stalled):
            text = f"stands still at {positions.get((topic, number), 0)}, {lag[topic, number]} records wait"
            self._tell(f"{topic}[{number}]", "stream_stalled", f"{topic}[{number}] {text}")
        for topic, number in sorted(self._stalled - stalled):
            self._tell(f"{topic}[{number}]", "stream_moves", f"{topic}[{number}] moves again")
        self._stalled = stalled

    def _look_at_redis(self, client: Any) -> None:
        try:
            server_now, beats = heartbeats(client, self.settings.run.group)
        except (redis.RedisError, OSError) as error:
            return self._redis.silent(str(error))
        self._redis.answers()
        with self._seen:
            self._vitals.look(server_now, beats, self.fleet.pids(), time.monotonic())
        self._look_at_drift(client)

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

    def _idle_long_enough(self) -> bool:
        """No backlog for `until_idle_s`, counted from when every worker had joined the group."""
        now, since = time.monotonic(), self._idle_since
        if not self._all_ready(now):
            self._unready_at = now
        if since is None or now - self._lag_seen > _LAG_FRESH_S:
            return False
        return self._unready_at < now and now - max(since, self._unready_at) >= (self.until_idle_s or 0.0)

    def _all_ready(self, now: float) -> bool:
        pids = self.fleet.pids()
        with self._seen:
            return len(self._vitals.ready(pids, now)) == self.settings.run.workers

    def _tell(self, subject: str, kind: str, text: str) -> None:
        log.warning("%s", text)
        self._bulletin.tell(subject, kind, text)


def _waiting_for_schemas(server: MetricsServer) -> set[PartitionKey]:
    """The partitions that workers hold until a registry tells a schema."""
    return {
        (sample.labels["topic"], int(sample.labels["partition"]))
        for sample in server.samples()
        if sample.name == "broker_partition_paused" and sample.value
    }
