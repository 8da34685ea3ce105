"""Counts what filters cost, and pauses or samples one that costs too much; no batch waits for it.

A worker hands over what each committed batch came to. A thread adds the hits to the whole fleet's sums of the
hour in Redis, and writes the new state of a filter that is over its budget to `control`, from where it takes
effect between batches, for all workers alike. A count that is lost only makes a budget more lenient.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import redis

from broker import control
from broker.config import Settings
from broker.control.lock import alone
from broker.control.topic import ControlTail, ControlWriter
from broker.errors import BrokerError
from broker.filter import Filter
from broker.filters import budgets
from broker.filters.budgets import Change, CostWindow
from broker.history.soundness import ASIDE, ASIDE_S
from broker.kafka.topics import NOTICES
from broker.metrics import BUDGET_MISSED
from broker.publish.packets import encode_record
from broker.publish.records import NOTICE_SCHEMA

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""Seconds between two looks at the sums."""
_DAMAGED = ("WRONGTYPE", "hash value is not an integer", "increment or decrement would overflow")
"""What Redis answers where a sum of hits is none."""
_KEPT_S = 2 * budgets.HOUR_S
"""Seconds for which an hour's sums live."""


@dataclass(frozen=True)
class Spent:
    """What a committed batch came to.

    alerts : that were judged;  hits, failures : by filter
    cost_ns : time that each filter took with what is no plain clause
    """

    alerts: int
    hits: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    cost_ns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Serving:
    """A filter that judges, and the control offset since which it is as it is."""

    filter: Filter
    epoch: int


