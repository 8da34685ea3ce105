"""What personal forests cost: the walk that all share, and each person's sum over the leaves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from broker.filters.compile import bind, compile_filter
from broker.filters.evaluate import compile_program
from broker.filters.functions import FOREST
from broker.personal import OwnerForests
from broker.scores.aad import grow, personal_forest, weighed
from broker.scores.personal import PERSONAL_INPUTS, warm_up
from broker.table import Column, ColumnSpec, Table

BATCH = 500
RECENT = 5000
MARKS = 20
OWNERS = (1, 10, 100)


@dataclass(frozen=True)
class PersonalCost:
    """CPU microseconds an alert on one core, medians over the repeats.

    owners : of one filter each of so many people, who marked other alerts each
    coniferest : of the library's own scoring, for one person
    """

    repeats: int
    owners: dict[int, float]
    coniferest: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(repeats: int) -> PersonalCost:
    """Filters of made-up people on made-up alerts."""
    warm_up()
    rng = np.random.default_rng(1)
    recent = rng.normal(size=(RECENT, len(PERSONAL_INPUTS)))
    trees = grow(recent, PERSONAL_INPUTS, seed=1)
    picks = [rng.choice(RECENT, MARKS, replace=False) for _ in range(max(OWNERS))]
    verdicts = np.arange(MARKS) % 2 == 0
    people = {
        f"p{number}": OwnerForests({"ztf": personal_forest(trees, recent[rows], verdicts, recent)})
        for number, rows in enumerate(picks)
    }
    specs = {name: ColumnSpec(name, "", "") for name in PERSONAL_INPUTS}
    specs["survey"] = ColumnSpec("survey", "", "", "string")
    survey = Column(specs["survey"], np.zeros(BATCH, dtype=np.int32), ("ztf",))
    columns = [Column(specs[name], recent[:BATCH, k].copy()) for k, name in enumerate(PERSONAL_INPUTS)]
    table = Table([survey, *columns], BATCH)
    filters = [
        bind(compile_filter(f"personal_anomaly('{name}') > 0.99", specs), {FOREST: people}) for name in people
    ]
    model = weighed(trees, recent[picks[0]], verdicts, recent)
    batch = trees.filled(recent[:BATCH])
    return PersonalCost(
        repeats,
        {
            count: _median_us(partial(compile_program(filters[:count], specs).evaluate, table), repeats)
            for count in OWNERS
        },
        _median_us(lambda: model.score_samples(batch), repeats),
    )


def _median_us(work: Callable[[], object], repeats: int) -> float:
    """CPU microseconds an alert of a batch."""
    spent = []
    for _ in range(repeats + 1):  # the first is thrown away
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent[1:]) / BATCH * 1e6
