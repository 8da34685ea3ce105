"""What a worker process does besides its work: signals, its parent's death, its slot."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from broker.allocator import keep_freed_memory
from broker.config import Settings
from broker.errors import BrokerError, WorkerFenced
from broker.slots import take_slot

FENCED_EXIT = 3
_STOP_PATIENCE_S = 25.0


def main(settings: Settings, slots_folder: Path, lifeline: Connection) -> None:
    """Entry of a spawned worker. Ends when the parent lets go of `lifeline`, or dies."""
    from broker.service import Worker  # noqa: PLC0415 (heavy, and only workers need it)

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal: the parent decides
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    keep_freed_memory()
    threading.Thread(target=_follow_parent, args=(lifeline, stopping), daemon=True).start()
    try:
        Worker(settings, take_slot(slots_folder, settings.run.group), stopping.is_set).run()
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
