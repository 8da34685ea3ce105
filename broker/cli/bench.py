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
    from broker.assemble import private_servers  # noqa: PLC0415
    from broker.bench import end_to_end as measure  # noqa: PLC0415
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


@bench.command("history")
def history(
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 25,
    objects: Annotated[int, typer.Option(min=1000, help="Objects to measure memory with.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """CPU and wall time of a batch's two round trips to Redis, and memory an object and a point.

    Against a bare MGET and pipelined APPEND of the same bytes in the same run, on a server of its own.
    """
    from dataclasses import replace  # noqa: PLC0415

    from broker.bench.history import BATCH, history_cost  # noqa: PLC0415
    from broker.config import load  # noqa: PLC0415
    from broker.embedded import owned  # noqa: PLC0415

    settings = load(env={})
    with owned(kafka=False, quiet=True) as servers:
        settings = replace(settings, redis=replace(settings.redis, url=servers.addresses.redis_url))
        result = history_cost(
            settings, repeats=repeats, objects=objects, say=lambda text: print(text, file=sys.stderr)
        )
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    ways = (("store", result.store), ("bare redis-py", result.bare), ("bare, packed by hand", result.packed))
    for name, cost in ways:
        print(
            f"{name:<22}{cost.client_cpu_ms:7.2f} ms client CPU {cost.server_cpu_ms:7.2f} ms server CPU "
            f"{cost.wall_ms:7.2f} ms wall"
        )
    print(
        f"ratio to redis-py: client CPU {result.client_ratio:.2f}, with the server's {result.cpu_ratio:.2f}, "
        f"wall {result.wall_ratio:.2f}; CPU to the same packed by hand {result.packed_ratio:.2f}  "
        f"(batches of {BATCH} objects, median of {result.repeats})"
    )
    memory = result.memory
    print(
        f"memory: {memory.object_bytes:,.0f} bytes an object of {memory.points} points, "
        f"{memory.claim_bytes:.0f} of them its claim and {memory.place_bytes:.0f} its place on the sky; "
        f"{memory.point_bytes:.0f} a further point"
    )
    print(f"a million objects: {memory.million_gib:.2f} GiB, in proportion from {memory.objects:,}")


@bench.command("features")
def features(
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """CPU time an alert to assemble its light curve and compute its features, for three sizes of history."""
    from broker.bench.features import BATCH, feature_costs  # noqa: PLC0415

    costs = feature_costs(repeats)
    if as_json:
        print(json.dumps([cost.as_dict() for cost in costs]))
        return
    print(f"CPU us an alert on one core, batches of {BATCH}, median of {repeats} repeats")
    for cost in costs:
        print(f"{cost.size.label}: {cost.assembly + cost.cheap:.1f}")
        print(
            f"  assembly {cost.assembly:.1f}, features {cost.cheap:.1f}, expensive ones kept {cost.kept:.1f}"
        )
        each = ", ".join(f"{name} {value:.0f}" for name, value in cost.computed.items())
        print(f"  expensive ones computed anew, a row: {each}")


@bench.command("decode")
def decode(
    data: Annotated[
        list[Path] | None, typer.Option(help="Real alerts (files or folders) instead of simulated ones.")
    ] = None,
    alerts: Annotated[int, typer.Option(min=1, help="How many simulated alerts of each survey.")] = 500,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """CPU time to read an alert, and how many times that fastavro takes for the same packets."""
    from broker.bench.decode import measure  # noqa: PLC0415

    readings = measure(_values(alerts, data), repeats)
    if as_json:
        print(json.dumps([reading.as_dict() for reading in readings]))
        return
    for reading in readings:
        size = reading.mean_bytes / 1024
        print(f"{reading.survey}: {reading.alerts} alerts of {size:.0f} kB, CPU us an alert on one core")
        if reading.fastavro_reader is not None:
            print(_line("fastavro.reader", reading.fastavro_reader, reading.columns))
        print(_line("schemaless_reader, schema kept", reading.fastavro_schemaless, reading.columns))
        print(_line("to all mapped columns", reading.columns, reading.columns))
        print(_line("a walk that only skips", reading.skip, reading.columns))
        print(_line("to an alert batch", reading.batch, reading.columns))


@bench.command("hot-path")
def hot_path(
    data: Annotated[
        list[Path] | None, typer.Option(help="Real alerts (files or folders) instead of simulated ones.")
    ] = None,
    alerts: Annotated[int, typer.Option(min=1, help="How many simulated alerts of each survey.")] = 500,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time an alert takes in each stage of the pipeline, light curves in memory, no Kafka, no filter."""
    from broker.bench.hot_path import measure  # noqa: PLC0415
    from broker.config import load  # noqa: PLC0415

    result = measure(load(env={}), _values(alerts, data), repeats)
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    print(f"{result.alerts} packets, {result.published} alerts published, us an alert of wall time")
    for stage, microseconds in [*result.stages.items(), ("together", result.total)]:
        print(f"  {stage:12}{microseconds:10,.1f}")
    curves = result.light_curves
    print(f"CPU for light curves of {curves.points:.0f} points (median), us an alert")
    print(f"  assembly    {curves.assembly:10,.1f}")
    print(f"  features    {curves.cheap:10,.1f}  (but for the expensive ones)")


@bench.command("filters")
def filters(
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """CPU time a batch of a thousand and of ten thousand filters, and the ratio to Arrow's functions.

    Then that of matching a batch with a million and with ten million sources on disk, and of asking a
    watchlist of a million positions and regions of the sky.
    """
    from broker.bench import context as bench_context  # noqa: PLC0415
    from broker.bench import lists as bench_lists  # noqa: PLC0415
    from broker.bench.filters import COLUMNS, FEW, MANY, ROWS, SHARED_CLAUSES, measure  # noqa: PLC0415

    result = measure(repeats)
    matches = bench_context.measure(repeats)
    lists = bench_lists.measure(repeats)
    if as_json:
        parts = {"matches": [cost.as_dict() for cost in matches], "lists": lists.as_dict()}
        print(json.dumps({**result.as_dict(), **parts}))
        return
    print(f"CPU ms a batch of {ROWS} alerts by {COLUMNS} columns, median of {repeats} repeats")
    print(f"  {FEW:6,} filters, all clauses different      {result.few:8.2f}")
    print(f"  {MANY:6,} filters, all clauses different      {result.many:8.2f}")
    print(f"  {FEW:6,} filters drawn from {SHARED_CLAUSES} clauses       {result.shared_few:8.2f}")
    print(f"  {MANY:6,} filters drawn from {SHARED_CLAUSES} clauses       {result.shared_many:8.2f}")
    print(f"  {FEW:6,} filters by pyarrow.compute          {result.arrow:8.2f}")
    print(f"pyarrow.compute takes {result.ratio:.0f} times as long")
    print(f"ten times the filters of the same clauses take {result.growth:.1f} times as long")
    print(f"{MANY:,} texts are compiled in {result.compile_s:.1f} s, one program of them in ", end="")
    print(f"{result.program_s:.1f} s")
    print(f"CPU ms to match {bench_context.ALERTS} positions within {bench_context.RADIUS_ARCSEC:g} arcsec")
    for cost in matches:
        print(
            f"  {cost.sources:10,} sources {cost.warm:8.2f}; files not in memory {cost.cold:.2f} "
            f"({cost.cold_wall:.0f} ms of wall time); by numpy {cost.by_declination:.1f}"
        )
    print(f"CPU ms to ask a watchlist of {bench_lists.POSITIONS:,} about {bench_lists.ALERTS} alerts")
    print(f"  whether they are in it {lists.match_ms:.2f}, and at which entry {lists.entry_ms:.2f}")
    print(
        f"  read in {lists.read_s:.1f} s, packed in {lists.pack_s:.1f} s to {lists.stored_mib:.0f} MiB; "
        f"a worker takes it up in {lists.load_s:.1f} s and keeps {lists.held_mib:.0f} MiB"
    )
    for count, spent in lists.region_ms.items():
        print(f"CPU ms to ask {count:3} sky maps of {lists.region_mib:.0f} MiB {spent:8.2f}")


@bench.command("filter-topics")
def filter_topics(
    alerts: Annotated[int, typer.Option(min=1000, help="How many simulated alerts.")] = 20000,
    count: Annotated[int, typer.Option("--filters", min=1, help="Filters, with a topic each.")] = 1000,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Alerts a second with a thousand filters that publish to topics of their own, and the ratio to none.

    Runs on servers of its own, started for it and thrown away.
    """
    from broker.assemble import private_servers  # noqa: PLC0415
    from broker.bench.filter_topics import measure  # noqa: PLC0415
    from broker.config import load  # noqa: PLC0415

    packets = _packets(alerts, None)
    with tempfile.TemporaryDirectory() as slots, private_servers(load(env={})) as settings:
        result = measure(
            settings, packets, Path(slots), filters=count, workers=workers, repeats=repeats,
            say=lambda text: print(text, file=sys.stderr),
        )  # fmt: skip
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    print(f"{result.alerts:,} alerts, {result.workers} worker(s), {result.hits:.2f} hits an alert")
    print(f"no filter       {result.without_per_s:10,.0f} alerts/s")
    print(f"{result.filters:6,} filters  {result.with_per_s:10,.0f} alerts/s")
    print(f"ratio           {result.ratio:10.2f}  (median of {result.repeats} repeats)")


@bench.command("personal")
def personal(
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """CPU time an alert of filters on personal forests, by the number of people who have one."""
    from broker.bench.personal import BATCH, measure  # noqa: PLC0415

    result = measure(repeats)
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    print(f"CPU us an alert on one core, batches of {BATCH}, median of {repeats} repeats")
    for owners, cost in result.owners.items():
        print(f"  {owners:4} people {cost:8.2f}")
    print(f"  coniferest, one forest {result.coniferest:8.2f}")


@bench.command("start")
def start(
    cold: Annotated[bool, typer.Option("--cold", help="With nothing compiled: minutes a start.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; the median is printed.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time from the start of a worker's process until it is ready to join the group, and of a whole run.

    Runs on servers of its own, started for it and thrown away.
    """
    from broker.assemble import prepare, private_servers  # noqa: PLC0415
    from broker.bench.start import STEPS, measure  # noqa: PLC0415
    from broker.config import load  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as slots, private_servers(load(env={})) as settings:
        prepare(settings)
        result = measure(
            settings, Path(slots), repeats=repeats, cold=cold, say=lambda text: print(text, file=sys.stderr)
        )
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    print(f"start of a worker with {'an empty' if cold else 'a warm'} cache, s, median of {repeats}")
    for step, seconds in result.steps.items():
        print(f"  {step:10}{seconds:8.2f}  {STEPS[step]}")
    print(f"a worker is ready to join after {result.ready:.2f} s")
    print(f"`broker run` has joined after {result.run:.2f} s")


def _line(what: str, microseconds: float, ours: float) -> str:
    return f"  {what:32}{microseconds:10,.1f}{microseconds / ours:9.2f} x"


def _values(alerts: int, data: list[Path] | None) -> list[bytes]:
    """The packets of some files and folders, each once; simulated ones of each survey without."""
    from broker.ingest.files import FilePacket, find_files, read_packets  # noqa: PLC0415
    from broker.simulate import simulate_lsst, simulate_ztf  # noqa: PLC0415

    if data:
        return [item.value for item in read_packets(find_files(data)) if isinstance(item, FilePacket)]
    return [alert.value for make in (simulate_ztf, simulate_lsst) for alert in make(alerts, seed=1)]


def _packets(alerts: int, data: list[Path] | None) -> list[bytes]:
    from broker.ingest.files import FilePacket, find_files, read_packets  # noqa: PLC0415
    from broker.simulate import simulate_ztf  # noqa: PLC0415

    if data:
        found = [item.value for item in read_packets(find_files(data)) if isinstance(item, FilePacket)]
        return list(islice(cycle(found), alerts))
    return [alert.value for alert in simulate_ztf(alerts, seed=1)]
