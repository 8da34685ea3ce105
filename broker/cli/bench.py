"""`broker bench`: what this machine can do, printed, never asserted."""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure this machine.")


@bench.callback()
def _group() -> None:
    """Measure this machine: ratios against bare libraries doing the same, medians of several repeats."""


@bench.command("end-to-end")
def end_to_end(
    alerts: Annotated[int, typer.Option(min=1000, help="How many alerts.")] = 10000,
    data: Annotated[
        list[Path] | None, typer.Option(help="Real alerts (files or folders) instead of simulated ones.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Alerts a second from input topic to committed output, and the ratio to bare Kafka moving as many bytes.

    Runs on servers of its own, started for it and thrown away. Real alerts repeat to make up the number:
    repeats of an alert are duplicates, which cost less, so give as many different ones as you can.
    """
    from broker import bench as measure  # noqa: PLC0415
    from broker.assemble import private_servers  # noqa: PLC0415
    from broker.config import load  # noqa: PLC0415

    packets = _packets(alerts, data)
    with tempfile.TemporaryDirectory() as slots, private_servers(load(env={})) as settings:
        result = measure.end_to_end(
            settings, packets, Path(slots), workers=workers, repeats=repeats,
            say=lambda text: print(text, file=sys.stderr),
        )  # fmt: skip
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    print(f"pipeline   {result.pipeline_per_s:10,.0f} alerts/s with {result.workers} worker(s)")
    print(f"bare Kafka {result.bare_per_s:10,.0f} messages/s, same bytes in and out, one process")
    print(f"ratio      {result.ratio:10.2f}  (median of {result.repeats} repeats)")


def _packets(alerts: int, data: list[Path] | None) -> list[bytes]:
    from broker.ingest.files import FilePacket, find_files, read_packets  # noqa: PLC0415
    from broker.simulate import simulate_ztf  # noqa: PLC0415

    if data:
        found = [item.value for item in read_packets(find_files(data)) if isinstance(item, FilePacket)]
        return list(islice(cycle(found), alerts))
    return [alert.value for alert in simulate_ztf(alerts, seed=1)]
