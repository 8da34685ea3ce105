"""Measuring what a thousand filters with a topic each cost the whole pipeline, on real Kafka.

A transaction pays for every partition that it touches, so filters with few hits each cost more than the bytes
they publish. Measured with all filters active and with all paused, in turn, on the same input.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from broker import control
from broker.assemble import ensure_topics
from broker.bench.end_to_end import fill, pipeline_rate
from broker.config import Settings
from broker.control.topic import ControlWriter
from broker.filter import Filter, State
from broker.kafka.clients import admin, create_topics
from broker.kafka.reading import committed_values
from broker.kafka.topics import filter_spec

HITS_AN_ALERT = 0.2
_OWNER = "bench"
_TOPIC = "bench_input"


@dataclass(frozen=True)
class FilterTopics:
    """Alerts a second with and without filters, medians over the repeats.

    hits : published by all filters an alert;  ratio : with over without, the median of the repeats' own
    """

    alerts: int
    workers: int
    filters: int
    repeats: int
    hits: float
    with_per_s: float
    without_per_s: float
    ratio: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def measure(
    settings: Settings,
    packets: Sequence[bytes],
    slots: Path,
    *,
    filters: int,
    workers: int,
    repeats: int,
    say: Callable[[str], None],
) -> FilterTopics:
    """Measure on servers that are this process's own."""
    ensure_topics(settings)
    made = bench_filters(filters)
    create_topics(
        admin(settings.kafka), [filter_spec(item.owner, item.name, settings.topics) for item in made]
    )
    fill(settings, _TOPIC, packets)
    say(f"{len(packets):,} alerts are in Kafka, {filters:,} filters have their topics")
    rates: dict[State, list[float]] = {"paused": [], "active": []}
    for repeat in range(repeats):
        for state, found in rates.items():
            store(settings, made, state)
            group = f"bench-{state}-{repeat}"
            found.append(pipeline_rate(settings, _TOPIC, group, workers, slots))
        say(f"repeat {repeat + 1}: {rates['paused'][-1]:,.0f}/s without, {rates['active'][-1]:,.0f}/s with")
    ratios = [ours / bare for ours, bare in zip(rates["active"], rates["paused"], strict=True)]
    return FilterTopics(
        len(packets), workers, filters, repeats, _hits(settings, made) / repeats / len(packets),
        statistics.median(rates["active"]), statistics.median(rates["paused"]), statistics.median(ratios),
    )  # fmt: skip


def bench_filters(count: int) -> list[Filter]:
    """Filters that together pass HITS_AN_ALERT of alerts that lie anywhere: a strip of the sky each."""
    step = 360.0 / count
    strips = [(number * step, (number + HITS_AN_ALERT) * step) for number in range(count)]
    return [
        Filter(_OWNER, f"strip-{number}", 1, f"ra >= {low!r} and ra < {high!r}")
        for number, (low, high) in enumerate(strips)
    ]


def store(settings: Settings, filters: Sequence[Filter], state: State) -> None:
    """Write the filters to `control` in a state."""
    writer = ControlWriter(settings.kafka)
    for item in filters:
        writer.write(*control.filter_record(replace(item, state=state)))


def _hits(settings: Settings, filters: Sequence[Filter]) -> int:
    """Messages in the filters' topics."""
    return sum(1 for _ in committed_values(settings.kafka, [(item.topic, 0) for item in filters]))
