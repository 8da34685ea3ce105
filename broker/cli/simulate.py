"""`broker simulate`: a labelled synthetic sky, as files or into a topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import KafkaOption, kafka_connected, settings_from

if TYPE_CHECKING:
    from broker.client.send import Pace
    from broker.config import Settings
    from broker.simulate.like import Like

_DEFAULT_OUT = Path("simulated")


def simulate(
    survey: Annotated[str, typer.Option(help="ztf or lsst.")] = "ztf",
    alerts: Annotated[int, typer.Option(min=1, help="How many alerts.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same alerts.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the files and truth.csv; default ./simulated.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Send them to this topic instead.")] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="Folder of labelled light curves whose real ZTF histories give cadence, depth and errors."
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="With --topic: messages a second.")] = None,
    kafka: KafkaOption = None,
) -> None:
    """Make alerts of a synthetic, labelled sky in a survey's own format."""
    from broker.cli.replay import pace_of  # noqa: PLC0415
    from broker.simulate.stream import FORMATS  # noqa: PLC0415

    known = [form.survey.name for form in FORMATS]
    if survey not in known:
        raise typer.BadParameter(f"unknown survey {survey!r}; choose one of {', '.join(known)}")
    if topic is not None and out is not None:
        raise typer.BadParameter("--out and --topic exclude each other; give one")
    if topic is None and rate is not None:
        raise typer.BadParameter("--rate is for --topic; files are written as fast as it goes")
    if like is not None and survey != "ztf":
        raise typer.BadParameter(f"--like knows real histories of ztf only, not of {survey}")
    real = _histories(like)
    if topic is None:
        _to_folder(out or _DEFAULT_OUT, survey, alerts, seed, real)
    else:
        _to_topic(kafka_connected(settings_from(kafka)), topic, pace_of(rate), survey, alerts, seed, real)


def _histories(folder: Path | None) -> Like | None:
    from broker.simulate.like import read_like  # noqa: PLC0415

    return None if folder is None else read_like(folder)


def _to_folder(out: Path, survey: str, alerts: int, seed: int, like: Like | None) -> None:
    from broker.cli.progress import Meter  # noqa: PLC0415
    from broker.simulate import write_folder  # noqa: PLC0415

    with Meter("alerts", alerts) as meter:
        truth = write_folder(out, alerts, seed, lambda _: meter.advance(1, 1), survey, like=like)
    print(f"wrote {alerts:,} {survey} alerts to {out}; what they really are: {truth}")


def _to_topic(
    settings: Settings,
    topic: str,
    pace: Pace | None,
    survey: str,
    alerts: int,
    seed: int,
    like: Like | None,
) -> None:
    from broker.cli.progress import Meter  # noqa: PLC0415
    from broker.client.send import Sender  # noqa: PLC0415
    from broker.message import Packet  # noqa: PLC0415
    from broker.simulate import simulate_lsst, simulate_ztf  # noqa: PLC0415

    made = simulate_lsst(alerts, seed) if survey == "lsst" else simulate_ztf(alerts, seed, like=like)
    sender = Sender(settings, pace)
    with Meter("alerts", alerts) as meter:
        for alert in made:
            sender.send(Packet(topic, None, alert.value))
            meter.advance(1, 1)
    sent = sender.finish()
    print(f"sent {sent.total:,} messages to {topic} ({sent.total:,} alerts)")
    sent.check()
