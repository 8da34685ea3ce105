"""`broker filters`: the rules of users, from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import KafkaOption, RedisOption, settings_from
from broker.errors import FilterError
from broker.filter import Filter, Payload

if TYPE_CHECKING:
    from broker.config import Settings
    from broker.filters.store import Added

_SHOWN_CHARACTERS = 100

filters = typer.Typer(no_args_is_help=True, add_completion=False, help="Add, list, show and remove filters.")

NameArgument = Annotated[str, typer.Argument(help="NAME, or OWNER.NAME.")]
OwnerOption = Annotated[str | None, typer.Option(help="Whose filter; 'local' unless NAME says.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@filters.command("add")
def add(
    name: NameArgument,
    where: Annotated[str, typer.Option(help="The condition, such as 'mag < 19 and n_nights >= 2'.")],
    owner: OwnerOption = None,
    payload: Annotated[Payload, typer.Option(help="How much of the alert each message carries.")] = "light",
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Add a filter, or a new version of it; returns when every live worker judges by it."""
    from broker.columns import filter_columns  # noqa: PLC0415
    from broker.features.catalog import FEATURE_SPECS  # noqa: PLC0415
    from broker.filters.compile import compile_filter  # noqa: PLC0415
    from broker.scores.catalog import SCORE_SPECS  # noqa: PLC0415

    columns = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    with _refused(where):
        compile_filter(where, columns)  # before any server is asked for, or started

        from broker.filters import store  # noqa: PLC0415

        settings = _connected(kafka, redis)
        added = store.add(
            settings, name, where, columns=columns, owner=owner, payload=payload, description=description
        )
    _report(added, as_json)


@filters.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Removed ones too.")] = False,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """The newest version of each filter."""
    from broker.filters import store  # noqa: PLC0415

    state = store.read(_connected(kafka, redis))
    items = store.newest(state, removed=everything)
    if as_json:
        print(json.dumps([store.as_json(item) for item in items]))
    else:
        _print_table(items)


@filters.command("show")
def show(
    name: NameArgument,
    owner: OwnerOption = None,
    version: Annotated[int | None, typer.Option(min=1, help="Which version; else the newest.")] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """One filter."""
    from broker.filters import store  # noqa: PLC0415

    with _refused():
        whose = store.full_name(name, owner)
    item = store.find(store.read(_connected(kafka, redis)), *whose, version)
    if as_json:
        print(json.dumps(store.as_json(item)))
    else:
        for what, value in store.as_json(item).items():
            print(f"{what:12} {value}")


@filters.command("versions")
def versions(
    name: NameArgument,
    owner: OwnerOption = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Every version of a filter."""
    from broker.filters import store  # noqa: PLC0415

    with _refused():
        whose = store.full_name(name, owner)
    items = store.versions(store.read(_connected(kafka, redis)), *whose)
    if as_json:
        print(json.dumps([store.as_json(item) for item in items]))
    else:
        _print_table(items)


def _change(verb: str, summary: str) -> None:
    """Add a command that changes a filter's state: the store's function of the same name."""

    def command(
        name: NameArgument,
        owner: OwnerOption = None,
        as_json: JsonOption = False,
        kafka: KafkaOption = None,
        redis: RedisOption = None,
    ) -> None:
        from broker.filters import store  # noqa: PLC0415

        change = {"remove": store.remove, "enable": store.enable, "disable": store.disable}[verb]
        with _refused():
            changed = change(_connected(kafka, redis), name, owner=owner)
        _report(changed, as_json)

    filters.command(verb, help=summary)(command)


_change("enable", "Resume a paused filter.")
_change("disable", "Pause a filter: it judges nothing until it is enabled.")
_change("remove", "Stop a filter for good; its topic and its versions are kept.")


def caret(text: str, position: int) -> str:
    """The line of a text that has a position, cut to what fits, and a caret under the place."""
    start = text.rfind("\n", 0, position) + 1
    line = text[start:].partition("\n")[0].replace("\t", " ").replace("\r", " ")
    cut = max(0, position - start - _SHOWN_CHARACTERS // 2)
    place = position - start - cut
    return f"{line[cut : cut + _SHOWN_CHARACTERS]}\n{' ' * place}^"


def summary(added: Added) -> str:
    """What a change came to, in one line."""
    item = added.filter
    name = f"{item.owner}.{item.name} version {item.version}"
    if not added.written:
        name += f" was {item.state} already, nothing changed"
    where = {"active": "live on", "paused": "paused on", "removed": "removed on"}[item.state]
    count = f"{where} {added.reached}/{added.live} workers in {added.seconds:.1f} s"
    if added.live == 0:
        count = "no worker is running: it takes effect when `broker run` starts"
    listen = f"; listen with: broker listen {item.topic}" if item.state == "active" else ""
    return f"{name}: {count}{listen}"


def _report(added: Added, as_json: bool) -> None:
    if as_json:
        print(json.dumps(added.to_json()))
    else:
        print(summary(added))
    if added.reached < added.live:
        missing = added.live - added.reached
        print(f"warning: {missing} live worker(s) did not answer in time; they will follow", file=sys.stderr)


def _print_table(items: list[Filter]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("filter", "version", "state", "payload", "where")
    for item in items:
        cells = (f"{item.owner}.{item.name}", str(item.version), item.state, item.payload, item.where)
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


def _connected(kafka: str | None, redis: str | None) -> Settings:
    """Settings on servers that have the topics we need."""
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    return settings


@contextmanager
def _refused(text: str = "") -> Iterator[None]:
    """What a user wrote wrongly: show where, and end with 2."""
    try:
        yield
    except FilterError as error:
        if text and error.position is not None:
            print(caret(text, error.position), file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
