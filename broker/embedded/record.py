"""`services.json`: what a data folder remembers of its servers, so that they are found again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from broker.embedded.ports import becomes_free, free_port
from broker.errors import EmbeddedServerError

_FILE = "services.json"
_CLOCK_SLACK_S = 2.0


@dataclass(frozen=True)
class Process:
    """A process as the system knows it: numbers are used again, a number and a start time are not.

    start_time : seconds since 1970
    """

    pid: int
    start_time: float

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now."""
        return cls(pid, psutil.Process(pid).create_time())

    def runs(self, mark: str) -> bool:
        """Whether this very process still runs.

        mark : text of its command line alone, which decides when the start time differs: a correction of the
               system's clock shifts the start times of all processes
        """
        try:
            now = psutil.Process(self.pid)
            if now.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(now.create_time() - self.start_time) < _CLOCK_SLACK_S or mark in now.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


@dataclass(frozen=True)
class Ports:
    """The servers' ports on the loopback interface."""

    kafka: int
    controller: int
    valkey: int

    @classmethod
    def new(cls) -> Ports:
        """Three ports nobody listens on."""
        return cls(free_port(), free_port(), free_port())


@dataclass(frozen=True)
class Record:
    """The servers of one data folder; a process is None when it is not meant to run."""

    ports: Ports
    cluster_id: str = ""
    ephemeral: bool = False
    kafka: Process | None = None
    valkey: Process | None = None


def read_record(folder: Path) -> Record | None:
    """The record of a data folder; None when it never had servers."""
    path = folder / _FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            Ports(**data["ports"]),
            str(data["cluster_id"]),
            bool(data["ephemeral"]),
            _process(data["kafka"]),
            _process(data["valkey"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmbeddedServerError(
            f"{path} cannot be read ({error!r}): end its Kafka and Valkey by hand if they run, then delete it"
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Replace the record of a data folder, whole or not at all."""
    draft = folder / f"{_FILE}.draft"
    with draft.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # else a machine that crashes may keep the new name and none of its bytes
    os.replace(draft, folder / _FILE)


def usable_ports(ports: Ports, *, kafka: bool, valkey: bool) -> Ports:
    """The ports to start servers on: the recorded ones, or new ones where another program has taken them.

    kafka, valkey : which of the two is about to start; the other's port is left as it is
    """
    return Ports(
        _free_or_new(ports.kafka) if kafka else ports.kafka,
        _free_or_new(ports.controller) if kafka else ports.controller,
        _free_or_new(ports.valkey) if valkey else ports.valkey,
    )


def _free_or_new(port: int) -> int:
    # A process that was just killed may hold its port for a moment after it has stopped counting as running.
    return port if becomes_free(port) else free_port()


def _process(data: Any) -> Process | None:
    return None if data is None else Process(int(data["pid"]), float(data["start_time"]))
