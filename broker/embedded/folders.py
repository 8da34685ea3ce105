"""Where the embedded servers keep their data and their programs, and the locks on both."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from broker.errors import EmbeddedServerError

_APPLICATION = "transient-broker"


def data_dir() -> Path:
    """Folder of the servers' data between runs: BROKER_DATA_DIR, else this user's data folder."""
    chosen = os.environ.get("BROKER_DATA_DIR") or platformdirs.user_data_dir(_APPLICATION, appauthor=False)
    return Path(chosen).expanduser().absolute()


def cache_dir() -> Path:
    """Folder of what can be fetched or made again (Kafka's jars): this user's cache folder."""
    return Path(platformdirs.user_cache_dir(_APPLICATION, appauthor=False)).absolute()


def private_folder(folder: Path) -> Path:
    """`folder`, made if missing and readable by this user only."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedServerError(f"cannot make the folder {folder}: {error}; set BROKER_DATA_DIR") from error
    return folder


@contextmanager
def locked(path: Path, purpose: str, wait_s: float) -> Iterator[None]:
    """Hold the file `path` as a lock between processes; the system frees it however this process ends.

    purpose : written into the file, so that whoever waits in vain can be told who has it
    wait_s : how long to wait for the other process; 0 tries once
    Raises EmbeddedServerError when the lock is still taken then.
    """
    with path.open("a+", encoding="utf-8") as file:
        _acquire(file.fileno(), path, wait_s)
        file.truncate(0)
        file.write(f"{purpose}, process {os.getpid()}")
        file.flush()
        yield


def _acquire(descriptor: int, path: Path, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= end:
                holder = path.read_text(encoding="utf-8") or "another process"
                raise EmbeddedServerError(
                    f"{path.parent} is in use ({holder}); try again when it is done"
                ) from error
        time.sleep(0.1)