class BudgetKeeper:
    """A worker's part in keeping filters within their budgets.  `note` is cheap and never waits.

    now : the clock [Unix s]
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._settings, self._now = settings, now
        self._redis = redis.Redis.from_url(settings.redis.url, socket_timeout=5, socket_connect_timeout=2)
        self._lock = threading.Lock()
        self._serving: dict[str, _Serving] = {}
        self._hits: Counter[tuple[str, int]] = Counter()
        self._windows: dict[tuple[str, int], CostWindow] = {}
        self._failing: dict[str, tuple[float, int]] = {}
        self._due: dict[tuple[str, int], Change] = {}
        self._writer: ControlWriter | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look at the sums, every EVERY_S."""
        self._thread = threading.Thread(target=self._run, name="budgets", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Count what is left, and end."""
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._redis.close()

    def serve(self, state: control.ControlState) -> None:
        """Watch over the filters of a control state from now on."""
        epochs = state.filter_epochs
        serving = {
            item.full_name: _Serving(item, epochs[item.full_name, item.version])
            for item in state.active_filters()
        }
        live = {(name, it.epoch) for name, it in serving.items()}
        with self._lock:
            self._serving = serving
            self._windows = {key: it for key, it in self._windows.items() if key in live}
            self._due = {key: it for key, it in self._due.items() if key in live}

    def note(self, spent: Spent) -> None:
        """Count a batch that was committed, judged by the filters that are served."""
        now = self._now()
        with self._lock:
            for name, count in spent.hits.items():
                if name in self._serving:
                    self._hits[name, self._serving[name].epoch] += count
            for name, cost_ns in spent.cost_ns.items():
                if name in self._serving:
                    self._note_cost(self._serving[name], cost_ns / 1000, spent.alerts, now)
            if spent.alerts:
                self._note_failures(spent.failures, now)

    def _note_cost(self, serving: _Serving, cost_us: float, alerts: int, now: float) -> None:
        item = serving.filter
        limit = budgets.time_limit_us(item, self._settings.filters)
        window = self._windows.setdefault((item.full_name, serving.epoch), CostWindow())
        if 0 < limit < window.add(cost_us, alerts) and window.typical() > limit:
            change = budgets.over_time(item, window.typical(), limit, now)
            self._due.setdefault((item.full_name, serving.epoch), change)

    def _note_failures(self, failures: Mapping[str, str], now: float) -> None:
        failing = {name: self._failing.get(name, (now, 0)) for name in failures if name in self._serving}
        self._failing = {name: (first, count + 1) for name, (first, count) in failing.items()}
        for name, (first, count) in self._failing.items():
            if count >= budgets.FAILING_BATCHES and now - first >= budgets.FAILING_S:
                serving = self._serving[name]
                change = budgets.always_failing(serving.filter, failures[name], now)
                self._due.setdefault((name, serving.epoch), change)

    def _run(self) -> None:
        while not self._wake.wait(EVERY_S):
            self.look()
        self.look()

    def look(self) -> None:
        """Add up what was counted, and change what is over its budget."""
        try:
            self._look_at_hits()
            self._look_at_the_clock()
            for (name, epoch), change in self.due():
                self._carry_out(name, epoch, change)
        except (redis.RedisError, OSError, BrokerError) as error:
            BUDGET_MISSED.inc()
            self._writer = None  # it may be of no more use
            log.warning("budgets of filters were not looked at: %s", error)
        except Exception:  # nothing that is only watched may end the thread
            BUDGET_MISSED.inc()
            log.exception("budgets of filters could not be looked at")

    def _look_at_hits(self) -> None:
        with self._lock:
            counted, self._hits = self._hits, Counter()
        if not counted:
            return
        now = self._now()
        sums = self._fleet_sums(counted, now)
        with self._lock:
            for (name, epoch), hits in sums.items():
                serving = self._serving.get(name)
                if serving is not None and serving.epoch == epoch:
                    self._judge(serving, hits, now)

    def _fleet_sums(self, counted: Mapping[tuple[str, int], int], now: float) -> dict[tuple[str, int], int]:
        """All workers' hits of this hour, these included.

        A filter's count begins anew with each change of it: one that was resumed has its whole budget.
        """
        key = f"filter-hits:{self._settings.run.group}:{budgets.hour_of(now)}"
        pipe = self._redis.pipeline(transaction=False)
        for (name, epoch), count in counted.items():
            pipe.hincrby(key, f"{name}/{epoch}", count)
        pipe.expire(key, _KEPT_S)
        try:
            return dict(zip(counted, pipe.execute(), strict=False))
        except redis.ResponseError as error:
            if not any(words in str(error) for words in _DAMAGED):
                raise
            return self._begin_anew(key)

    def _begin_anew(self, key: str) -> dict[tuple[str, int], int]:
        """Set damaged sums of this hour aside: they begin anew, which pauses no filter too early."""
        aside = ASIDE.decode() + key
        with suppress(redis.ResponseError):  # another worker was faster
            self._redis.rename(key, aside)
            self._redis.expire(aside, ASIDE_S)
        BUDGET_MISSED.inc()
        log.warning("the hits of filters in this hour are counted anew: %s was damaged, see %s", key, aside)
        return {}

    def _judge(self, serving: _Serving, hits: int, now: float) -> None:
        item, settings = serving.filter, self._settings.filters
        change = budgets.over_hits(item, hits, budgets.hits_limit(item, settings), _since(item), now)
        if change is not None:
            self._due.setdefault((item.full_name, serving.epoch), change)

    def _look_at_the_clock(self) -> None:
        now = self._now()
        with self._lock:
            for name, serving in self._serving.items():
                if serving.filter.sample < 1 and (change := budgets.restored(serving.filter, now)):
                    self._due[name, serving.epoch] = change

    def due(self) -> list[tuple[tuple[str, int], Change]]:
        """Changes that are to be written, by filter and the control offset since which it is as it is."""
        with self._lock:
            return list(self._due.items())

    def _carry_out(self, name: str, epoch: int, change: Change) -> None:
        """Write a change unless somebody was faster: under the lock, and only if the filter is as it was."""
        with alone(self._redis):
            with ControlTail(self._settings.kafka) as tail:
                state = tail.catch_up()
            item = state.filters_in_force().get(name)
            if item is not None and state.filter_epochs[name, item.version] == epoch:
                self._writer = self._writer or ControlWriter(self._settings.kafka)
                self._writer.write(*control.filter_record(change.filter))
                log.warning("%s", change.text)
                self._tell(change)
        with self._lock:
            self._due.pop((name, epoch), None)

    def _tell(self, change: Change) -> None:
        """The notice, for people and in the filter's own stream."""
        assert self._writer is not None
        item = change.filter
        notice = encode_record(
            NOTICE_SCHEMA,
            {
                "owner": item.owner,
                "subject": item.full_name,
                "kind": change.kind,
                "text": change.text,
                "at": int(self._now() * 1000),
            },
        )
        for topic in (NOTICES, item.topic):
            try:
                self._writer.send(topic, item.owner.encode(), notice)
            except BrokerError as error:  # the state counts, and it is written
                log.warning("no notice of it: %s", error)


def _since(item: Filter) -> float:
    """When a filter took its present state [Unix s]; 0 if that is not known."""
    return datetime.fromisoformat(item.changed_at).timestamp() if item.changed_at else 0.0
