"""How far a verb is: a bar on a terminal, one line at the end elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_REFRESH_S = 0.1


class _Tally(ProgressColumn):
    """What a meter says now: also right while a paced sender rests."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def render(self, task: Task) -> Text:
        return Text(self._meter.text())


class Meter:
    """Counts what a verb has done, and shows it.

    noun : what is counted, in the plural;  work : all there is to do, in any unit, 0 if not known
    """

    def __init__(self, noun: str, work: int) -> None:
        self.count = 0
        self._noun, self._done, self._total = noun, 0, work
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            _Tally(self),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> Meter:
        self._bar.start()
        self._task = self._bar.add_task("", total=self._total or None)
        return self

    def advance(self, count: int, work: int) -> None:
        """So many more are done, and so much of the work."""
        self.count += count
        self._done += work
        now = time.monotonic()
        if now - self._shown > _REFRESH_S:
            self._shown = now
            self._bar.update(self._task, completed=self._done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.update(self._task, completed=self._done)
        self._bar.stop()
        if not self._console.is_terminal:
            print(self.text(), file=sys.stderr)

    def text(self) -> str:
        """The count, the time it took and the rate."""
        elapsed = max(time.monotonic() - self._start, 1e-6)
        return f"{self.count:,} {self._noun} in {elapsed:.1f} s, {self.count / elapsed:,.0f}/s"
