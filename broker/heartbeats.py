"""Who is alive and which control epoch each has reached: a hash in Redis, one field a worker slot."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import redis

log = logging.getLogger(__name__)

FRESH_S = 5.0
_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Heartbeat:
    """What a worker says of itself.

    ready : it has joined, and its positions move or there is nothing to read
    models, shadows : id:version of the bundle that scores each group of surveys, or scores it beside
    at : Redis server time [Unix s]
    since : when it last finished a batch, or found nothing to read, by the same clock; 0 where not known.
            What a worker makes of itself has both relative to the time of sending
    trouble : what holds it up, in a few words; empty if nothing does
    starting : it has yet to join, and judges nothing
    owns : the input partitions it was given, as topic[number]
    """

    slot: str
    epoch: int
    ready: bool
    pid: int
    at: float = 0.0
    models: Mapping[str, str] = field(default_factory=dict)
    shadows: Mapping[str, str] = field(default_factory=dict)
    since: float = 0.0
    trouble: str = ""
    starting: bool = False
    owns: Sequence[str] = ()

    @property
    def quiet_s(self) -> float:
        """Seconds since it last got anywhere, when it said so; 0 where it is not known."""
        return max(0.0, self.at - self.since) if self.since else 0.0

    def sent(self, at: float) -> Heartbeat:
        """As it is written down, its times by the clock of the server."""
        return replace(self, at=at + self.at, since=at + self.since)

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
                beat = self._beat().sent(_server_time(self._redis))
                self._redis.hset(self._name, beat.slot, json.dumps(asdict(beat)))
            except (redis.RedisError, OSError):
                pass
            except Exception:  # without this thread a worker that is well would be taken for dead
                log.exception("a heartbeat could not be sent")
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()


def heartbeats(client: Any, group: str) -> tuple[float, list[Heartbeat]]:
    """The server's time [Unix s] and every slot's last heartbeat, however old.  Raises redis.RedisError."""
    now = _server_time(client)
    beats = [_read(value) for value in client.hgetall(_name(group)).values()]
    return now, [beat for beat in beats if beat is not None]


def live_workers(client: Any, group: str) -> list[Heartbeat]:
    """The workers that judge alerts and whose last heartbeat is fresh.  Raises redis.RedisError."""
    now, beats = heartbeats(client, group)
    live = (beat for beat in beats if now - beat.at < FRESH_S and not beat.starting)
    return sorted(live, key=lambda beat: beat.slot)


def _read(text: bytes) -> Heartbeat | None:
    """A heartbeat, None if it is none: what is damaged is written anew within a second."""
    try:
        beat = Heartbeat.from_json(text)
        known = isinstance(beat.slot, str) and isinstance(beat.at, float) and isinstance(beat.epoch, int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return beat if known else None


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
