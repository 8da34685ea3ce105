"""Who is alive and which control epoch each has reached: a hash in Redis, one field a worker slot."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import redis

FRESH_S = 5.0
_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Heartbeat:
    """What a worker says of itself.

    models, shadows : id:version of the bundle that scores each group of surveys, or scores it beside
    at : Redis server time [Unix s]
    """

    slot: str
    epoch: int
    ready: bool
    pid: int
    at: float = 0.0
    models: Mapping[str, str] = field(default_factory=dict)
    shadows: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> Heartbeat:
        """From what a worker wrote; what one of a later version says besides is ignored."""
        said = json.loads(text)
        return cls(**{item.name: said[item.name] for item in fields(cls) if item.name in said})


class HeartbeatSender:
    """Writes a worker's heartbeat each second and at every change, from a thread of its own.

    Redis being away is not an error here: the batch loop finds out for itself.
    """

    def __init__(self, url: str, group: str, beat: Callable[[], Heartbeat]) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
        self._name = _name(group)
        self._beat = beat
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def now(self) -> None:
        """Something changed: say so at once."""
        self._wake.set()

    def stop(self) -> None:
        """Stop, and take this worker off the list."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout=5)
        try:
            self._redis.hdel(self._name, self._beat().slot)
        except redis.RedisError:
            return
        finally:
            self._redis.close()

    def _run(self) -> None:
        while not self._stop:
            try:
                beat = asdict(self._beat()) | {"at": _server_time(self._redis)}
                self._redis.hset(self._name, str(beat["slot"]), json.dumps(beat))
            except (redis.RedisError, OSError):
                pass
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()


def live_workers(client: Any, group: str) -> list[Heartbeat]:
    """The workers whose last heartbeat is fresh.  Raises redis.RedisError."""
    now = _server_time(client)
    beats = [Heartbeat.from_json(value) for value in client.hgetall(_name(group)).values()]
    return sorted((beat for beat in beats if now - beat.at < FRESH_S), key=lambda beat: beat.slot)


def wait_for_epoch(client: Any, group: str, epoch: int, timeout_s: float) -> tuple[int, int]:
    """Wait until every live worker has reached an epoch: (how many have, how many live)."""
    deadline = time.monotonic() + timeout_s
    while True:
        workers = live_workers(client, group)
        reached = sum(beat.epoch >= epoch for beat in workers)
        if reached == len(workers) or time.monotonic() > deadline:
            return reached, len(workers)
        time.sleep(0.02)


def _server_time(client: Any) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6


def _name(group: str) -> str:
    return f"workers:{group}"
