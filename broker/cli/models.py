"""`broker models`: which bundle scores, from the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import JsonOption, KafkaOption, RedisOption, settings_from

if TYPE_CHECKING:
    from broker.annotations.promoted import Asked
    from broker.config import Settings
    from broker.model_store import Promoted, Shadowed

models = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List, promote, roll back and shadow the models that score.",
)

GroupOption = Annotated[
    str,
    typer.Option(
        "--for", "--survey", metavar="SURVEY", help="A survey, or all that have no promotion of their own."
    ),
]
ReevaluateOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        metavar="DAYS",
        help="Score again the objects with alerts in so many last days; filters on scores get updates.",
    ),
]
WhyOption = Annotated[str, typer.Option(help="For those who read the list later.")]


@models.command("list")
def list_(as_json: JsonOption = False, kafka: KafkaOption = None, redis: RedisOption = None) -> None:
    """What is live, what scores beside it and how far it disagrees, and what each worker serves."""
    from broker import model_store  # noqa: PLC0415

    settings = _connected(kafka, redis)
    state = model_store.read(settings)
    beside = model_store.disagreements(settings, state)
    found = model_store.describe(state, settings, model_store.serving(settings), beside)
    if as_json:
        print(json.dumps(found))
        return
    _print_tables(found)
    if found["note"]:
        print(found["note"])


@models.command("show")
def show(
    name: Annotated[str, typer.Argument(help="ID:VERSION, or ID where there is one version.")],
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """One bundle: what it was made for, its card, and when it was promoted."""
    from broker import model_store  # noqa: PLC0415

    state = model_store.read(_connected(kafka, redis))
    found = model_store.details(state, model_store.find(state, name))
    if as_json:
        print(json.dumps(found))
        return
    manifest = found["manifest"]
    for what in ("id", "version", "sha256", "bytes", "at", "by"):
        print(f"{what:10} {found[what]}")
    print(f"{'created':10} {manifest['created']}")
    for stage in manifest["stages"]:
        print(f"{'stage':10} {stage['name']}: {', '.join(stage['classes'])}")
    for item in found["promotions"]:
        print(f"{_what(item):10} for {item['group']} at {item['at']} by {item['by']} {item['why']}".rstrip())
    if found["card"]:
        print(f"\n{found['card']}")


@models.command("promote")
def promote(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, name of a shipped one, or ID:VERSION.")],
    group: GroupOption = "all",
    version: Annotated[
        str | None, typer.Option(help="Store the folder's bundle under this version.", show_default=False)
    ] = None,
    reevaluate: ReevaluateOption = 1.0,
    why: WhyOption = "",
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Score by a bundle from now on, without a restart; returns when every live worker has it."""
    from broker import model_store  # noqa: PLC0415

    settings = _connected(kafka, redis)
    done = model_store.promote(settings, bundle, group=group, version=version, why=why)
    _report(done, _again(settings, done, reevaluate), as_json)


