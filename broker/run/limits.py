"""Limits of a worker process: how long it may judge a batch, and how much memory it may take."""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_MIB = 1024 * 1024
_SHARE = 0.8
"""Of the machine's memory that all workers may take together; Kafka and Redis often live there too."""
_LEAST_MIB = 1024
"""A worker with less would not start."""
_CAREFUL = 4
"""A part of a batch may take so much less time than a batch."""
_CONTROL_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class TimeLimit:
    """Ends the process when judging takes far longer than it can, with all tracebacks on standard error.

    By a timer in C: a call that hangs may hold what Python's own threads need. Whatever was judged was not
    committed, and whoever comes after is careful with it (attempts.py).
    """

    def __init__(self, seconds: float) -> None:
        """Seconds : 0 = no limit"""
        self._seconds = self._left = seconds

    @contextmanager
    def judging(self, *, careful: bool) -> Iterator[None]:
        """The body, and each of its parts, must be done within the limit.  careful : a part of a batch"""
        self._left = self._seconds / _CAREFUL if careful else self._seconds
        self.start()
        try:
            yield
        finally:
            self._left = 0.0
            faulthandler.cancel_dump_traceback_later()

    def start(self) -> None:
        """Another part begins: the time starts anew."""
        if self._left > 0.0 and sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(self._left, exit=True, file=sys.__stderr__)


def limit_memory(mib: int, workers: int) -> None:
    """Let this process take so much memory: beyond it gets MemoryError, not the kernel's kill.

    mib : 0 = its share of what the machine, or its container, has
    """
    size = mib or max(_LEAST_MIB, int(_SHARE * machine_mib() / workers))
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = size * _MIB if hard == resource.RLIM_INFINITY else min(size * _MIB, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    except (OSError, ValueError) as error:
        log.warning("memory cannot be limited to %d MiB: %s", size, error)


def machine_mib() -> int:
    """Memory of this machine, or of the container it is for us [MiB]."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CONTROL_GROUPS:
        try:
            sizes.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # none of that kind, or "max"
            continue
    return min(sizes) // _MIB
