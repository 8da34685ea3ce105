"""`broker annotate`: say something of an object, from the command line."""

from __future__ import annotations

import csv
import getpass
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.annotations.record import MAX_POINTS
from broker.cli.options import JsonOption, KafkaOption, RedisOption, settings_from
from broker.errors import AnnotationError

_TIME = ("midpointMjdTai", "mjd")
_COLUMNS = ("band", "psfFlux", "psfFluxErr")


def annotate(
    object_name: Annotated[
        str, typer.Argument(metavar="OBJECT", help="As astronomers write it, or its diaObjectId.")
    ],
    survey: Annotated[str, typer.Option(help="Whose object it is, such as ztf or lsst.")] = "ztf",
    class_name: Annotated[
        str | None, typer.Option("--class", help="A class, such as 'SN Ia'.", show_default=False)
    ] = None,
    probability: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Of that class.", show_default=False)
    ] = None,
    spectrum_type: Annotated[
        str | None, typer.Option(help="The type that a spectrum shows.", show_default=False)
    ] = None,
    redshift: Annotated[float | None, typer.Option(help="Its redshift.", show_default=False)] = None,
    redshift_kind: Annotated[str, typer.Option(help="Such as spectroscopic or photometric.")] = "",
    note: Annotated[str | None, typer.Option(help="For those who read it.", show_default=False)] = None,
    forced: Annotated[
        Path | None,
        typer.Option(help="CSV with midpointMjdTai, band, psfFlux, psfFluxErr [nJy].", show_default=False),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who says so; else your user name.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--id", help="The annotation's own name: it counts once."),
    ] = None,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Say something of an object; the workers judge its newest alert again, and all that follow know it.

    Each of --class, --spectrum-type, --redshift, --note and --forced is an annotation of its own.
    """
    from broker.annotations.send import checked, tell  # noqa: PLC0415
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415

    about = {"survey": survey, "object": object_name, "by": by or _who()} | ({"id": name} if name else {})
    said = [
        {"kind": "class", "class": class_name, "probability": probability} if class_name else None,
        {"kind": "spectrum-type", "class": spectrum_type} if spectrum_type else None,
        {"kind": "redshift", "redshift": redshift, "redshift_kind": redshift_kind}
        if redshift is not None
        else None,
        {"kind": "note", "text": note} if note else None,
    ]
    try:
        contents = [about | item for item in (*said, *(_forced(forced) if forced else ())) if item]
        if not contents:
            raise AnnotationError(
                "nothing is said; give --class, --spectrum-type, --redshift, --note, --forced"
            )
        if name and len(contents) > 1:
            raise AnnotationError("--id names one annotation; say one thing at a time")
        for content in contents:
            checked(content)  # before any server is asked for, or started
    except AnnotationError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    told = [tell(settings, content) for content in contents]
    if as_json:
        print(json.dumps([item.to_json() for item in told]))
        return
    for item in told:
        what = "" if item.written else ", as before: nothing was written"
        print(f"{survey}:{object_name} {item.annotation.said} (annotation {item.annotation.id}){what}")


def _forced(path: Path) -> Iterator[dict[str, Any]]:
    """The points of a CSV file, as annotations that are small enough.  Raises AnnotationError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            time = next((column for column in _TIME if column in names), "")
            if not time or not set(_COLUMNS) <= set(names):
                raise AnnotationError(
                    f"{path} has the columns {', '.join(names)}; needed are {_TIME[0]}, {', '.join(_COLUMNS)}"
                )
            points = [_point(path, number, row, time) for number, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"cannot read {path}: {error}") from error
    if not points:
        raise AnnotationError(f"{path} has no point")
    for first in range(0, len(points), MAX_POINTS):
        yield {"kind": "forced", "points": points[first : first + MAX_POINTS]}


def _point(path: Path, number: int, row: dict[str, Any], time: str) -> dict[str, Any]:
    try:
        numbers = (float(row[time]), float(row["psfFlux"]), float(row["psfFluxErr"]))
    except (TypeError, ValueError):
        raise AnnotationError(f"{path}, line {number}: time, flux and error must be numbers") from None
    band = (row["band"] or "").strip()
    return dict(zip(("midpointMjdTai", "psfFlux", "psfFluxErr"), numbers, strict=True)) | {"band": band}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"user {os.getuid()}"