@models.command("rollback")
def rollback(
    group: GroupOption = "all",
    reevaluate: ReevaluateOption = 1.0,
    why: WhyOption = "",
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Score again by what was before the newest promotion; twice in a row goes back twice."""
    from broker import model_store  # noqa: PLC0415

    settings = _connected(kafka, redis)
    done = model_store.rollback(settings, group=group, why=why)
    _report(done, _again(settings, done, reevaluate), as_json)


@models.command("shadow")
def shadow(
    bundle: Annotated[
        str | None, typer.Argument(help="As for promote; none with --off.", show_default=False)
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Let nothing score beside the live model.")] = False,
    group: GroupOption = "all",
    version: Annotated[
        str | None, typer.Option(help="Store the folder's bundle under this version.", show_default=False)
    ] = None,
    why: WhyOption = "",
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
) -> None:
    """Score a share of the alerts by a bundle beside the live one; nothing of it is published.

    `broker models list` tells how far the two disagree; run.shadow_share is the share.
    """
    from broker import model_store  # noqa: PLC0415

    if off == (bundle is not None):
        raise typer.BadParameter("give a bundle, or --off")
    settings = _connected(kafka, redis)
    if bundle is None:
        done = model_store.shadow_off(settings, group=group, why=why)
    else:
        done = model_store.shadow(settings, bundle, group=group, version=version, why=why)
    print(json.dumps(done.to_json()) if as_json else shadow_summary(done))
    if done.serving < done.live:
        print(
            f"warning: {done.live - done.serving} worker(s) do not have it: they did not answer in time, or "
            "cannot load it (see the notices)",
            file=sys.stderr,
        )


def shadow_summary(done: Shadowed) -> str:
    """What setting a shadow came to, in one line."""
    item = done.shadow
    what = "no model" if item.bundle is None else str(item.bundle)
    again = "" if done.written else ", as before"
    return f"{what} scores {item.group} beside the live one{again}: {done.serving}/{done.live} workers"


def summary(done: Promoted) -> str:
    """What a change came to, in one line."""
    from broker.model_store import SHIPPED  # noqa: PLC0415

    item = done.promotion
    name = f"{item.bundle or f'the {SHIPPED} bundle'} for {item.group}"
    if not done.written:
        name += " was live already, nothing changed"
    if done.live == 0:
        return f"{name}: no worker is running: it takes effect when `broker run` starts"
    return f"{name}: live on {done.serving}/{done.live} workers in {done.seconds:.1f} s"


def _again(settings: Settings, done: Promoted, days: float) -> Asked | None:
    """Ask for what is to be scored again, if anything changed; says on stderr what was left out."""
    if not done.written or days == 0.0:
        return None
    from broker.annotations.promoted import ask_again  # noqa: PLC0415
    from broker.cli.progress import Meter  # noqa: PLC0415

    with Meter("alerts read and objects asked for", 0) as meter:
        asked = ask_again(settings, done, days, lambda count: meter.advance(count, count))
    if asked.asked < asked.objects:
        print(
            f"warning: {asked.objects:,} objects had alerts in the last {days:g} days; those with the newest "
            f"are judged again, run.reevaluate_max = {settings.run.reevaluate_max:,} of them",
            file=sys.stderr,
        )
    return asked


def _report(done: Promoted, asked: Asked | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(done.to_json() | {"reevaluated": asked.asked if asked else 0}))
    else:
        again = f"; {asked.asked:,} objects are judged again" if asked else ""
        print(summary(done) + again)
    if done.reached < done.live:
        missing = done.live - done.reached
        print(f"warning: {missing} live worker(s) did not answer in time; they will follow", file=sys.stderr)
    if done.serving < done.reached:
        others = done.reached - done.serving
        print(
            f"warning: {others} worker(s) serve another model: they cannot load this one (see the notices), "
            "or run.model is set for them",
            file=sys.stderr,
        )


def _print_tables(found: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    live = Table("for", "bundle", "since", "by", "how", "why", title="live")
    if "all" not in found["live"]:
        live.add_row("all", "shipped")
    for group, item in found["live"].items():
        cells = (group, item["bundle"], item["at"], item["by"], _what(item), item["why"])
        live.add_row(*(Text(cell) for cell in cells))
    beside = Table(
        "for", "shadow", "beside", "alerts", "differ", "distance", "anomaly", "failed", title="shadows"
    )
    for group, item in found["shadows"].items():
        for other, one in (item["against"] or {"": {}}).items():
            figures = [one.get(key) for key in _FIGURES]
            beside.add_row(*(Text(cell) for cell in (group, item["bundle"], other)), *map(_figure, figures))
    known = Table("bundle", "stored", "by", "bytes", "sha256", title="known")
    for item in found["known"]:
        name, size = f"{item['id']}:{item['version']}", f"{item['bytes']:,}"
        known.add_row(Text(name), Text(item["at"]), Text(item["by"]), size, item["sha256"][:12])
    workers = Table("worker", "serves", title="live workers")
    for slot, served in found["workers"].items():
        workers.add_row(Text(slot), Text(", ".join(f"{name} for {group}" for group, name in served.items())))
    console = Console()
    for table in (live, *([beside] if found["shadows"] else []), known, workers):
        console.print(table)


_FIGURES = ("alerts", "differs", "distance", "anomaly_difference", "failures")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _what(promotion: dict[str, Any]) -> str:
    return "rollback" if promotion["rollback"] else "promoted"


def _connected(kafka: str | None, redis: str | None) -> Settings:
    """Settings on servers that have the topics we need."""
    from broker.assemble import connected, ensure_topics  # noqa: PLC0415

    settings = connected(settings_from(kafka, redis))
    ensure_topics(settings)
    return settings
