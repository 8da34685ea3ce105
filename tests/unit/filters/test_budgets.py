"""Budgets of filters: what is within them, what becomes of a filter beyond, which hits a sample keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from broker import control
from broker.budget_keeper import BudgetKeeper, Spent
from broker.config import FilterSettings, load
from broker.filter import Filter
from broker.filters import budgets, compile_filter, evaluate
from broker.filters.budgets import CostWindow, drawn, over_hits, restored, sampled
from broker.table import ColumnSpec, Table

RULE = Filter("jo", "bright", 2, "mag < 19")
NOON = 1_700_000_000 // 3600 * 3600
"""A full hour of UTC."""


def test_limits_are_the_filters_own_else_those_of_the_settings() -> None:
    settings = FilterSettings(max_hits_per_hour=10, max_us_per_alert=3)
    assert budgets.hits_limit(RULE, settings) == 10
    assert budgets.hits_limit(replace(RULE, max_hits_per_hour=20), settings) == 20
    assert budgets.time_limit_us(RULE, settings) == 3
    builtin = replace(RULE, owner="broker")
    assert (budgets.hits_limit(builtin, settings), budgets.time_limit_us(builtin, settings)) == (0, 0)
    assert budgets.hits_limit(replace(builtin, max_hits_per_hour=5), settings) == 5


def test_within_its_budget_a_filter_is_left_alone() -> None:
    assert over_hits(RULE, 1000, 1000, NOON, NOON + 60) is None
    assert over_hits(RULE, 10**9, 0, NOON, NOON + 60) is None


@pytest.mark.parametrize(
    ("seconds", "share"), [(1800, 0.5 / 1.001), (60, 1 / 60.06), (5, 1 / 60.06), (3599, 0.999)]
)
def test_at_first_a_share_is_published_that_would_keep_an_hour_within_the_limit(
    seconds: int, share: float
) -> None:
    change = over_hits(RULE, 1001, 1000, 0.0, NOON + seconds)
    assert change is not None
    assert (change.kind, change.filter.state) == ("filter_sampled", "active")
    assert change.filter.sample == pytest.approx(share, rel=1e-2)
    assert change.filter.sample <= share
    assert change.filter.sampled_hour == NOON // 3600
    for words in (
        "jo.bright@2 is sampled: 1,001 hits since",
        "more than 1,000 an hour",
        "--max-hits-per-hour",
    ):
        assert words in change.text


def test_a_filter_that_began_within_the_hour_is_judged_from_then_on() -> None:
    change = over_hits(RULE, 1001, 1000, NOON + 1800, NOON + 2400)
    assert change is not None
    assert change.filter.sample == pytest.approx(1000 / (1001 * 6), rel=1e-2)


@pytest.mark.parametrize(
    ("on_excess", "sample", "state", "kept"),
    [
        ("pause", 1.0, "paused", 1.0),
        ("sample-then-pause", 0.05, "paused", 1.0),
        ("sample", 0.05, "active", 0.005),
    ],
)
def test_what_becomes_of_it_is_its_owners_choice(
    on_excess: Any, sample: float, state: str, kept: float
) -> None:
    change = over_hits(replace(RULE, on_excess=on_excess, sample=sample), 1001, 1000, NOON, NOON + 600)
    assert change is not None
    assert (change.filter.state, change.filter.sample) == (state, pytest.approx(kept))
    assert "1,001 hits since" in change.filter.reason
    assert change.filter.changed_by == "broker"


def test_a_new_hour_restores_what_was_sampled() -> None:
    change = over_hits(RULE, 1001, 1000, NOON, NOON + 600)
    assert change is not None
    assert restored(change.filter, NOON + 3599) is None
    again = restored(change.filter, NOON + 3600)
    assert again is not None
    assert (again.kind, again.filter.sample, again.filter.reason) == ("filter_restored", 1.0, "")
    assert restored(RULE, NOON) is None


def test_a_sample_is_the_same_each_time_and_a_greater_one_holds_a_smaller_one() -> None:
    ids = np.random.default_rng(2).integers(1, 2**62, 40_000)
    small, large = drawn(ids, "jo.bright", 0.02), drawn(ids, "jo.bright", 0.3)
    assert np.array_equal(small, drawn(ids, "jo.bright", 0.02))
    assert np.array_equal(small[::-1], drawn(ids[::-1], "jo.bright", 0.02))
    assert (small <= large).all()
    assert small.mean() == pytest.approx(0.02, abs=0.003)
    assert large.mean() == pytest.approx(0.3, abs=0.01)
    both = large & drawn(ids, "jo.faint", 0.3)
    assert both.mean() == pytest.approx(0.09, abs=0.01)


def test_only_sampled_filters_lose_hits() -> None:
    ids = np.arange(1, 1001)
    masks = np.ones((2, 1000), dtype=np.bool_)
    assert sampled(masks, [RULE, RULE], ids) is masks
    kept = sampled(masks, [RULE, replace(RULE, sample=0.5)], ids)
    assert kept[0].all()
    assert np.array_equal(kept[1], drawn(ids, "jo.bright", 0.5))
    assert masks.all()


def test_a_cost_is_the_median_of_enough_batches() -> None:
    window = CostWindow()
    for _ in range(9):
        assert window.add(500 * 2.0, 500) == 2.0
    assert window.typical() == 0.0
    window.add(500 * 9000.0, 500)
    assert window.typical() == 2.0
    for _ in range(10):
        window.add(500 * 40.0, 500)
    assert window.typical() == 40.0
    assert CostWindow().add(100.0, 1) == 1.0  # an idle worker's small batches are not held against a filter


def test_conditions_that_are_no_clauses_are_timed_and_their_time_is_shared(
    table: Table, specs: dict[str, ColumnSpec]
) -> None:
    texts = [
        "mag < 19",
        "abs(mag) < 19",
        "abs(mag) < 19 and ra > 1",
        "ra > 1 or (log10(mag) > 1 and dec > 1)",
    ]
    cost = evaluate([compile_filter(text, specs) for text in texts], table).cost_ns
    assert cost[0] == 0
    assert 0 < cost[1] == cost[2]
    assert cost[3] > 0


class Clock:
    now = float(NOON)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(clock: Clock) -> BudgetKeeper:
    """A keeper that watches over one filter; nothing is written."""
    made = BudgetKeeper(
        load({"redis.url": "redis://127.0.0.1:1/0", "filters.max_us_per_alert": 50.0}, env={}), clock
    )
    made.serve(control.apply(control.ControlState(), 7, *control.filter_record(RULE)))
    return made


def test_a_slow_filter_is_paused_with_its_figure(keeper: BudgetKeeper) -> None:
    for _ in range(20):
        keeper.note(Spent(500, cost_ns={"jo.bright": 500 * 80e3, "jo.unknown": 1e12}))
    ((name, epoch), change), = keeper.due()  # fmt: skip
    assert (name, epoch, change.filter.state) == ("jo.bright", 7, "paused")
    assert "it takes 80 us an alert, more than 50" in change.text
    keeper.serve(control.apply(control.ControlState(), 9, *control.filter_record(RULE)))
    assert keeper.due() == []


def test_a_filter_within_its_time_is_left_alone(keeper: BudgetKeeper) -> None:
    for k in range(50):
        keeper.note(Spent(500, cost_ns={"jo.bright": 500 * (900e3 if k % 5 == 0 else 20e3)}))
    assert keeper.due() == []


def test_a_filter_that_fails_on_every_batch_for_ten_minutes_is_paused(
    keeper: BudgetKeeper, clock: Clock
) -> None:
    failing = Spent(5, failures={"jo.bright": "column 'x' is not in this batch"})
    for _ in range(20):
        keeper.note(failing)
        keeper.note(Spent(0))  # a batch without alerts says nothing
        clock.now += 30
    assert keeper.due() == []
    keeper.note(failing)
    ((_, change),) = keeper.due()
    assert "it could not be evaluated for 10 minutes, at last because of column 'x'" in change.text


def test_one_batch_that_it_judges_is_enough_for_a_filter_to_stay(keeper: BudgetKeeper, clock: Clock) -> None:
    for k in range(100):
        keeper.note(Spent(5, failures={} if k % 15 == 0 else {"jo.bright": "MemoryError"}))
        clock.now += 30
    assert keeper.due() == []


def test_nothing_answers_and_the_batches_go_on(keeper: BudgetKeeper) -> None:
    keeper.note(Spent(5, hits={"jo.bright": 10**9}))
    keeper.look()
    assert keeper.due() == []
