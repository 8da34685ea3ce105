"""What the demo shows: a live page in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from broker.demo.figures import Figures

_LATEST = 12
_LINE_EVERY_S = 5.0
_REFRESH_S = 0.5


class View:
    """Shows figures and the latest scored alerts, at most twice a second."""

    def __init__(self, where: list[str], console: Console | None = None) -> None:
        self._where = where
        self._console = console or Console()
        self._latest: deque[dict[str, Any]] = deque(maxlen=_LATEST)
        self._start = self._shown = time.monotonic()
        self._last: tuple[float, int] = (self._start, 0)
        self._rate = 0.0
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> View:
        if self._live is None:
            for line in self._where:
                print(line, flush=True)
        else:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, alert: dict[str, Any]) -> None:
        """One more scored alert came out."""
        self._latest.append(alert)

    def show(self, look: Callable[[], Figures]) -> None:
        """Refresh if it is time to."""
        now = time.monotonic()
        if now - self._shown < (_REFRESH_S if self._live else _LINE_EVERY_S):
            return
        self._shown = now
        figures = look()
        done = figures.outcomes.get("in", 0)
        self._rate = (done - self._last[1]) / (now - self._last[0])
        self._last = (now, done)
        if self._live is None:
            self._print(figures)
        else:
            self._live.update(self._page(figures), refresh=True)

    def _print(self, figures: Figures) -> None:
        for alert in list(self._latest)[-3:]:
            print("  " + "  ".join(alert_cells(alert)))
        print(f"{time.monotonic() - self._start:6.1f} s  {summary(figures, self._rate)}", flush=True)

    def _page(self, figures: Figures) -> Group:
        filters = Table("filter", "hits", expand=True, box=None)
        for name, count in sorted(figures.filters.items()):
            filters.add_row(name, f"{count:,}")
        alerts = Table("object", "band", "mag", "most likely", "anomaly", "filters", expand=True, box=None)
        for alert in self._latest:
            alerts.add_row(*alert_cells(alert))
        return Group(
            Panel(summary(figures, self._rate), title="transient broker"),
            Panel(filters, title="filters"),
            Panel(alerts, title="latest scored alerts"),
            Panel("\n".join(self._where), title="where"),
        )


def summary(figures: Figures, rate: float) -> str:
    """One line about the pipeline."""
    counts = figures.outcomes
    median, worst = figures.latency_s
    return (
        f"{counts.get('in', 0):,} alerts in, {counts.get('published', 0):,} published, "
        f"{counts.get('rejected', 0):,} dead letters, {counts.get('duplicate', 0):,} duplicates; "
        f"{sum(figures.filters.values()):,} filter hits; {rate:,.0f} alerts/s; "
        f"latency {median:.2f} s (99 %: {worst:.2f} s); {figures.waiting:,} waiting"
    )


def alert_cells(alert: dict[str, Any]) -> list[str]:
    """One alert as the cells of a row."""
    scores = {
        name.removeprefix("prob_"): value
        for name, value in alert["scores"].items()
        if name.startswith("prob_") and not name.startswith("prob_family_") and value is not None
    }
    best = max(scores, key=lambda name: scores[name], default="")
    magnitude, anomaly = alert["mag"], alert["scores"].get("anomaly")
    return [
        str(alert["objectName"]),
        str(alert["band"] or ""),
        "" if magnitude is None else f"{magnitude:.2f}",
        f"{best} {scores[best]:.2f}" if best else "",
        "" if anomaly is None else f"{anomaly:.2f}",
        ", ".join(name.split("@")[0] for name in alert["filtersPassed"]),
    ]


def say(text: str) -> None:
    """A line about what the demo is doing."""
    print(text, file=sys.stderr, flush=True)
