"""`broker explain`: why a published alert got its probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.options import KafkaOption, kafka_connected, settings_from

_PATIENCE_S = 600.0


def explain(
    alert: Annotated[int, typer.Argument(help="diaSourceId (ZTF candid) of a published alert.")],
    survey: Annotated[str, typer.Option(help="Look in this survey's topic alone.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Show this many inputs of each stage.")] = 8,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a bundle; by default the one that scored the alert.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    kafka: KafkaOption = None,
) -> None:
    """Show which inputs moved each stage's answer about an alert, and how far.

    The figures are of the most probable class's log odds: of boosted trees their own contributions, of any
    other kind of model what changes when one input at a time is made usual.
    """
    from rich.console import Console  # noqa: PLC0415

    from broker.control.topic import ControlTail  # noqa: PLC0415
    from broker.explanation import explained, find_alert, scorer_of  # noqa: PLC0415
    from broker.models import load_checked  # noqa: PLC0415

    settings = kafka_connected(settings_from(kafka))
    with ControlTail(settings.kafka) as tail, Console(stderr=True).status(f"looking for alert {alert}"):
        state = tail.catch_up()
        found = find_alert(settings.kafka, state, alert, survey, _PATIENCE_S)
    done = explained(found, load_checked(model) if model else scorer_of(found, state, settings))
    if as_json:
        print(json.dumps(done.to_json(top)))
        return
    print(f"{found['objectName']}, alert {alert}, {found['survey']}, {found['band']} band")
    print(f"model {done.scorer.id}:{done.scorer.version}")
    for one in done.stages:
        print(f"\n{one.stage}: {one.answer} with probability {one.probability:.2f} ({one.method})")
        for share in one.shares[:top]:
            print(f"  {share.effect:+7.2f}  {share.input} = {share.value:.4g}")
