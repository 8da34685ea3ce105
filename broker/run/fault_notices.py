"""What a person is told of faults that nobody foresaw: each kind once an hour, not each record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from broker.errors import BrokerError

log = logging.getLogger(__name__)

EVERY_S = 3600.0

Tell = Callable[[str, str, str], None]
"""Sends a notice: subject, kind, text.  Raises BrokerError."""


class FaultNotices:
    """Notices of one worker, each kind of fault once an hour with how many there were meanwhile."""

    def __init__(self, slot: str, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._slot = slot
        self._tell = tell
        self._clock = clock
        self._told_at: dict[tuple[str, str], float] = {}
        self._untold: dict[tuple[str, str], int] = {}

    def add(self, kind: str, which: str, text: str, count: int = 1) -> None:
        """Something happened.  kind : of the notice;  which : of its kind, what tells one from another"""
        name, now = (kind, which), self._clock()
        self._untold[name] = self._untold.get(name, 0) + count
        if now - self._told_at.get(name, -EVERY_S) < EVERY_S:
            return
        self._told_at[name] = now
        total = self._untold.pop(name)
        log.error("%s: %s (%d of it): %s", self._slot, kind, total, text)
        try:
            self._tell(which, kind, f"{self._slot}: {total} of it since it was told last. {text}")
        except BrokerError as error:  # a notice is not worth a worker
            log.warning("no notice of it: %s", error)
