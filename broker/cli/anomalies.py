"""`broker anomalies`: a night's strangest objects, in groups of alike ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import JsonOption, KafkaOption, kafka_connected, settings_from

if TYPE_CHECKING:
    from broker.clusters import Clustered, Objects, Period
    from broker.config import Settings


def anomalies(
    survey: Annotated[
        str | None, typer.Option(help="Of one survey, such as ztf; else of all.", show_default=False)
    ] = None,
    night: Annotated[
        str | None,
        typer.Option(metavar="YYYYMMDD", help="Seen on this UTC date; else --since, else the last 24 hours."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Seen since then, as ISO 8601; UTC if it names no zone."),
    ] = None,
    top: Annotated[str, typer.Option(help="How many objects: a share such as 1% or a number.")] = "1%",
    least: Annotated[int, typer.Option("--least", min=2, help="Objects of the smallest group.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Write a page with a map to this folder.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """The strangest objects of a night, sorted into groups of alike ones, and what sets each group apart.

    Strange is what has a high anomaly and a high reconstruction error among the objects of the night. Reads
    the alert topics, so it takes as long as they are; the last 24 hours are those up to the newest alert.
    """
    period = period_of(night, since)
    from broker.cluster_page import write_page  # noqa: PLC0415
    from broker.clusters import cluster, how_many  # noqa: PLC0415

    how_many(top, 1)  # a wrong --top is said before anything is read
    settings = kafka_connected(settings_from(kafka))
    found = cluster(_read(settings, period, survey), top, least)
    page = None if out is None else write_page(out, found)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    _show(found)
    if page is not None:
        print(f"page: {page}")


def period_of(night: str | None, since: str | None) -> Period:
    """What --night or --since mean.  Raises BadParameter."""
    from broker.clusters import Period, utc_period  # noqa: PLC0415

    if night is not None and since is not None:
        raise typer.BadParameter("--night and --since exclude each other; give one")
    try:
        if night is not None:
            begin = datetime.strptime(night, "%Y%m%d").replace(tzinfo=UTC)
            return utc_period(begin, begin + timedelta(days=1))
        if since is not None:
            moment = datetime.fromisoformat(since)
            return utc_period(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError:
        raise typer.BadParameter(
            f"{night or since!r} is no date: write 20251121 after --night, 2025-11-21T03:00 after --since"
        ) from None
    return Period()


def _read(settings: Settings, period: Period, survey: str | None) -> Objects:
    from rich.console import Console  # noqa: PLC0415

    from broker.clusters import read_objects  # noqa: PLC0415

    with Console(stderr=True).status("reading the alert topics") as status:
        return read_objects(
            settings,
            period,
            survey,
            lambda alerts, objects: status.update(f"read {alerts:,} alerts of {objects:,} objects"),
        )


def _show(found: Clustered) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from broker.cluster_page import headline, traits_of  # noqa: PLC0415

    print(headline(found))
    table = Table("group", "objects", "what sets it apart", "examples")
    for number, group in enumerate(found.groups):
        examples = ", ".join(state.name for state in group.examples)
        table.add_row(str(number), str(group.size), Text(traits_of(group)), Text(examples))
    if found.groups:
        Console().print(table)
    else:
        print("no groups: too few objects, or none near to others; --top takes more of them")
    print("in no group: " + (", ".join(state.name for state in found.outliers) or "none"))
