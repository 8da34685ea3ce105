"""One server process of ours, started and ended through its guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from broker.embedded import guard
from broker.errors import EmbeddedServerError

STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Program:
    """What to start: a command, run in its own folder, and the files it writes its troubles to."""

    name: str
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    output: Path
    logs: tuple[Path, ...]


@dataclass(frozen=True)
class Fate:
    """What becomes of a server whose parent vanishes: seconds to end in peace, a folder to delete after."""

    grace_s: float = 8.0
    remove: Path | None = None


class Child:
    """A running server; ends with this process unless `let_go` was called."""

    def __init__(self, program: Program, fate: Fate) -> None:
        """Start `program`; EmbeddedServerError if its command cannot be run at all."""
        self.name = program.name
        self._logs = program.logs
        self._starts = {log: log.stat().st_size for log in program.logs if log.exists()}
        self._guard = subprocess.Popen(
            _guard_command(program, fate),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=program.folder,
            env=dict(program.environment),
            start_new_session=True,
        )
        self.pid = self._read_pid()

    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._guard.poll() is None

    def send(self, number: int) -> None:
        """Hand a signal to the server; nothing happens if it has ended already."""
        self._order(number)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server in peace, after `timeout_s` by force. Harmless if called twice."""
        self._order(signal.SIGTERM)
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """End the server at once, as a crash would. Harmless if called twice."""
        self._order(signal.SIGKILL)
        self._guard.wait()
        self._close()

    def let_go(self) -> None:
        """Leave the server running on its own: from here on only its process id leads to it."""
        self._order(guard.LET_GO)
        self._guard.wait()
        self._close()

    def last_words(self, lines: int = 15) -> str:
        """The last lines the server wrote since this start, for the text of an error."""
        return "\n".join(_tail(log, self._starts.get(log, 0), lines) for log in self._logs).strip()

    def _read_pid(self) -> int:
        assert self._guard.stdout is not None
        answer = self._guard.stdout.readline().decode(errors="replace").strip()
        if answer.isdecimal():
            return int(answer)
        self._guard.wait()
        self._close()
        raise EmbeddedServerError(f"cannot run {self.name}: {answer or 'its guard process ended at once'}")

    def _order(self, number: int) -> None:
        assert self._guard.stdin is not None
        if self._guard.stdin.closed:
            return
        with suppress(BrokenPipeError):  # the server has ended, and its guard with it
            self._guard.stdin.write(bytes([number]))

    def _close(self) -> None:
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        if (self._guard.returncode or 0) < 0:  # somebody killed the guard itself: do its work
            _kill_group(self.pid)


def _guard_command(program: Program, fate: Fate) -> list[str]:
    remove = "" if fate.remove is None else str(fate.remove)
    options = [str(os.getpid()), str(fate.grace_s), remove, str(program.output)]
    return [sys.executable, "-I", "-S", guard.__file__, *options, *program.command]


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _tail(log: Path, start: int, lines: int) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - 64_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
