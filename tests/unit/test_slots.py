"""Slots: the first free one, gone with its process, back with the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from broker.slots import take_slot

HOLDER = """
import sys, pathlib
from broker.slots import take_slot
print(take_slot(pathlib.Path(sys.argv[1]), "group").id, flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_holder_gives_its_slot_back(tmp_path: Path) -> None:
    with holder(tmp_path) as first, holder(tmp_path) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        ids = [first.stdout.readline().strip(), second.stdout.readline().strip()]
        numbers = sorted(int(name.rsplit(".", 1)[1]) for name in ids)
        assert numbers == [0, 1]
        first.kill()
        first.wait()
        assert take_slot(tmp_path, "group").id == ids[0]
        second.kill()


def test_groups_do_not_share_slots(tmp_path: Path) -> None:
    assert take_slot(tmp_path, "one").number == 0
    assert take_slot(tmp_path, "two").number == 0
    assert take_slot(tmp_path, "one").number == 1
