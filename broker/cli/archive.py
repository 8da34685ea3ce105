"""`broker archive`: every published row as it was judged, in Parquet files."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import JsonOption, KafkaOption, kafka_connected, settings_from
from broker.errors import ArchiveError

if TYPE_CHECKING:
    from broker.archive.status import Status
    from broker.config import Settings

archive = typer.Typer(no_args_is_help=True, add_completion=False, help="Write and look at the archive.")

FolderOption = Annotated[
    Path | None, typer.Option("--archive", metavar="FOLDER", help="The archive's folder; else the settings'.")
]


@archive.command("write")
def write(
    folder: FolderOption = None,
    to_end: Annotated[bool, typer.Option("--to-end", help="End at the topic's end as it is now.")] = False,
    kafka: KafkaOption = None,
) -> None:
    """Write the folder from the topic `archive` until Ctrl-C, as `broker run` does unless told not to.

    May run on another host than the pipeline. One process writes a folder; another waits until it is gone.
    """
    from broker.archive.writer import ArchiveWriter  # noqa: PLC0415
    from broker.cli.progress import Meter  # noqa: PLC0415

    settings = with_folder(kafka_connected(settings_from(kafka)), folder)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    if to_end:
        stopping.set()
    with Meter("rows", 0) as meter:
        ArchiveWriter(settings, stopping.is_set, lambda rows: meter.advance(rows, rows)).run()


@archive.command("status")
def status(
    folder: FolderOption = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Nights, rows and bytes of the archive, and how far it is behind the topic."""
    from broker.archive.reader import Archive  # noqa: PLC0415
    from broker.archive.status import status_of  # noqa: PLC0415
    from broker.archive.writer import lag  # noqa: PLC0415

    settings = with_folder(settings_from(kafka), folder)
    opened = Archive(Path(settings.archive.folder))
    found = status_of(opened, lag(kafka_connected(settings)))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _print(found)


def with_folder(settings: Settings, folder: Path | None) -> Settings:
    """Settings that name an archive.  Raises ArchiveError."""
    if folder is not None:
        settings = replace(settings, archive=replace(settings.archive, folder=str(folder)))
    if not settings.archive.folder:
        raise ArchiveError("no archive is set; set archive.folder, or give --archive FOLDER")
    return settings


def _print(found: Status) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("survey", "night", "files", "rows", "MiB")
    for column in table.columns[2:]:
        column.justify = "right"
    for night in found.nights:
        mib = f"{night.bytes / 2**20:,.1f}"
        table.add_row(night.survey, night.night, f"{night.files:,}", f"{night.rows:,}", mib)
    Console().print(table)
    behind = sum((found.lag or {}).values())
    print(
        f"{found.archive.manifest.rows:,} rows in all; {behind:,} offsets of the topic are not in files yet"
    )
    for partition, start, end in found.archive.manifest.lost:
        print(f"LOST partition {partition}, offsets {start}..{end}: expired before they were written")
