"""Folders of the embedded servers and the locks on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker.embedded.folders import data_dir, locked, private_folder
from broker.errors import EmbeddedServerError


def test_the_environment_moves_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_DATA_DIR", str(tmp_path / "elsewhere"))
    assert data_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("BROKER_DATA_DIR")
    assert data_dir().name == "transient-broker"


def test_a_folder_is_for_this_user_only(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="BROKER_DATA_DIR"):
        private_folder(tmp_path / "file" / "below")


def test_a_taken_lock_names_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with (
        locked(lock, "services up", 0),
        pytest.raises(EmbeddedServerError, match="services up, process"),
        locked(lock, "second", 0.2),
    ):
        pytest.fail("two hold the same lock")
    with locked(lock, "third", 0):
        assert lock.read_text().startswith("third")


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from broker.embedded.folders import locked
with locked(Path({str(tmp_path / "a.lock")!r}), "doomed", 0):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    with locked(tmp_path / "a.lock", "heir", 5):  # raises if the dead holder still had it
        holder.wait()
    holder.stdout.close()
