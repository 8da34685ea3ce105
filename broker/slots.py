"""Worker slots: which transactional id and group instance a process on this host may use."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

_MAX_SLOTS = 1024


@dataclass(frozen=True)
class Slot:
    """A slot held by this process until it ends, however it ends: the lock goes with the process."""

    group: str
    host: str
    number: int
    descriptor: int

    @property
    def id(self) -> str:
        """transactional.id and group.instance.id."""
        return f"{self.group}.{self.host}.{self.number}"


def take_slot(folder: Path, group: str) -> Slot:
    """The first slot of this host that no living process holds.

    A second `broker run` so takes the next numbers and does not fence the first; a restarted worker gets
    its old number back and fences only its own dead self.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    for number in range(_MAX_SLOTS):
        descriptor = os.open(folder / f"{group}.{host}.{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return Slot(group, host, number, descriptor)
    raise RuntimeError(f"all {_MAX_SLOTS} slots in {folder} are taken")
