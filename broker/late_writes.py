"""Figures for other processes, written to Redis from a thread of its own: losing one must cost nothing.

What is written is each process's whole figure under a name that no other has, so that writing it again
changes nothing, and readers add up what they find.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

import redis

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds between two writes."""
KEPT_S = 28 * 86400
"""Seconds for which a hash lives after it was last written to."""

Fields = Mapping[tuple[str, str], bytes]
"""Values by hash and field."""


class LateWriter:
    """Asks its sources every EVERY_S for what is new and puts it into Redis.

    sources : each gives the fields that have changed since it was asked last
    missed  : told of each write that failed; its fields are kept for the next one
    """

    def __init__(
        self, url: str, sources: Sequence[Callable[[], Fields]], missed: Callable[[], None] = lambda: None
    ) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2)
        self._sources = sources
        self._missed = missed
        self._pending: dict[tuple[str, str], bytes] = {}
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="late-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._wake.set()
        self._thread.join(timeout=10)
        self._redis.close()

    def _run(self) -> None:
        while not self._wake.wait(EVERY_S):
            self._write()
        self._write()

    def _write(self) -> None:
        try:
            for source in self._sources:
                self._pending |= source()
            if self._pending:
                self._send()
                self._pending.clear()
        except (redis.RedisError, OSError):
            self._missed()
        except Exception:  # nothing that is only watched may end the thread
            self._missed()
            log.exception("figures could not be put together")

    def _send(self) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for (key, name), value in self._pending.items():
            pipe.hset(key, name, value)
        for key in {key for key, _ in self._pending}:
            pipe.expire(key, KEPT_S)
        pipe.execute()
