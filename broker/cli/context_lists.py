"""Watchlists and regions for `broker catalogs`, whose verbs they share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from broker.errors import FilterError, ListError

if TYPE_CHECKING:
    from broker.config import Settings
    from broker.context.stored import ListKind
    from broker.control import ControlState
    from broker.list_store import Changed, Contents

_GUESS_BYTES = 4 * 1024 * 1024


def is_region(path: Path) -> bool:
    """Whether a file is a MOC or a sky map, by its beginning."""
    from broker.context.region_files import looks_like_region  # noqa: PLC0415

    if not path.is_file():
        return False
    with path.open("rb") as file:
        return looks_like_region(file.read(_GUESS_BYTES))


def read_contents(kind: ListKind, paths: Sequence[Path], radius_arcsec: float | None) -> Contents:
    """A file ready to be stored, before any server is asked for.  Raises ListError."""
    from broker import list_store  # noqa: PLC0415
    from broker.cli.progress import Meter  # noqa: PLC0415

    if len(paths) != 1:
        raise typer.BadParameter(f"a {kind} is one file, {len(paths)} are given")
    try:
        content = paths[0].read_bytes()
    except OSError as error:
        raise ListError(f"{paths[0]} cannot be read: {error.strerror}") from None
    if kind == "region":
        return list_store.region(content)
    text = list_store.text_of(content)
    with Meter("rows", text.count("\n")) as meter:
        return list_store.watchlist(text, radius_arcsec, lambda rows: meter.advance(rows, rows))


def add(
    settings: Settings,
    name: str,
    contents: Contents,
    owner: str | None,
    description: str | None,
    *,
    purge: bool,
    as_json: bool,
) -> None:
    """Store a list, and say what it came to."""
    from broker import list_store  # noqa: PLC0415
    from broker.filters.store import DEFAULT_OWNER  # noqa: PLC0415

    try:
        changed = list_store.add(
            settings,
            name,
            contents,
            owner=owner or DEFAULT_OWNER,
            description=description,
            purge=purge,
            by="cli",
        )
    except FilterError as error:  # a name that cannot be one
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    _report(changed, as_json)


def remove(
    settings: Settings, kind: ListKind, name: str, owner: str | None, *, purge: bool, as_json: bool
) -> None:
    """Take a list away, and say what it came to."""
    from broker import list_store  # noqa: PLC0415
    from broker.filters.store import DEFAULT_OWNER  # noqa: PLC0415

    owner = owner or DEFAULT_OWNER
    _report(list_store.remove(settings, kind, name, owner=owner, purge=purge, by="cli"), as_json)


def kind_of(state: ControlState, name: str) -> Literal["catalog"] | ListKind:
    """What has a name, or had it; a catalogue if nothing has.  Raises BadParameter where several have."""
    kinds: list[Literal["catalog"] | ListKind] = [kind for kind, its in state.live_lists() if its == name]
    if not kinds and name not in state.catalogs:  # a list that was removed may still be purged
        kinds += [kind for kind, its in state.lists if its == name]
    if name in state.live_catalogs():
        kinds.append("catalog")
    if len(kinds) > 1:
        raise typer.BadParameter(f"{name!r} names {' and '.join(kinds)}; say which with --kind")
    return kinds[0] if kinds else "catalog"


def rows(state: ControlState, *, removed: bool) -> list[dict[str, Any]]:
    """The newest revision of each list, as JSON."""
    from broker import list_store  # noqa: PLC0415
    from broker.context.stored import LIST_KINDS  # noqa: PLC0415

    found = [item for kind in LIST_KINDS for item in list_store.newest(state, kind, removed=removed)]
    return [item.to_json() for item in found]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print lists as a table."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("kind", "name", "revision", "owner", "state", "what it is", "description")
    for row in rows:
        what = f"{row['rows']:,} positions" if row["form"] == "positions" else _extent(row)
        names = (row["kind"], row["name"], str(row["revision"]), row["owner"], row["state"])
        table.add_row(*(Text(cell) for cell in (*names, what, row["description"])))
    Console().print(table)


def _extent(row: dict[str, Any]) -> str:
    areas = (
        f"{area:,.4g} deg²" + ("" if level == "all" else f" at {level}")
        for level, area in row["areaDeg2"].items()
    )
    return ": ".join([row["form"], ", ".join(areas)])


def summary(changed: Changed) -> str:
    """What a change came to, in one line."""
    item = changed.item
    size = {"watchlist": f"{item.rows:,} positions", "region": f"a {item.form} of {item.rows:,} cells"}[
        item.kind
    ]
    what = f"{item.label}" + (f", {size}" if item.state == "active" else "")
    if not changed.written:
        what += ", was so already, nothing changed"
    verb = "live" if item.state == "active" else "removed"
    where = f"{verb} on {changed.reached}/{changed.live} workers in {changed.seconds:.1f} s"
    if changed.live == 0:
        where = "no worker is running: it takes effect when `broker run` starts"
    return f"{what}: {where}"


def _report(changed: Changed, as_json: bool) -> None:
    if as_json:
        print(json.dumps(changed.to_json()))
    else:
        print(summary(changed))
        use = {"watchlist": "in_watchlist('{}')", "region": "in_region('{}')"}[changed.item.kind]
        if changed.item.state == "active":
            print(f"in a filter: {use.format(changed.item.name)}")
        for note in changed.item.notes:
            print(f"note: {note}", file=sys.stderr)
    if changed.reached < changed.live:
        missing = changed.live - changed.reached
        print(f"warning: {missing} live worker(s) did not answer in time; they will follow", file=sys.stderr)
