"""Compiled code has a place wherever the package is installed and whoever runs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker import kernel_cache


@pytest.fixture
def writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[Path]:
    """The folders that can be written, none at first; the tests may run as root, who can write all."""
    folders: set[Path] = set()
    monkeypatch.setattr(kernel_cache, "_writable", folders.__contains__)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BROKER_DATA_DIR", str(tmp_path / "data"))
    return folders


def test_where_nothing_can_be_written_it_is_with_our_data(writable: set[Path], tmp_path: Path) -> None:
    kernel_cache.ensure_place()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "data" / "numba")


@pytest.mark.parametrize("place", ["sources", "cache"])
def test_where_numba_finds_a_place_it_is_left_alone(writable: set[Path], tmp_path: Path, place: str) -> None:
    writable.add(Path(kernel_cache.__file__).parent if place == "sources" else tmp_path / "cache" / "numba")
    kernel_cache.ensure_place()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_what_is_set_is_left_alone(writable: set[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    kernel_cache.ensure_place()
    assert os.environ["NUMBA_CACHE_DIR"] == "/elsewhere"


def test_a_folder_that_can_be_made_counts_as_writable(tmp_path: Path) -> None:
    assert kernel_cache._writable(tmp_path / "not" / "yet")
    (tmp_path / "file").write_text("")
    assert not kernel_cache._writable(tmp_path / "file" / "none")
