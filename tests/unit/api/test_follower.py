"""Who follows `control` never ends in silence: what ends it is said, and it begins again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import control
from broker.api import create_app, follower
from broker.api.follower import ControlFollower
from broker.config import load
from broker.control import ControlState
from tests.unit.api.test_app import NOWHERE


class _Tail:
    """A tail of `control` that fails at its second look, and is well once `fault` is None."""

    fault: BaseException | None = None

    def __init__(self, _: Any) -> None:
        self.state = ControlState(epoch=0)

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def catch_up(self) -> ControlState:
        if self.fault is not None:
            raise self.fault
        return self.state

    def poll(self, _: float) -> bool:
        time.sleep(0.01)
        if self.fault is not None:
            raise self.fault
        return False


def _until(wanted: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not wanted() and time.monotonic() < end:
        time.sleep(0.01)
    return wanted()


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(follower, "ControlTail", _Tail)
    monkeypatch.setattr(follower, "ensure_topics", lambda _: None)
    monkeypatch.setattr(follower, "_PAUSE_S", 0.02)
    monkeypatch.setattr(_Tail, "fault", None)
    found = ControlFollower(load(NOWHERE, env={}))
    found.start()
    yield found
    found.stop()


@pytest.mark.parametrize(
    "fault",
    [RecursionError("deep"), OverflowError("inf"), KeyError("x"), MemoryError(), ValueError("\ud83d" * 9999)],
)
def test_any_fault_is_named_and_it_begins_again(
    fault: Exception, followed: ControlFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _until(lambda: followed.problem == "")
    monkeypatch.setattr(_Tail, "fault", fault)
    assert _until(lambda: type(fault).__name__ in followed.problem)
    assert followed.problem.encode()
    assert len(followed.problem) < 1000
    monkeypatch.setattr(_Tail, "fault", None)
    assert _until(lambda: followed.problem == "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_seen_and_started_again(
    followed: ControlFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _until(lambda: followed.problem == "")
    monkeypatch.setattr(_Tail, "fault", SystemExit())
    assert _until(lambda: not any(it.name == "control-follower" for it in threading.enumerate()))
    assert "died" in followed.problem
    monkeypatch.setattr(_Tail, "fault", None)
    assert _until(lambda: followed.problem == "")


def test_ready_names_what_was_not_applied_and_stays_ready_for_it() -> None:
    app = create_app(load(NOWHERE, env={}))
    state = control.apply(ControlState(), 0, b"filter/a.b/1", b'{"id":1e999}')
    app.state.context.follower._state = control.apply(state, 1, b"\xff", b"[" * 100_000)
    browser = TestClient(app, base_url="http://127.0.0.1")
    answer = browser.get("/ready").json()
    assert answer["notAppliedCount"] == 2
    assert "filter/a.b/1" in answer["notApplied"][0]
    assert "notApplied" not in answer["missing"]
    assert "broker_control_not_applied 2.0" in browser.get("/metrics").text
    app.state.context.redis.close()


def test_ready_ends_with_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "ControlTail", _Tail)
    monkeypatch.setattr(follower, "ensure_topics", lambda _: None)
    monkeypatch.setattr(_Tail, "fault", RecursionError("deep"))
    with TestClient(create_app(load(NOWHERE, env={})), base_url="http://127.0.0.1") as browser:
        assert _until(lambda: "RecursionError" in browser.get("/ready").json()["missing"].get("control", ""))
        assert browser.get("/ready").status_code == 503
