"""`broker config`: the effective settings."""

from __future__ import annotations

import json

from broker.cli.options import JsonOption, KafkaOption, RedisOption, settings_from

_ELSEWHERE_WIDTH = 160
"""Characters of a line that does not go to a terminal."""


def config(as_json: JsonOption = False, kafka: KafkaOption = None, redis: RedisOption = None) -> None:
    """Every setting, its value, where that came from (default, file, environment, flag) and what it is."""
    from broker.config import describe  # noqa: PLC0415

    rows = describe(settings_from(kafka, redis))
    if as_json:
        names = ("name", "value", "origin", "doc")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return
    _print(rows)


def _print(rows: list[tuple[str, str, str, str]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    wide = console if console.is_terminal else Console(width=_ELSEWHERE_WIDTH)
    table = Table("setting", "value", "from", "what it is")
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    for row in rows:
        table.add_row(*(Text(cell) for cell in row), style="" if row[2] == "default" else "bold")
    wide.print(table)
