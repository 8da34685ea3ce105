"""`broker feedback`: what people say of alerts, from the command line."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import JsonOption, KafkaOption, RedisOption, settings_from
from broker.errors import FeedbackError, FilterError
from broker.feedback import Verdict

if TYPE_CHECKING:
    from broker.config import Settings
    from broker.feedback_store import Told
    from broker.table import ColumnSpec

feedback = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Mark alerts as interesting or boring; your own anomalies follow what you say.",
)

OwnerOption = Annotated[str, typer.Option(help="Who you are: 1 to 48 of a-z, 0-9 and '-'.")]
SurveyOption = Annotated[str, typer.Option(help="Whose alert it is, such as ztf or lsst.")]
AlertOption = Annotated[int, typer.Option(help="diaSourceId (ZTF candid) of a published alert.")]


@feedback.command("add")
def add(
    owner: OwnerOption,
    alert: AlertOption,
    verdict: Annotated[Verdict, typer.Option(help="Show me more, or less, of what is like it.")],
    survey: SurveyOption = "ztf",
    note: Annotated[str, typer.Option(help="For yourself.")] = "",
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Mark an alert; returns when every live worker judges by the forest that knows it.

    A second mark of the same alert takes the place of the first.
    """
    from broker import feedback_store  # noqa: PLC0415

    with _refused():
        feedback_store.check(owner, survey)  # before any server is asked for, or started
        settings, columns = _connected(kafka, redis), _columns()
        with _waiting("reading alerts, fitting"):
            told = feedback_store.add(
                settings, owner, survey, alert, verdict, by=_who(), columns=columns, note=note
            )
    _report(told, as_json)


@feedback.command("remove")
def remove(
    owner: OwnerOption,
    alert: AlertOption,
    survey: SurveyOption = "ztf",
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Take a mark back; returns when every live worker judges without it."""
    from broker import feedback_store  # noqa: PLC0415

    with _refused():
        feedback_store.check(owner, survey)
        settings, columns = _connected(kafka, redis), _columns()
        with _waiting("reading alerts, fitting"):
            told = feedback_store.remove(settings, owner, survey, alert, by=_who(), columns=columns)
    _report(told, as_json)


@feedback.command("list")
def list_(
    owner: OwnerOption, as_json: JsonOption = False, kafka: KafkaOption = None, redis: RedisOption = None
) -> None:
    """An owner's marks, and every forest made of them with the control epoch since which it judges."""
    from broker import feedback_store  # noqa: PLC0415

    found = feedback_store.describe(feedback_store.read(_connected(kafka, redis)), owner)
    if as_json:
        print(json.dumps(found))
        return
    _print("marks", found["marks"], ("survey", "alert", "objectName", "verdict", "at", "by", "note"))
    forests = [
        item | {"interesting": len(item["interesting"]), "boring": len(item["boring"])}
        for item in found["forests"]
    ]
    _print("forests", forests, ("survey", "revision", "epoch", "at", "interesting", "boring", "alerts"))


@feedback.command("suggest")
def suggest(
    owner: OwnerOption,
    survey: SurveyOption = "ztf",
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many objects.")] = 10,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """What to look at next: the recent alerts that are strangest to the owner, of objects not yet marked."""
    from broker import feedback_store  # noqa: PLC0415

    with _refused():
        feedback_store.check(owner, survey)
        settings = _connected(kafka, redis)
        with _waiting("reading alerts"):
            found = feedback_store.suggest(settings, owner, survey, count)
    if as_json:
        print(json.dumps(found))
        return
    _print("to look at", found, ("alert", "objectName", "rank", "midpointMjdTai", "ra", "dec", "mag"))


@feedback.command("trial")
def trial(
    data: Annotated[
        Path, typer.Option(help="Folder with photometry.parquet and labels.parquet.", show_default=False)
    ],
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """How far marks raise a class among held-out objects, in sessions played on labelled light curves."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from broker.training import marks  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("sessions", total=len(marks.CASES) * len(marks.WAYS) * marks.SPLITS)
        found = marks.measure(data, seed, lambda: bar.advance(task))
    if as_json:
        print(json.dumps([item.as_dict() for item in found]))
        return
    rows = [
        {
            "case": item.name,
            "marks": item.way,
            "objects": item.objects,
            "of the class": item.wanted,
            "AUC before": f"{item.before:.3f}",
            "after": f"{item.after:.3f}",
            "gain, 95 %": f"{item.gain:+.3f} ({item.interval[0]:+.3f} to {item.interval[1]:+.3f})",
            "interesting": f"{item.interesting:.1f}",
        }
        for item in found
    ]
    _print("before any mark and after all", rows, tuple(rows[0]) if rows else ())


def summary(told: Told) -> str:
    """What a mark came to, in a few lines."""
    mark, forest = told.mark, told.forest
    said = "no longer marked" if mark.removed else f"marked {mark.verdict}"
    lines = [
        f"{mark.object_name}, alert {mark.alert}, is {said} by {mark.owner}: forest {forest.revision} of "
        f"{mark.survey} knows {len(forest.interesting)} interesting and {len(forest.boring)} boring"
    ]
    if told.live:
        lines.append(f"live on {told.reached}/{told.live} workers, {told.seconds:.1f} s after it was said")
    else:
        lines.append("no worker is running: it takes effect when `broker run` starts")
    if told.filter is not None:
        lines.append(f"made the filter {told.filter.owner}.{told.filter.name}: {told.filter.where}")
        lines.append(f"listen with: broker listen {told.filter.topic}")
    return "\n".join([*lines, *([f"note: {told.note}"] if told.note else [])])


def _report(told: Told, as_json: bool) -> None:
    print(json.dumps(told.to_json()) if as_json else summary(told))
    if told.reached < told.live:
        missing = told.live - told.reached
        print(f"warning: {missing} live worker(s) did not answer in time; they will follow", file=sys.stderr)


def _print(title: str, rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # An id that is cut cannot be used: a narrow terminal gets it in two lines.
    table = Table(*(Column(name, overflow="fold") for name in names), title=title)
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in names))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _columns() -> dict[str, ColumnSpec]:
    from broker.columns import filter_columns  # noqa: PLC0415
    from broker.features.catalog import FEATURE_SPECS  # noqa: PLC0415
    from broker.scores.catalog import SCORE_SPECS  # noqa: PLC0415

    return filter_columns(FEATURE_SPECS, SCORE_SPECS)


def _connected(kafka: str | None, redis: str | None) -> Settings:
    """Settings on servers that have the topics we need."""
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    return settings


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"user {os.getuid()}"


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Say on a terminal what takes a few seconds."""
    from rich.console import Console  # noqa: PLC0415

    with Console(stderr=True).status(what):
        yield


@contextmanager
def _refused() -> Iterator[None]:
    """What a user wrote wrongly: say so, and end with 2."""
    try:
        yield
    except (FilterError, FeedbackError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
