"""A small process between us and one server: when we are gone, however it happened, it ends the server.

Run as a script with the standard library alone (so it starts in milliseconds and stays small):
`guard.py PARENT GRACE_S REMOVE LOG COMMAND...`. Its standard input is a pipe from the parent, one byte an
order: a signal number to hand to the server's process group, or 0: let the server live on and go. End of file
means that the parent is gone: SIGTERM, GRACE_S seconds (0: none), SIGKILL, then delete the folder REMOVE (an
empty text: none). The first line of its standard output is the server's process id, or what went wrong; its
exit code is the server's (128 + signal when a signal ended it).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

LET_GO = 0


def main(arguments: list[str]) -> None:
    """Start the server, then obey the pipe until the server or the parent ends."""
    parent, grace_s, remove, log, *command = arguments
    try:
        server = _start(command, log)
    except OSError as error:
        print(error, flush=True)
        sys.exit(127)
    print(server.pid, flush=True)
    orphaned = threading.Event()
    threading.Thread(target=_leave_with, args=(server, orphaned), daemon=True).start()
    _obey(server, int(parent))
    orphaned.set()
    _end(server, float(grace_s))
    if remove:
        shutil.rmtree(remove, ignore_errors=True)


def _start(command: list[str], log: str) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal reaches the parent only, which ends its servers last.
    with open(log, "ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _leave_with(server: subprocess.Popen[bytes], orphaned: threading.Event) -> None:
    code = server.wait()
    if not orphaned.is_set():
        os._exit(code if code >= 0 else 128 - code)


def _obey(server: subprocess.Popen[bytes], parent: int) -> None:
    """Carry out orders; returns when the parent is gone.

    Its process id is watched too: a fork of the parent may hold the pipe open after the parent's death.
    """
    while os.getppid() == parent:
        ready, _, _ = select.select([sys.stdin], [], [], 1.0)
        if not ready:
            continue
        order = os.read(sys.stdin.fileno(), 1)
        if not order:
            return
        if order[0] == LET_GO:
            os._exit(0)
        _signal(server, order[0])


def _end(server: subprocess.Popen[bytes], grace_s: float) -> None:
    if grace_s > 0:
        _signal(server, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(grace_s)
    _signal(server, signal.SIGKILL)
    server.wait()


def _signal(server: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.killpg(server.pid, number)


if __name__ == "__main__":
    main(sys.argv[1:])
