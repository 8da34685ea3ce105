"""`broker explain`: why a published alert got its probabilities."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import KafkaOption, kafka_connected, settings_from
from broker.config import Settings
from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.scores.explain import Explanation


def explain(
    alert: Annotated[int, typer.Argument(help="diaSourceId (ZTF candid) of a published alert.")],
    top: Annotated[int, typer.Option(min=1, help="Show this many inputs of each stage.")] = 8,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    kafka: KafkaOption = None,
) -> None:
    """Show which inputs moved each stage's answer about an alert, and how far."""
    settings = kafka_connected(settings_from(kafka))
    found = _find(settings, alert)
    explanations = _explanations(found, model)
    if as_json:
        print(json.dumps({"diaSourceId": str(alert), "stages": [asdict(one) for one in explanations]}))
        return
    print(f"{found['objectName']}, alert {alert}, {found['survey']}, {found['band']} band")
    for one in explanations:
        print(f"\n{one.stage}: {one.answer} with probability {one.probability:.2f} ({one.method})")
        for share in one.shares[:top]:
            print(f"  {share.effect:+7.2f}  {share.input} = {share.value:.4g}")


def _find(settings: Settings, alert: int) -> dict[str, Any]:
    """The alert as it was published; all topics of alerts are read until it turns up."""
    from rich.console import Console  # noqa: PLC0415

    from broker.client import Stream  # noqa: PLC0415

    with (
        Console(stderr=True).status(f"looking for alert {alert}"),
        Stream("^alerts[.].*", settings.kafka, start="beginning") as stream,
    ):
        for received in stream.until_idle(1.0):
            if int(received.value["diaSourceId"]) == alert and received.value["kind"] == "alert":
                value: dict[str, Any] = received.value
                return value
    raise BrokerError(f"no alert {alert} in the topics alerts.*; their retention may be over")


def _explanations(found: dict[str, Any], model: Path | None) -> list[Explanation]:
    import numpy as np  # noqa: PLC0415

    from broker.batch import PACKET_COLUMNS  # noqa: PLC0415
    from broker.context import CONTEXT_NAMES, context_matrix  # noqa: PLC0415
    from broker.features.catalog import FEATURES  # noqa: PLC0415
    from broker.scores.bundle import read_manifest  # noqa: PLC0415
    from broker.scores.catalog import DEFAULT_BUNDLE  # noqa: PLC0415
    from broker.scores.explain import explain as explained  # noqa: PLC0415
    from broker.scores.stages import load_stages  # noqa: PLC0415

    def number(value: Any) -> float:
        return np.nan if value is None else float(value)

    folder = model or DEFAULT_BUNDLE
    names = [feature.name for feature in FEATURES]
    manifest = read_manifest(folder, names, CONTEXT_NAMES)
    stages = load_stages(folder, manifest)
    features = {name: number(value) for name, value in found["features"].items()}
    packet = {
        spec.name: np.array([number(found["packet"].get(spec.name.replace(".", "_")))])
        for spec in PACKET_COLUMNS
    }
    context = context_matrix(packet, np.array([found["ra"]]), np.array([found["dec"]]))[0]
    known = features | dict(zip(CONTEXT_NAMES, context.tolist(), strict=True))
    columns = [*manifest.feature_names, *manifest.context_names]
    row = np.array([known.get(name, np.nan) for name in columns])
    asked = [stage for stage in (stages.family, *stages.within.values()) if stage is not None]
    return [explained(stage, columns, row) for stage in asked]
