"""A guarded child process: how it ends, and that it never outlives its parent unasked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from broker.embedded.child import Child, Fate, Program
from broker.errors import EmbeddedServerError

_STUBBORN = "trap '' TERM; echo deaf; while true; do sleep 0.1; done"


def _program(folder: Path, *command: str) -> Program:
    log = folder / "console.log"
    return Program("Sleeper", folder, command, os.environ, log, (log,))


def _gone(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def _wait_for(text: str, log: Path) -> None:
    end = time.monotonic() + 5
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < end, f"{text!r} never came"
        time.sleep(0.01)


def test_runs_in_a_session_of_its_own_and_stops(tmp_path: Path) -> None:
    child = Child(_program(tmp_path, "sleep", "60"), Fate())
    assert child.alive()
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.stop()
    assert not child.alive()
    assert _gone(child.pid)
    child.stop()  # a second time is harmless


def test_stop_uses_force_on_a_child_that_does_not_listen(tmp_path: Path) -> None:
    child = Child(_program(tmp_path, "sh", "-c", _STUBBORN), Fate())
    _wait_for("deaf", tmp_path / "console.log")
    child.stop(timeout_s=0.3)
    assert _gone(child.pid)


def test_kill_takes_its_own_children_too(tmp_path: Path) -> None:
    child = Child(_program(tmp_path, "sh", "-c", "sleep 60 & echo $!; wait"), Fate())
    _wait_for("\n", tmp_path / "console.log")
    grandchild = int((tmp_path / "console.log").read_text())
    child.kill()
    assert _gone(child.pid)
    assert _gone(grandchild)


def test_other_signals_pass_through(tmp_path: Path) -> None:
    child = Child(
        _program(tmp_path, "sh", "-c", "trap 'echo heard' USR1; echo on; while :; do sleep 0.1; done"), Fate()
    )
    _wait_for("on", tmp_path / "console.log")
    child.send(signal.SIGUSR1)
    _wait_for("heard", tmp_path / "console.log")
    child.kill()


def test_let_go_leaves_it_running(tmp_path: Path) -> None:
    child = Child(_program(tmp_path, "sleep", "60"), Fate())
    child.let_go()
    assert psutil.Process(child.pid).name() == "sleep"
    os.kill(child.pid, signal.SIGKILL)
    assert _gone(child.pid)


def test_last_words_are_those_of_this_start(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("of an earlier run\n")
    child = Child(_program(tmp_path, "sh", "-c", "echo no such disk; exit 3"), Fate())
    _wait_for("no such disk", tmp_path / "console.log")
    child.stop()
    assert child.last_words() == "no such disk"


def test_a_command_that_cannot_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"cannot run Sleeper.*no-such-program"):
        Child(_program(tmp_path, "/no-such-program"), Fate())


def test_a_killed_guard_does_not_hide_its_server(tmp_path: Path) -> None:
    child = Child(_program(tmp_path, "sleep", "60"), Fate())
    guard = psutil.Process(child.pid).parent()
    assert guard is not None
    guard.kill()
    child.stop()
    assert _gone(child.pid)


@pytest.mark.parametrize("command", [("sleep", "60"), ("sh", "-c", _STUBBORN)], ids=["meek", "stubborn"])
@pytest.mark.parametrize("fork", [False, True], ids=["alone", "with a fork that holds the pipe"])
def test_a_killed_parent_takes_its_server_along(tmp_path: Path, command: tuple[str, ...], fork: bool) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "data").write_text("of no use to anyone")
    script = f"""
import os, time
from pathlib import Path
from broker.embedded.child import Child, Fate, Program
log = Path({str(tmp_path / "console.log")!r})
program = Program("Sleeper", log.parent, {command!r}, os.environ, log, (log,))
child = Child(program, Fate(grace_s=0.3, remove=Path({str(private)!r})))
if {fork} and os.fork() == 0:
    time.sleep(8)
    os._exit(0)
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _gone(pid)
    end = time.monotonic() + 5
    while private.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
