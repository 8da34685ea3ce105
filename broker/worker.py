"""What a worker process does besides its work: signals, its parent's death, its slot."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from broker.allocator import keep_freed_memory
from broker.config import Settings
from broker.errors import BrokerError, WorkerFenced
from broker.run.limits import limit_memory
from broker.slots import take_slot

FENCED_EXIT = 3
_STOP_PATIENCE_S = 25.0
_GATE_S = 0.2


def main(
    settings: Settings,
    slots_folder: Path,
    lifeline: Connection,
    gate: Connection,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Entry of a spawned worker. Ends when the parent lets go of `lifeline`, or dies.

    gate : its other end is closed once there is all that a run stands on; the worker warms up until then
    on_step : told of each part of the start that is done, by the names in bench/start.py: STEPS
    """
    on_step("process")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal: the parent decides
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    keep_freed_memory()
    limit_memory(settings.run.worker_memory_mib, settings.run.workers)
    threading.Thread(target=_follow_parent, args=(lifeline, stopping), daemon=True).start()
    from broker.service import Worker  # noqa: PLC0415 (heavy, and only workers need it)

    on_step("imports")

    def wait() -> None:
        while not (gate.poll(_GATE_S) or stopping.is_set()):
            pass

    try:
        Worker(settings, take_slot(slots_folder, settings.run.group), stopping.is_set, wait, on_step).run()
    except WorkerFenced as error:
        logging.error("%s", error)
        sys.exit(FENCED_EXIT)
    except BrokerError as error:
        logging.error("%s", error)
        sys.exit(1)


def _follow_parent(lifeline: Connection, stopping: Any) -> None:
    """Stop when the parent's end of the pipe closes; do not outlive it by much whatever happens."""
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    stopping.set()
    time.sleep(_STOP_PATIENCE_S)
    os._exit(1)
