"""What a parent knows of its workers by their heartbeats: which are ready, and which are stuck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.heartbeats import FRESH_S, Heartbeat

BEAT_LIMIT_S = 30.0
"""A worker whose heartbeat stopped for so long is stopped, or hangs with the interpreter's lock."""
PROGRESS_LIMIT_S = 100.0
"""A worker that finished no step for so long hangs: longer than any batch is let to take."""
START_LIMIT_S = 900.0
"""A worker that has not sent one heartbeat for so long hangs in its start, compiling included."""
_STALE_LOOK_S = 5.0


@dataclass
class Vitals:
    """The last heartbeats, and since when each worker was seen to send them.

    Times without a name are monotonic ones of this process: what matters is how long we looked, which a
    machine that slept or a Redis that was away does not add to.
    """

    beats: tuple[Heartbeat, ...] = ()
    ever_ready: bool = False
    _looked: float = float("-inf")
    _heard: dict[int, tuple[float, float]] = field(default_factory=dict)

    def look(self, server_now: float, beats: Sequence[Heartbeat], pids: Sequence[int], now: float) -> None:
        """Every slot's last heartbeat, at a time of the server, and the processes that are ours."""
        gap = now - self._looked > _STALE_LOOK_S
        heard = {}
        for beat in beats:
            if beat.pid in pids:
                before, since = self._heard.get(beat.pid, (beat.at, now))
                heard[beat.pid] = (beat.at, since if beat.at == before and not gap else now)
        self._heard, self._looked = heard, now
        self.beats = tuple(beat for beat in beats if beat.pid in pids or server_now - beat.at < FRESH_S)
        self.ever_ready |= any(beat.ready for beat in self.of(pids))

    def of(self, pids: Sequence[int]) -> list[Heartbeat]:
        """The heartbeats of some processes of ours, in their order."""
        by_pid = {beat.pid: beat for beat in self.beats}
        return [by_pid[pid] for pid in pids if pid in by_pid]

    def ready(self, pids: Sequence[int], now: float) -> set[int]:
        """Which of them are ready, as far as can be seen now."""
        if now - self._looked > _STALE_LOOK_S:
            return set()
        return {b.pid for b in self.of(pids) if b.ready and now - self._heard[b.pid][1] < FRESH_S}

    def why_stuck(self, pid: int, lived_s: float, answering_s: float, now: float) -> str:
        """Why a worker is beyond help; empty if it is not.

        answering_s : how long Kafka and Redis both answer without a break: before, nobody can get on
        """
        if now - self._looked > _STALE_LOOK_S:
            return ""
        if pid not in self._heard:
            hangs = min(lived_s, answering_s) > START_LIMIT_S
            return f"it has sent no heartbeat for {lived_s:.0f} s" if hangs else ""
        silent = now - self._heard[pid][1]
        if silent > BEAT_LIMIT_S:
            return f"its heartbeat stopped {silent:.0f} s ago"
        return self._why_quiet(pid, answering_s)

    def _why_quiet(self, pid: int, answering_s: float) -> str:
        (beat,) = self.of([pid])
        quiet = min(beat.quiet_s, answering_s)
        if beat.starting or quiet <= PROGRESS_LIMIT_S:
            return ""
        return f"it got nowhere for {quiet:.0f} s: {beat.trouble or 'it does not say why'}"
