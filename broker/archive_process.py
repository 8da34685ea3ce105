"""The archive's writer as a process beside the workers of a run, and the parent's hold on it."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from broker.config import Settings
from broker.errors import BrokerError
from broker.run.restarts import Restarts, exit_cause

log = logging.getLogger(__name__)

_RESTART_S = 2.0
_TICK_S = 0.2
_STOP_PATIENCE_S = 30.0
_TRIES = 3


def main(settings: Settings, lifeline: Connection) -> None:
    """Entry of the spawned writer. Writes on to the topic's end when the parent lets go of `lifeline`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal: the parent decides
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_follow, args=(lifeline, stopping), daemon=True).start()
    from broker.archive.writer import ArchiveWriter  # noqa: PLC0415 (heavy, and only this process needs it)

    try:
        ArchiveWriter(settings, stopping.is_set).run()
    except (BrokerError, OSError) as error:
        logging.error("the archive is not written: %s", error)
        sys.exit(1)


def _follow(lifeline: Connection, stopping: threading.Event) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    stopping.set()


class ArchiveChild:
    """The writer of a run, if it keeps an archive; on leaving, what was committed is written.

    to_the_end : whether that is waited for however long it takes, asked while waiting; else for half a minute
    """

    def __init__(self, settings: Settings, to_the_end: Callable[[], bool]) -> None:
        self._settings, self._to_the_end = settings, to_the_end
        self._wanted = bool(settings.archive.folder) and settings.archive.write
        self._process: BaseProcess | None = None
        self._held: Connection | None = None
        self._started = 0.0
        self._restarts = Restarts()
        self._due: float | None = None

    def look(self) -> None:
        """Start the writer, or another in place of one that died: meanwhile its rows wait in Kafka."""
        if not self._wanted or (self._process is not None and self._process.is_alive()):
            return
        if self._process is None:
            self._start()
        elif self._due is None:
            now = time.monotonic()
            self._due = now + max(_RESTART_S, self._restarts.pause_after(now - self._started))
            cause = exit_cause(self._process.exitcode)
            log.warning("the archive's writer ended: %s; starting another", cause)
        elif time.monotonic() >= self._due:
            self._start()

    def __enter__(self) -> ArchiveChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if kind is not None:
            self._process.kill()
        elif not any(self._finished() for _ in range(_TRIES)) and self._to_the_end():
            raise BrokerError(
                f"{self._settings.archive.folder} could not be written to the end; its rows wait in Kafka"
            )

    def _finished(self) -> bool:
        """Let the writer end, or another in its place; whether it did so well."""
        assert self._process is not None
        if self._process.exitcode is not None:
            self._start()
        if self._held is not None:
            self._held.close()
        deadline = time.monotonic() + _STOP_PATIENCE_S
        while self._process.exitcode is None and (self._to_the_end() or time.monotonic() < deadline):
            self._process.join(_TICK_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        return self._process.exitcode == 0 or not self._to_the_end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        lifeline, self._held = context.Pipe(duplex=False)
        self._process = context.Process(target=main, args=(self._settings, lifeline))
        self._process.start()
        self._due = None
        lifeline.close()
        self._started = time.monotonic()
