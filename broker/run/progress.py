"""Whether a worker gets anywhere: when it last finished a step, and what has held it up since."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_S = 10.0
"""A worker that finished no step for so long is not ready, unless it is at work on a batch."""
BATCH_S = 60.0
"""Nor is one that is at work on one batch for so long."""


class Progress:
    """The stamps of one worker; written by its loop, read by the thread that sends its heartbeats.

    A step is finished when a batch is committed, or when there was nothing to read.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._at = now()
        self._working = False
        self._trouble = ""

    def work(self) -> None:
        """There is something to do."""
        self._working = True

    def step(self) -> None:
        """It is done, or there was nothing to do."""
        self._at, self._working, self._trouble = self._now(), False, ""

    def hold_up(self, why: str) -> None:
        """It could not be done, and is tried again."""
        self._working, self._trouble = False, why

    @property
    def quiet_s(self) -> float:
        """Seconds since the last step."""
        return self._now() - self._at

    @property
    def ready(self) -> bool:
        """Whether steps are finished as fast as they can be expected to."""
        return self.quiet_s < (BATCH_S if self._working else QUIET_S)

    @property
    def trouble(self) -> str:
        """What holds it up, in a few words; empty if nothing does."""
        if self._trouble or self.ready:
            return self._trouble
        return f"no batch was finished for {self.quiet_s:.0f} s"
