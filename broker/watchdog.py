"""The way out of a call into a C library that never comes back: end the process and be restarted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

STUCK_EXIT = 4


class Watchdog:
    """Ends this process when something takes far longer than it can.

    Only for what is safe to cut off anywhere: a worker's transaction is, for it counts once committed or
    not at all.
    """

    def __init__(self, end: Callable[[int], None] = os._exit) -> None:
        self._end = end

    @contextmanager
    def expecting(self, seconds: float, what: str) -> Iterator[None]:
        """The body must be done within so many seconds."""
        timer = threading.Timer(seconds, self._give_up, (seconds, what))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self, seconds: float, what: str) -> None:
        log.error("%s did not come back within %.0f s; this worker ends and another starts", what, seconds)
        self._end(STUCK_EXIT)
