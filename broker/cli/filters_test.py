"""`broker filters test`: what a filter would have let through, from the archive."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from broker.cli.archive import FolderOption, with_folder
from broker.cli.options import JsonOption, KafkaOption, kafka_connected, settings_from
from broker.cli.refusal import refused

if TYPE_CHECKING:
    from rich.console import Console

    from broker.backtest.judge import Backtest

_BAR = 40
_NIGHTS = 31
"""Of more, those without a hit are left out."""
_NAME = re.compile(r"(?:[a-z0-9-]{1,48}\.)?[a-z0-9-]{1,48}(?:@[0-9]+)?")


def try_out(
    what: Annotated[
        str, typer.Argument(metavar="WHERE|NAME", help="A condition, or NAME, OWNER.NAME, ...@3.")
    ],
    night: Annotated[str, typer.Option(help="One night, as 20240115.")] = "",
    nights: Annotated[str, typer.Option(help="Nights from..to, as 20240101..20240115.")] = "",
    last: Annotated[int | None, typer.Option(min=1, help="The newest so many nights; 7 by default.")] = None,
    survey: Annotated[str, typer.Option(help="One survey alone.")] = "",
    context: Annotated[
        Literal["then", "now"],
        typer.Option(
            help="What names stood for then, or stand for now, which is not what would have happened."
        ),
    ] = "then",
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with a class, and diaSourceId, diaObjectId, objectId, or ra and dec."),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Show this many of the hits.")] = 10,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file of hits a night, or folder with light curves.")
    ] = None,
    folder: FolderOption = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Judge archived alerts by a filter before it goes live: hits a night, overlap, cost, a sample.

    Nothing is computed anew: the rows are those that the live filters judged.
    """
    from broker.backtest.ask import Asked, ask  # noqa: PLC0415
    from broker.cli.progress import Meter  # noqa: PLC0415

    name = what if _NAME.fullmatch(what) else ""
    settings = with_folder(settings_from(kafka), folder)
    asked = Asked(
        "" if name else what, name, _span(night, nights), last, survey, context, str(labels or ""), sample
    )
    with refused(what), Meter("alerts judged", 0) as meter:
        result = ask(settings, asked, connect=kafka_connected, on_rows=lambda rows: meter.advance(rows, rows))
    if plot is not None:
        from broker.cli.backtest_plot import save  # noqa: PLC0415

        for path in save(result, plot):
            typer.echo(f"wrote {path}", err=True)
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        _print(result)


def _span(night: str, nights: str) -> tuple[str, str] | None:
    """First and last night asked for."""
    first, _, last = nights.partition("..") if nights else (night, "", night)
    return (first, last or first) if first else None


def _print(result: Backtest) -> None:
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    _print_nights(console, result)
    cost = f", {result.us_an_alert:.2f} us an alert" if result.rows else ""
    print(
        f"{result.hits:,} hits of {result.objects:,} objects in {result.rows:,} alerts of "
        f"{len(result.nights):,} nights{cost}"
    )
    _print_caveats(result)
    _print_overlap(console, result)
    _print_purity(console, result)
    _print_sample(console, result)


def _print_nights(console: Console, result: Backtest) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table("night", "alerts", "hits", "objects", "")
    for column in table.columns[1:4]:
        column.justify = "right"
    most = max((night.hits for night in result.nights.values()), default=0)
    shown = sorted(result.nights.items())
    if len(shown) > _NIGHTS:
        shown = [item for item in shown if item[1].hits]
        print(f"{len(result.nights) - len(shown):,} nights without a hit are not shown")
    for name, night in shown:
        bar = "█" * round(_BAR * night.hits / most) if most else ""
        table.add_row(name, f"{night.judged:,}", f"{night.hits:,}", f"{len(night.objects):,}", bar)
    console.print(table)


def _print_caveats(result: Backtest) -> None:
    """What the answer does not say, or not of all."""
    if result.cut:
        print(f"CUT: {result.cut}")
    if result.lost:
        print(f"{result.lost:,} offsets expired before they were archived: some alerts may be missing")
    if result.context == "now":
        print("NOT what would have happened: names stand for what they stand for now (--context now)")
    for name, rows in sorted(result.not_known.items()):
        print(f"{name} did not exist when {rows:,} of these alerts were judged: it was NULL")
    for why, rows in sorted(result.not_judged.items()):
        print(f"{rows:,} alerts cannot be judged: {why}")


def _print_overlap(console: Console, result: Backtest) -> None:
    from rich.table import Table  # noqa: PLC0415

    common = sorted((it for it in result.overlap.items() if it[1].both), key=lambda it: -it[1].both)
    if not common:
        print("none of its hits passed another filter then" if result.hits else "")
        return
    table = Table("other filter", "its hits", "in common", "of this one's", "of its own")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, other in common:
        mine, theirs = f"{other.both / result.hits:.0%}", f"{other.both / other.hits:.0%}"
        table.add_row(name, f"{other.hits:,}", f"{other.both:,}", mine, theirs)
    console.print(table)


def _print_purity(console: Console, result: Backtest) -> None:
    from rich.table import Table  # noqa: PLC0415

    purity = result.to_json()["purity"]
    if purity is None:
        return
    table = Table("class", "objects passed", "of those seen", "share", "95 %")
    for item in purity["classes"]:
        share = "" if item["share"] is None else f"{item['share']:.0%}"
        interval = "" if item["low"] is None else f"{item['low']:.0%} to {item['high']:.0%}"
        table.add_row(item["class"], str(item["passed"]), str(item["seen"]), share, interval)
    console.print(table)
    print(f"{purity['unlabelledObjects']:,} more objects passed that have no label")


def _print_sample(console: Console, result: Backtest) -> None:
    from rich.table import Table  # noqa: PLC0415

    from broker.cli.sparkline import sparkline  # noqa: PLC0415

    if not result.sample:
        return
    table = Table("night", "survey", "alert", "object", "band", "mag", "light curve (flux; one row a band)")
    for hit in result.sample:
        about = hit.about
        mag = "" if about["mag"] is None else f"{about['mag']:.2f}"
        table.add_row(
            hit.night, about["survey"], about["diaSourceId"], about["objectName"] or "", about["band"] or "",
            mag, sparkline(hit.curve),
        )  # fmt: skip
    console.print(table)
