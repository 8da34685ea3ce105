"""`broker demo`: everything on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.options import settings_from


def demo(
    survey: Annotated[str | None, typer.Option(help="ztf or lsst; with --alerts, their input topic.")] = None,
    alerts: Annotated[
        list[Path] | None, typer.Option(help="Real alerts to play: files, folders, nightly tarballs.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Alerts a second.")] = 100.0,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0, help="End this many seconds after the first output.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser, once there is one.")] = True,
) -> None:
    """Everything on this machine: Kafka, Valkey, alerts, the pipeline and a live view; Ctrl-C stops all.

    Without --alerts it plays a simulated sky. The servers are private to the demo and leave nothing behind.
    """
    from broker.demo.feeder import Plan  # noqa: PLC0415
    from broker.demo.run import Demo  # noqa: PLC0415
    from broker.ingest.files import find_files  # noqa: PLC0415

    if survey not in (None, "ztf", "lsst"):
        raise typer.BadParameter(f"unknown survey {survey!r}; choose ztf or lsst")
    paths = tuple(path.absolute() for path in alerts or ())
    if paths:
        find_files(paths)
    result = Demo(settings_from(), Plan(survey, paths, rate), seconds).run()
    print("ledger: " + ("balanced" if result.balanced else "; ".join(result.problems)))
    sys.exit(0 if result.balanced else 1)
