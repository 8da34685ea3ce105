"""`broker filters`: the rules of users, from the command line."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.filters_explain import explain
from broker.cli.filters_test import try_out
from broker.cli.options import KafkaOption, RedisOption, settings_from
from broker.cli.refusal import refused as _refused
from broker.filter import Excess, Filter, Payload

if TYPE_CHECKING:
    from broker.config import Settings
    from broker.filters.store import Added

filters = typer.Typer(no_args_is_help=True, add_completion=False, help="Add, list, show and remove filters.")

NameArgument = Annotated[str, typer.Argument(help="NAME, or OWNER.NAME.")]
VersionArgument = Annotated[str, typer.Argument(help="NAME, OWNER.NAME, or either with @VERSION.")]
OwnerOption = Annotated[str | None, typer.Option(help="Whose filter; 'local' unless NAME says.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@filters.command("add")
def add(
    name: NameArgument,
    where: Annotated[
        str | None,
        typer.Option(
            help="The condition, such as 'mag < 19 and n_nights >= 2', or 'select mag, ra as x where ...'."
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(help="What each message carries besides, such as 'mag - peak_mag_g as decline'."),
    ] = None,
    owner: OwnerOption = None,
    payload: Annotated[
        Payload | None, typer.Option(help="How much of the alert each message carries; else light.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    max_hits_per_hour: Annotated[
        int | None, typer.Option(min=0, help="Its budget; 0 = filters.max_hits_per_hour of the settings.")
    ] = None,
    max_us_per_alert: Annotated[
        float | None,
        typer.Option(min=0, help="Time its functions may take; 0 = filters.max_us_per_alert."),
    ] = None,
    on_excess: Annotated[
        Excess | None,
        typer.Option(help="Beyond its hits: sample it, pause it, or one after the other (else this)."),
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Store it only: it judges nothing until `enable`.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME@VERSION", help="Begin with this version; options change it."),
    ] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Add a filter, or edit one: its next version. Returns when every live worker judges by it."""
    from broker.columns import filter_columns  # noqa: PLC0415
    from broker.features.catalog import FEATURE_SPECS  # noqa: PLC0415
    from broker.scores.catalog import SCORE_SPECS  # noqa: PLC0415

    if where is None and source is None:
        raise typer.BadParameter("give the condition with --where, or a version to take it from with --from")
    columns = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    asked: dict[str, Any] = {
        "select": select,
        "payload": payload,
        "description": description,
        "max_hits_per_hour": max_hits_per_hour,
        "max_us_per_alert": max_us_per_alert,
        "on_excess": on_excess,
        "draft": draft,
        "source": source,
        "by": who(),
    }
    with _refused(where or ""):
        from broker.filters import store  # noqa: PLC0415

        store.checked(store.Wanted(where, **asked), columns)  # before any server is asked for, or started
        settings = _connected(kafka, redis)
        added = store.add(settings, name, where, columns=columns, owner=owner, **asked)
    _report(added, as_json)
    for missing in store.plugins_missing_here(added.filter, columns):
        print(
            f"warning: the plug-in {missing!r} is not installed here; a worker without it does not evaluate "
            "this filter, and says so in `notices`",
            file=sys.stderr,
        )


@filters.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Removed ones too.")] = False,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Each filter as it stands: the version in force, else the newest draft."""
    from broker.filters import store  # noqa: PLC0415

    state = store.read(_connected(kafka, redis))
    items = store.newest(state, removed=everything)
    if as_json:
        print(json.dumps([store.as_json(item) for item in items]))
    else:
        newest = state.latest_filters()
        drafts = {key: item.version for key, item in newest.items() if item.state == "draft"}
        _print_list(items, drafts)


