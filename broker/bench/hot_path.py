"""What an alert costs between Kafka and Kafka: the pipeline's own stages, light curves held in memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from broker.bench.features import PacketCost, packet_cost
from broker.config import Settings
from broker.filters.live import FilterSet
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer, warm_up
from broker.scores.catalog import Scorer
from broker.surveys.avro import LocalSchemas
from broker.surveys.catalog import decode

_BATCH = 500


@dataclass(frozen=True)
class HotPath:
    """Microseconds an alert of wall time in each stage of one process, medians over the repeats.

    published : alerts that came out, each repeat;  the filters stage runs without a filter
    light_curves : CPU of assembling these alerts' light curves and of the features computed for each alert
    """

    alerts: int
    published: int
    repeats: int
    stages: dict[str, float]
    light_curves: PacketCost

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        curves = asdict(self.light_curves) | {"together": self.light_curves.together}
        return asdict(self) | {"total": self.total, "light_curves": curves}


def measure(settings: Settings, values: Sequence[bytes], repeats: int) -> HotPath:
    """Run the packets through the pipeline, every repeat on an empty store, after one uncounted."""
    settings = replace(settings, run=replace(settings.run, publish_private=True))
    scorer = shipped_or_chosen_scorer(settings)
    warm_up(scorer)
    messages = [Message("bench", 0, offset, 0, value) for offset, value in enumerate(values)]
    runs = [_run(settings, scorer, messages) for _ in range(repeats + 1)][1:]
    stages = {
        name: statistics.median(seconds[name] for seconds, _ in runs) / len(values) * 1e6
        for name in runs[0][0]
    }
    return HotPath(len(values), runs[0][1], repeats, stages, _light_curves(messages, repeats))


def _light_curves(messages: Sequence[Message], repeats: int) -> PacketCost:
    """Of the batch with the most alerts: a batch is one survey's."""
    batch = max(decode(messages, LocalSchemas()).batches, key=len)
    return packet_cost(batch.points, batch.midpoint_mjd_tai, repeats)


def _run(settings: Settings, scorer: Scorer, messages: Sequence[Message]) -> tuple[dict[str, float], int]:
    """(seconds in each stage, alerts published) of all messages, in batches."""
    pipeline = Pipeline(MemoryStore(), scorer, LocalSchemas(), settings)
    seconds: dict[str, float] = {}
    published = 0
    for first in range(0, len(messages), _BATCH):
        outcome = pipeline.process(messages[first : first + _BATCH], FilterSet(-1))
        for stage, taken in outcome.stage_s.items():
            seconds[stage] = seconds.get(stage, 0.0) + taken
        published += sum(n for (_, what, _), n in outcome.counts.items() if what == "published")
    return seconds, published
