"""What workers say of themselves, and who counts as live."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from broker.heartbeats import FRESH_S, Heartbeat, live_workers, wait_for_epoch

NOW = 1000.0


class Hash:
    """A Redis that knows the time and one hash."""

    def __init__(self, *beats: Heartbeat) -> None:
        self.beats = {beat.slot: json.dumps(asdict(beat)) for beat in beats}

    def time(self) -> tuple[int, int]:
        return int(NOW), 0

    def hgetall(self, _: str) -> dict[str, Any]:
        return self.beats


def beat(slot: str, **said: Any) -> Heartbeat:
    return Heartbeat(slot, said.pop("epoch", 5), said.pop("ready", True), 1, **({"at": NOW} | said))


def test_times_are_those_of_the_server() -> None:
    said = Heartbeat("a", 5, True, 1, since=-3.0).sent(NOW)
    assert (said.at, said.since, said.quiet_s) == (NOW, NOW - 3.0, 3.0)
    assert Heartbeat.from_json(json.dumps(asdict(said))).quiet_s == 3.0


def test_an_old_workers_heartbeat_can_be_read() -> None:
    said = Heartbeat.from_json('{"slot": "a", "epoch": 1, "ready": true, "pid": 7, "at": 900.0}')
    assert (said.quiet_s, said.trouble, said.starting) == (0.0, "", False)


@pytest.mark.parametrize("gone", [{"at": NOW - FRESH_S}, {"starting": True}])
def test_who_is_gone_or_has_yet_to_join_is_waited_for_by_nobody(gone: dict[str, Any]) -> None:
    client = Hash(beat("a"), beat("b", epoch=1, **gone))
    assert [item.slot for item in live_workers(client, "g")] == ["a"]
    assert wait_for_epoch(client, "g", 5, 0.0) == (1, 1)


def test_a_worker_that_hangs_is_waited_for_and_told_of() -> None:
    """It may still commit a batch that it judged by the filters of before."""
    client = Hash(beat("a"), beat("b", epoch=1, ready=False, trouble="no batch was finished for 12 s"))
    assert wait_for_epoch(client, "g", 5, 0.1) == (1, 2)
