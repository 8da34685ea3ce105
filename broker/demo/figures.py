"""The figures of the live view, taken from the same samples that /metrics shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figures:
    """What the pipeline has done so far.

    outcomes : alerts by outcome (in, published, rejected, duplicate);  filters : hits by owner.name
    latency_s : (median, 99 %) from the input record's timestamp to the commit, by the histogram's buckets
    """

    outcomes: dict[str, int] = field(default_factory=dict)
    filters: dict[str, int] = field(default_factory=dict)
    latency_s: tuple[float, float] = (0.0, 0.0)
    waiting: int = 0


def figures_of(samples: Iterable[Any]) -> Figures:
    """Figures of the samples of one look at the metrics."""
    outcomes: dict[str, int] = defaultdict(int)
    filters: dict[str, int] = defaultdict(int)
    buckets: dict[float, float] = defaultdict(float)
    waiting = 0
    for sample in samples:
        if sample.name == "broker_alerts_total":
            outcomes[sample.labels["outcome"]] += int(sample.value)
        elif sample.name == "broker_filter_hits_total":
            filters[sample.labels["filter"]] += int(sample.value)
        elif sample.name == "broker_latency_seconds_bucket":
            buckets[float(sample.labels["le"])] += sample.value
        elif sample.name == "broker_consumer_lag":
            waiting += int(sample.value)
    bounds = sorted(buckets.items())
    return Figures(dict(outcomes), dict(filters), (quantile(bounds, 0.5), quantile(bounds, 0.99)), waiting)


def quantile(buckets: Sequence[tuple[float, float]], fraction: float) -> float:
    """A quantile of a cumulative histogram, linear within a bucket (as Prometheus estimates it).

    buckets : (upper bound, count up to it) in order, the last bound infinite;  0 if the histogram is empty

    >>> quantile([(1.0, 10.0), (2.0, 20.0), (float("inf"), 20.0)], 0.75)
    1.5
    """
    total = buckets[-1][1] if buckets else 0.0
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if total and count >= fraction * total:
            if upper == float("inf") or count == below:
                return lower
            return lower + (upper - lower) * (fraction * total - below) / (count - below)
        lower, below = upper, count
    return 0.0
