"""Figures that are late or lost harm nothing: they are kept, written again, and counted."""

from __future__ import annotations

import pytest
from harness import wait_until

from broker import late_writes
from broker.late_writes import LateWriter


def test_redis_away_is_counted_and_what_was_not_written_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_writes, "EVERY_S", 0.01)
    missed: list[int] = []
    new = [{("hash", "field"): b"1"}, {("hash", "field"): b"2"}]
    writer = LateWriter(
        "redis://127.0.0.1:1/0", [lambda: new.pop(0) if new else {}], lambda: missed.append(1)
    )
    wait_until(lambda: len(missed) >= 3, "three writes have failed")
    assert writer._pending == {("hash", "field"): b"2"}
    writer.stop()


def test_a_source_that_fails_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(late_writes, "EVERY_S", 0.01)
    missed: list[int] = []

    def broken() -> dict[tuple[str, str], bytes]:
        raise KeyError("broken")

    writer = LateWriter("redis://127.0.0.1:1/0", [broken], lambda: missed.append(1))
    wait_until(lambda: len(missed) >= 3, "three writes have failed")
    writer.stop()
    assert "could not be put together" in caplog.text
