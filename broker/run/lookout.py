"""A thread that looks at something again and again, so that a slow answer holds up nobody else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger(__name__)

_END_S = 0.5


class Lookout:
    """Calls `look` every so many seconds while its `with` block lasts; a look that fails is only told of.

    On leaving, a look that has begun is not waited for.
    """

    def __init__(self, name: str, every_s: float, look: Callable[[], None]) -> None:
        self._every_s, self._look = every_s, look
        self._done = threading.Event()
        self._failing = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Lookout:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self._look()
                self._failing = ""
            except Exception as error:
                if repr(error) != self._failing:
                    log.warning("%s: %r", self._thread.name, error, exc_info=True)
                self._failing = repr(error)
            self._done.wait(self._every_s)
