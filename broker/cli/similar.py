"""`broker similar`: objects whose light curves are like an object's."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import JsonOption, KafkaOption, kafka_connected, settings_from
from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.config import Settings

_CONNECT_S = 5.0
_GATHER = 20_000


def similar(
    key: Annotated[
        str, typer.Argument(help="Key of its messages, as ztf:313311111111, or the object's name.")
    ],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    as_json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Objects near to one in the embedding of its light curve, the nearest first, with their likely classes.

    Asks the API where the settings say that it listens. Where nothing listens there, or with --kafka, the
    alert topics are read instead, which takes as long as they are.
    """
    settings = settings_from(kafka)
    found = None if kafka else _ask(settings, key, limit)
    if found is None:
        found = _read(kafka_connected(settings), key, limit)
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)


def _ask(settings: Settings, key: str, limit: int) -> dict[str, Any] | None:
    """What the API says; None where nothing listens.  Raises BrokerError if it refuses."""
    from urllib.error import HTTPError, URLError  # noqa: PLC0415
    from urllib.parse import quote  # noqa: PLC0415
    from urllib.request import urlopen  # noqa: PLC0415

    address = f"{_address(settings)}/api/v1/objects/{quote(key, safe='')}/similar?limit={limit}"
    try:
        with urlopen(address, timeout=_CONNECT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        with error:
            raise BrokerError(_reason(error.read())) from None
    except (URLError, TimeoutError, ValueError):
        return None


def _address(settings: Settings) -> str:
    host = f"[{settings.api.host}]" if ":" in settings.api.host else settings.api.host
    return settings.api.url.rstrip("/") or f"http://{host}:{settings.api.port}"


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "what answers at the API's address is not the API; see api.host and api.port, or give --kafka"


def _read(settings: Settings, key: str, limit: int) -> dict[str, Any]:
    from rich.console import Console  # noqa: PLC0415

    from broker.client import Stream  # noqa: PLC0415
    from broker.kafka.topics import ALERT_TOPICS  # noqa: PLC0415
    from broker.similar import SimilarIndex, embedded  # noqa: PLC0415

    index, read = SimilarIndex(), 0
    with (
        Console(stderr=True).status("reading the alert topics") as status,
        Stream(ALERT_TOPICS, settings.kafka, start="beginning") as stream,
    ):
        past = stream.past()
        while received := list(islice(past, _GATHER)):
            found = [embedded(item.message.key, item.value) for item in received]
            index.add(item for item in found if item is not None)
            read += len(received)
            status.update(f"reading the alert topics: {read:,} alerts, {len(index):,} objects")
    return {**index.similar(key, limit).to_json(), "objects": len(index), "complete": True}


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console, own = Console(), found["object"]
    names = ("distance", "key", "object", "class", "anomaly", "error", "ra", "dec")
    table = Table(*(Column(name, overflow="fold") for name in names))
    for item in [{"distance": 0.0, **own}, *found["similar"]]:
        likely = "-" if item["class"] is None else f"{item['class']} {item['probability']:.2f}"
        numbers = [_number(item[name], ".2f") for name in ("anomaly", "reconstructionError")]
        place = [_number(item[name], ".5f") for name in ("ra", "dec")]
        cells = [f"{item['distance']:.3f}", item["key"], item["objectName"], likely, *numbers, *place]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    note = "" if found["complete"] else "; the topics are still being read, some may be missing"
    print(f"of {found['objects']:,} objects, those of model {own['model']} were compared{note}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
