"""`broker listen`: what a topic carries, decoded, as a table for people or as JSON lines for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import KafkaOption, kafka_connected, settings_from

if TYPE_CHECKING:
    from broker.client import Received, Stream, Undecodable

_COLUMNS = (
    ("time (UTC)", 19),
    ("object", 20),
    ("survey", 8),
    ("band", 4),
    ("mag", 6),
    ("class", 18),
    ("anomaly", 7),
    ("filters", 0),
)
"""Heading and width of the table's columns; the last takes what is left of the line."""
_ELSEWHERE_WIDTH = 160
"""Characters of a line that does not go to a terminal."""


class Format(StrEnum):
    """How records are shown."""

    table = "table"
    jsonl = "jsonl"


def listen(
    topic: Annotated[
        str, typer.Argument(help="A topic, or a pattern such as '^filters[.]'.", show_default=False)
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="beginning|latest|TIME", help="Where to start; TIME as ISO 8601.")
    ] = "latest",
    until_idle: Annotated[
        float | None,
        typer.Option(min=0, help="Stop once all is read and nothing came for this many seconds."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many decoded records; notices do not count.")
    ] = None,
    shown_as: Annotated[
        Format | None, typer.Option("--format", help="Default: table on a terminal, else jsonl.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="With jsonl: bytes (cutouts, letters) in base64, original alerts whole."),
    ] = False,
    kafka: KafkaOption = None,
) -> None:
    """Show the committed records of a topic as they come; Ctrl-C ends it.

    A transaction that is still open keeps the topic from being idle.
    """
    from broker.client import Stream  # noqa: PLC0415

    begin = parse_start(start)
    settings = kafka_connected(settings_from(kafka))
    chosen = shown_as or (Format.table if sys.stdout.isatty() else Format.jsonl)
    show = _table_line() if chosen is Format.table else _json_line(full)
    try:
        with Stream(
            topic,
            settings.kafka,
            start=begin,
            on_undecodable=lambda bad: _say(show(bad)),
            on_notice=lambda notice: _say(show(notice)),
        ) as stream:
            for received in islice(_records(stream, until_idle), limit):
                _say(show(received))
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end


def parse_start(text: str) -> Any:
    """What `--from` says: latest, beginning, or a moment (UTC if it names no zone).  Raises BadParameter."""
    if text in ("latest", "beginning"):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "write latest, beginning, or a time such as 2025-11-21T03:00:00Z"
        raise typer.BadParameter(f"--from {text!r}: {hint}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _records(stream: Stream, until_idle: float | None) -> Iterator[Received]:
    return iter(stream) if until_idle is None else stream.until_idle(until_idle)


def _say(line: str) -> None:
    print(line, flush=True)


def _json_line(full: bool) -> Callable[[Received | Undecodable], str]:
    from broker.client import Received, as_json  # noqa: PLC0415
    from broker.client.json import line, undecodable_json  # noqa: PLC0415

    def show(item: Received | Undecodable) -> str:
        if isinstance(item, Received):
            return line(as_json(item, full=full))
        return line(undecodable_json(item, full=full))

    return show


def _table_line() -> Callable[[Received | Undecodable], str]:
    """An alert as a row of the table, under a heading; anything else as its time and its fields, cut off."""
    from broker.client import Received  # noqa: PLC0415

    headings = [_row([name for name, _ in _COLUMNS]) + "\n"]
    fields = _json_line(full=False)

    def show(item: Received | Undecodable) -> str:
        if isinstance(item, Received) and "diaSourceId" in item.value:
            return (headings.pop() if headings else "") + _row(alert_cells(item.value))
        return _cut(f"{_utc(item.message.timestamp_ms / 1000)}  {fields(item)}")

    return show


def alert_cells(alert: dict[str, Any]) -> list[str]:
    """The cells of one alert: when, most probable class, what its filter selects, filters it passed."""
    from broker.client import selected  # noqa: PLC0415

    scores = alert["scores"]
    chosen = [f"{name}={_short(value)}" for name, value in selected(alert).items()]
    return [
        _utc(alert["provenance"]["observedAt"]),
        alert["objectName"],
        alert["survey"],
        alert["band"] or "-",
        _number(alert["mag"], ".2f"),
        top_class(scores),
        _number(scores.get("anomaly"), ".2f"),
        " ".join([*chosen, *alert["filtersPassed"]]),
    ]


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def top_class(scores: dict[str, float | None]) -> str:
    """Most probable class and its probability; '-' where there is none."""
    prefix, family = "prob_", "prob_family_"
    known = {
        name.removeprefix(prefix): value
        for name, value in scores.items()
        if name.startswith(prefix) and not name.startswith(family) and value is not None
    }
    if not known:
        return "-"
    best = max(known, key=lambda name: known[name])
    return f"{best} {known[best]:.2f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _row(cells: list[str]) -> str:
    padded = [cell.ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)]
    return _cut("  ".join(padded).rstrip())


def _cut(line: str) -> str:
    """A line no longer than the terminal, without characters that could steer it."""
    width = os.get_terminal_size().columns if sys.stdout.isatty() else _ELSEWHERE_WIDTH
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    return shown if len(shown) <= width else shown[: width - 3] + "..."