@filters.command("show")
def show(
    name: VersionArgument,
    owner: OwnerOption = None,
    version: Annotated[int | None, typer.Option(min=1, help="Which version; else the one in force.")] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """One version of a filter; the one in force unless the name says another."""
    from broker.filters import store  # noqa: PLC0415

    with _refused():
        whose = store.versioned_name(name, owner, version)
    state = store.read(_connected(kafka, redis))
    item = store.find(state, *whose)
    told = store.as_json(item, state.current_filters()[item.full_name])
    if as_json:
        print(json.dumps(told))
    else:
        for what, value in told.items():
            print(f"{what:15} {value}")


@filters.command("versions")
def versions(
    name: NameArgument,
    owner: OwnerOption = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Every version of a filter: its state, since when and by whom."""
    from broker.filters import store  # noqa: PLC0415

    with _refused():
        whose = store.whole_name(name, owner, "`broker filters show` shows one")
    state = store.read(_connected(kafka, redis))
    items = store.versions(state, *whose)
    in_force = store.find(state, *whose)
    if as_json:
        print(json.dumps([store.as_json(item, in_force) for item in items]))
    else:
        _print_versions(items, in_force)


@filters.command("plugins")
def plugins(as_json: JsonOption = False) -> None:
    """Rules in Python that are installed on this machine, for plugin('name') in a filter."""
    from broker.plugin import installed  # noqa: PLC0415

    items = list(installed().values())
    if as_json:
        print(json.dumps([item.to_json() for item in items]))
    elif items:
        rows = [(it.name, it.package, it.version, it.why or ", ".join(it.reads)) for it in items]
        _print_table(("plug-in", "package", "version", "reads"), rows)
    else:
        print("no plug-in is installed here; docs/plugins.md says how to write one")


def _change(verb: str, summary: str) -> None:
    """Add a command that changes a filter's state: the store's function of the same name."""

    def command(
        name: VersionArgument,
        owner: OwnerOption = None,
        as_json: JsonOption = False,
        kafka: KafkaOption = None,
        redis: RedisOption = None,
    ) -> None:
        from broker.filters import store  # noqa: PLC0415

        change = {"remove": store.remove, "enable": store.enable, "disable": store.disable}[verb]
        with _refused():
            changed = change(_connected(kafka, redis), name, owner=owner, by=who())
        _report(changed, as_json)

    filters.command(verb, help=summary)(command)


_change("enable", "Put a draft into force, or resume a paused filter.")
_change("disable", "Pause a filter: it judges nothing until it is enabled.")
_change("remove", "Stop a filter for good; its topic and its versions are kept.")
filters.command("test")(try_out)
filters.command("explain")(explain)


def summary(added: Added) -> str:
    """What a change came to, in one line."""
    item = added.filter
    name = f"{item.owner}.{item.name} version {item.version}"
    if not added.written:
        name += f" was {item.state} already, nothing changed"
    if item.state == "draft":
        return f"{name}: a draft, which judges nothing; broker filters enable {item.label}"
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


def _print_list(items: list[Filter], drafts: Mapping[str, int]) -> None:
    """Filters as they stand.  drafts : version of the draft that waits, by filter."""
    rows = []
    for item in items:
        waiting = f" (draft {drafts[item.full_name]})" if item.full_name in drafts else ""
        state = item.state if item.state == "draft" else f"{item.state}{_share(item)}{waiting}"
        rows.append((item.full_name, str(item.version), state, item.payload, item.where))
    _print_table(("filter", "version", "state", "payload", "where"), rows)


def _print_versions(items: list[Filter], in_force: Filter) -> None:
    rows = []
    for item in items:
        changed = (item.created_at, item.changed_at, item.changed_by)
        rows.append((str(item.version), standing(item, in_force), *changed, item.where))
    _print_table(("version", "state", "created", "changed", "by", "where"), rows)


def _share(item: Filter) -> str:
    return f", {item.sample:.2g} of its hits" if item.sample < 1 else ""


def standing(item: Filter, in_force: Filter) -> str:
    """What a version of a filter does now; one that a newer one took over from is replaced."""
    return "replaced" if item.version < in_force.version else item.state


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*headings)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def who() -> str:
    """Who types this, as `versions` tells it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"user {os.getuid()}"


def _connected(kafka: str | None, redis: str | None) -> Settings:
    """Settings on servers that have the topics we need."""
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    return settings
