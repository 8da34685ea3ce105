"""What an alert costs between Kafka and Kafka: the pipeline's own stages, light curves held in memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from broker.config import Settings
from broker.filters.live import FilterSet
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer, warm_up
from broker.scores.catalog import Scorer
from broker.surveys.avro import LocalSchemas

_BATCH = 500


@dataclass(frozen=True)
class HotPath:
    """Microseconds an alert of wall time in each stage of one process, medians over the repeats.

    published : alerts that came out, each repeat;  the filters stage runs without a filter
    """

    alerts: int
    published: int
    repeats: int
    stages: dict[str, float]

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"total": self.total}


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
    return HotPath(len(values), runs[0][1], repeats, stages)


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
