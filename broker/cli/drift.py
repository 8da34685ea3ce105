"""`broker drift`: how far the stream has moved from the nights before and from what the models learnt on."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import JsonOption, KafkaOption, RedisOption, settings_from
from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.drift.look import Look


def drift(
    survey: Annotated[str, typer.Option(help="This survey alone.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Show this many columns of each survey.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Write a report with figures into this folder.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Compare the newest night with the 7 nights before it and with the models' training sample.

    PSI is the population stability index: 0 where two samples are alike; docs/drift.md says what is much.
    """
    if out is not None and find_spec("matplotlib") is None:
        raise BrokerError("the report needs matplotlib: pip install 'transient-broker[train]'")
    found = _looks(survey, kafka, redis)
    if as_json:
        print(json.dumps([one.to_json() for one in found]))
    elif not found:
        print(_nothing())
    else:
        for one in found:
            _print_table(one, top)
    if out is not None and found:
        from broker.training.drift import write_drift_report  # noqa: PLC0415

        page = write_drift_report(out, found)
        if not as_json:
            print(f"report: {page}")


def _looks(survey: str, kafka: str | None, redis: str | None) -> list[Look]:
    from broker import model_store  # noqa: PLC0415
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415
    from broker.control.lock import redis_client  # noqa: PLC0415
    from broker.drift.every import looks  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    with redis_client(settings) as client:
        return looks(client, model_store.read(settings), settings, survey)


def _nothing() -> str:
    from broker.drift.nights import LEAST_ALERTS  # noqa: PLC0415

    return f"no night with {LEAST_ALERTS} alerts was counted yet; `broker run` counts them as they come"


def _print_table(one: Look, top: int) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from broker.drift.look import rows  # noqa: PLC0415

    before = f"{one.alerts_before:,} in the nights before"
    title = f"{one.survey}, night {one.night} (MJD): {one.alerts:,} alerts; {before}"
    heads = ("column", "PSI", "PSI, training", "nulls", "before", "training", "what to do")
    table = Table(*heads, title=title)
    for row in rows(one)[:top]:
        numbers = [row[key] for key in ("psi", "psi_training", "nulls", "nulls_before", "nulls_training")]
        style = "bold" if row["high"] else ""
        table.add_row(row["column"], *map(_number, numbers), Text(row["advice"]), style=style)
    console = Console()
    console.print(table)
    if not one.tonight:
        console.print("too few alerts in the nights before to compare with")
    if not one.training:
        console.print(
            f"model {one.model} does not name its training sample; train it anew to compare with it"
        )


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2f}"
