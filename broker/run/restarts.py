"""When a worker that ended is started again, why it ended, and whether that repeats."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from broker.watchdog import STUCK_EXIT
from broker.worker import FENCED_EXIT

STUCK = "stuck"
"""The cause of a worker that was ended because it did not get on."""
STEADY_S = 60.0
"""A worker that lived for so long is started again at once."""
LONGEST_PAUSE_S = 5.0
_FIRST_PAUSE_S = 0.5
_MANY = 4
_WITHIN_S = 300.0
_QUIET_S = 120.0
_CAUSES = {0: "stopped", FENCED_EXIT: "fenced", STUCK_EXIT: STUCK}


def exit_cause(code: int | None) -> str:
    """Why a worker ended, by its exit code, as a metric's label.

    >>> exit_cause(3), exit_cause(-9), exit_cause(1)
    ('fenced', 'signal 9', 'error')
    """
    if code is not None and code < 0:
        return f"signal {-code}"
    return _CAUSES.get(code or 0, "error")


@dataclass
class Restarts:
    """The pauses before one child of a run is started again: none at first, then growing ones."""

    _deaths: int = 0

    def pause_after(self, lived_s: float) -> float:
        """Seconds to wait after it ended, having lived for some.

        >>> restarts = Restarts()
        >>> [restarts.pause_after(1.0) for _ in range(7)]
        [0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
        >>> restarts.pause_after(61.0)
        0.0
        """
        self._deaths = 1 if lived_s >= STEADY_S else self._deaths + 1
        if self._deaths == 1:
            return 0.0
        return float(min(_FIRST_PAUSE_S * 2 ** min(self._deaths - 2, 10), LONGEST_PAUSE_S))


@dataclass
class Repetition:
    """Whether workers end again and again: more than three times in five minutes, until two are quiet."""

    _at: deque[float] = field(default_factory=deque)
    going_on: bool = False

    def note(self, now: float) -> None:
        """A worker ended."""
        self._at.append(now)

    def begins(self, now: float) -> bool:
        """Whether it has come to that just now; true once."""
        while self._at and now - self._at[0] > _WITHIN_S:
            self._at.popleft()
        began = not self.going_on and len(self._at) >= _MANY
        self.going_on |= began
        return began

    def ends(self, now: float) -> bool:
        """Whether it is over just now; true once."""
        ended = self.going_on and (not self._at or now - self._at[-1] > _QUIET_S)
        if ended:
            self.going_on = False
            self._at.clear()
        return ended
