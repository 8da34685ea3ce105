"""The lock that everybody holds who reads `control` in order to write it: one change after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
import redis.lock

from broker.config import Settings
from broker.errors import BrokerError

_LOCK = "lock:control"
_LOCK_HELD_S = 90.0
_LOCK_WAIT_S = 20.0


@contextmanager
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    """A client for a few calls."""
    client = redis.Redis.from_url(settings.redis.url, socket_timeout=5, socket_connect_timeout=5)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def alone(client: redis.Redis) -> Iterator[None]:
    """Hold the lock; it ends by itself if this process dies.  Raises BrokerError if it cannot be had."""
    lock = client.lock(_LOCK, timeout=_LOCK_HELD_S, blocking_timeout=_LOCK_WAIT_S)
    try:
        free = lock.acquire()
    except redis.RedisError as error:
        raise BrokerError(f"Redis does not answer: {error}; is it running?") from error
    if not free:
        raise BrokerError(
            f"another process has been changing filters or models for {_LOCK_WAIT_S:g} s; try again"
        )
    try:
        yield
    finally:
        _release(lock)


def _release(lock: redis.lock.Lock) -> None:
    """Give the lock back; one that ran out, or a Redis that is gone, has given it back already."""
    try:
        lock.release()
    except redis.RedisError:
        return
