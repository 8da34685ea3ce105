"""A worker that hangs ends, with its tracebacks; one that takes too much memory gets MemoryError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import broker
from broker.run.limits import machine_mib

ROOT = Path(broker.__file__).parents[1]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a process that executes some code."""
    whole = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom broker.run.limits import *\n{code}"
    return subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_call_that_hangs_ends_the_process_with_its_traceback() -> None:
    hang = "def hang():\n    import ctypes; ctypes.PyDLL(None).sleep(60)\n"  # PyDLL: nobody else may run
    done = run(hang + "with TimeLimit(0.3).judging(careful=False): hang()")
    assert done.returncode == 1
    assert "in hang" in done.stderr


def test_each_part_has_the_whole_time() -> None:
    code = (
        "import time\nlimit = TimeLimit(1.0)\n"
        "with limit.judging(careful=False):\n"
        "    for _ in range(5): limit.start(); time.sleep(0.4)\n"
        "limit.start(); time.sleep(1.5); print('alive')"
    )
    assert run(code).stdout == "alive\n"


def test_no_limit() -> None:
    assert run("with TimeLimit(0).judging(careful=True): print('alive')").stdout == "alive\n"


def test_too_much_memory_is_an_error_not_a_death() -> None:
    code = "limit_memory(600, 1)\ntry:\n    bytearray(700 * 2**20)\nexcept MemoryError: print('contained')"
    assert run(code).stdout == "contained\n"


def test_the_automatic_limit_leaves_room_to_start() -> None:
    assert run("limit_memory(0, 1000); bytearray(500 * 2**20); print('alive')").stdout == "alive\n"
    assert machine_mib() > 256
