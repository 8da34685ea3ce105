"""`broker catalogs`: what alerts are matched with, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from broker.cli import context_lists
from broker.cli.options import JsonOption, KafkaOption, RedisOption, settings_from
from broker.errors import CatalogError

if TYPE_CHECKING:
    from broker.catalog_store import Changed
    from broker.config import Settings

catalogs = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Add, list and remove what filters may match alerts with.",
)

Kind = Literal["catalog", "watchlist", "region"]

NameArgument = Annotated[str, typer.Argument(help="What filters call it: 1 to 48 of a-z, 0-9, '_' and '-'.")]
KindOption = Annotated[
    Kind | None, typer.Option(help="What it is; else a region where the file is one, else a catalogue.")
]
OwnerOption = Annotated[str | None, typer.Option(help="Whose watchlist or region; 'local' if not given.")]


@catalogs.command("add")
def add(
    name: NameArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Parquet, FITS, CSV or TSV files, or a HATS folder; CSV of a watchlist, MOC or sky map.",
        ),
    ],
    kind: KindOption = None,
    ra: Annotated[str, typer.Option(help="Column of the right ascension, if it has no usual name.")] = "",
    dec: Annotated[str, typer.Option(help="Column of the declination.")] = "",
    columns: Annotated[
        str | None, typer.Option(help="Columns to keep, separated by commas; all if not given, '' for none.")
    ] = None,
    footprint: Annotated[
        Path | None,
        typer.Option(help="MOC file of the sky it covers; outside, matches are failed, not absent."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is, for people.")] = None,
    owner: OwnerOption = None,
    radius: Annotated[
        float | None, typer.Option(help="Of a watchlist's entries that give none [arcsec]; 2 if not given.")
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Forget what the watchlist or region was before.")
    ] = False,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Add a catalogue, a watchlist or a region, or a new revision; returns when every live worker has it."""
    if kind is None and context_lists.is_region(paths[0]):
        kind = "region"
    if kind in {"watchlist", "region"}:
        contents = context_lists.read_contents(kind, paths, radius)
        return context_lists.add(
            _connected(kafka, redis), name, contents, owner, description, purge=purge, as_json=as_json
        )
    if purge:
        raise typer.BadParameter(
            "--purge is for watchlists and regions; `remove --purge` is for catalogues too"
        )
    from broker import catalog_store  # noqa: PLC0415
    from broker.cli.progress import Meter  # noqa: PLC0415

    kept = None if columns is None else [word.strip() for word in columns.split(",") if word.strip()]
    new = catalog_store.New(name, paths, ra, dec, kept, footprint, description or "")
    try:
        of = catalog_store.chosen(new)  # before any server is asked for, or started
        settings = _connected(kafka, redis)
        with Meter("rows", of.rows) as meter:
            done = catalog_store.add(settings, new, lambda rows: meter.advance(rows, rows), of=of)
    except CatalogError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    _report(done, as_json)


@catalogs.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Removed ones too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read all files, and compare their hashes.")] = False,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """What there is; of catalogues the columns, and whether this machine can read them."""
    from broker import catalog_store  # noqa: PLC0415

    settings = _connected(kafka, redis)
    known = catalog_store.read(settings)
    items, lists = (
        catalog_store.listed(known, removed=everything),
        context_lists.rows(known, removed=everything),
    )
    live = [item for item in items if item.state == "active"]
    problems = {item.name: catalog_store.problem(settings, item, whole=check) for item in live}
    if as_json:
        rows = [
            {"kind": "catalog", **catalog_store.as_json(it), "problem": problems.get(it.name, "")}
            for it in items
        ]
        print(json.dumps([*rows, *lists]))
        return
    for item in items:
        state = "" if item.state == "active" else f", {item.state}"
        print(
            f"{item.name}  revision {item.revision}, {item.rows:,} rows{state}  {item.description}".rstrip()
        )
        for column in item.columns if item.state == "active" else ():
            print(f"    {column.name:24} {column.kind:7} {column.unit:10} {column.doc}".rstrip())
        if problems.get(item.name):
            print(f"    this machine cannot read it: {problems[item.name]}")
    if lists:
        context_lists.show(lists)


@catalogs.command("remove")
def remove(
    name: NameArgument,
    kind: KindOption = None,
    owner: OwnerOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="Forget all revisions too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also if active filters name it.")] = False,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Take it away; what it was is kept for those who look back.

    No active filter may name a catalogue that is removed; one that names a watchlist or region gets NULL.
    """
    from broker import catalog_store  # noqa: PLC0415

    settings = _connected(kafka, redis)
    kind = kind or context_lists.kind_of(catalog_store.read(settings), name)
    if kind == "catalog":
        return _report(catalog_store.remove(settings, name, purge=purge, force=force), as_json)
    context_lists.remove(settings, kind, name, owner, purge=purge, as_json=as_json)


def summary(done: Changed) -> str:
    """What a change came to, in one line."""
    item = done.catalog
    what = f"{item.name} revision {item.revision}: {item.rows:,} rows, {len(item.columns)} columns"
    if item.state == "removed":
        what = f"{item.name} is removed"
    if done.skipped:
        what += f", {done.skipped:,} rows without a position left out"
    if not done.written:
        what += "; it was so already, nothing changed"
    if done.live == 0:
        return f"{what}; no worker is running: it takes effect when `broker run` starts"
    return f"{what}; taken by {done.reached}/{done.live} workers in {done.seconds:.1f} s"


def _report(done: Changed, as_json: bool) -> None:
    print(json.dumps(done.to_json()) if as_json else summary(done))
    if done.reached < done.live:
        missing = done.live - done.reached
        print(f"warning: {missing} live worker(s) did not answer in time; they will follow", file=sys.stderr)


def _connected(kafka: str | None, redis: str | None) -> Settings:
    """Settings on servers that have the topics we need."""
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    return settings
