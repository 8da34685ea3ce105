"""Thousands of damaged stored values: each alert is out once, or a dead letter; the others are as ever."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from broker.config import load
from broker.filter import Filter
from broker.filters.live import compile_set
from broker.history.memory import MemoryStore
from broker.message import Message
from broker.pipeline import Pipeline, shipped_or_chosen_scorer
from broker.scores.catalog import Scorer
from broker.simulate import simulate_ztf
from broker.surveys.avro import LocalSchemas
from tests.damage import damaged

SETTINGS = load(env={}, path=None)
VALUES = [alert.value for alert in simulate_ztf(400, seed=8)]
FILTERS = [Filter("local", "all", 1, "psf_flux_err > 0", payload="standard")]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return shipped_or_chosen_scorer(SETTINGS)


def messages(values: list[bytes], first: int) -> list[Message]:
    return [Message("t", 0, first + at, 1_790_000_000_000, value) for at, value in enumerate(values)]


def vandalise(store: MemoryStore, rng: random.Random, share: float) -> int:
    """Damage some of everything that is stored; how much."""
    done = 0
    hashes: Any = [store.claims, *store.places.values()]
    for held in (store.curves, store.gated, *hashes):
        for key in list(held):
            if rng.random() < share:
                held[key] = damaged(held[key], rng)
                done += 1
    return done


@pytest.mark.parametrize("seed", range(3))
def test_nothing_stops_and_nothing_is_lost(scorer: Scorer, seed: int) -> None:
    rng, store, done = random.Random(seed), MemoryStore(), 0
    pipeline = Pipeline(store, scorer, LocalSchemas(), SETTINGS)
    filters = compile_set(3, FILTERS, {}, pipeline.columns)
    total: Counter[str] = Counter()
    for round_, first in enumerate(range(0, 400, 40)):
        batch = messages(VALUES[first : first + 40], first)
        again = messages(rng.sample(VALUES[: first + 40], 10), 10_000 + first)
        for part in (batch, again):
            done += vandalise(store, rng, 0.5)
            outcome = pipeline.process(part, filters)
            assert outcome.faults == []
            counts = Counter[str]()
            for (_, what, _), count in outcome.counts.items():
                counts[what] += count
            assert counts["in"] == len(part) == counts["published"] + counts["rejected"] + counts["duplicate"]
            total += counts
            if part is batch and round_ == 0:
                assert counts["published"] == 40, "nobody was first with these ids"
    assert done > 3000
    assert total["published"] == 400, "each once, however its claim was damaged afterwards"
    assert store.damage.met.keys() >= {"curve", "claim"}


def test_an_alert_that_meets_a_damaged_claim_is_a_dead_letter(scorer: Scorer) -> None:
    store = MemoryStore()
    pipeline = Pipeline(store, scorer, LocalSchemas(), SETTINGS)
    filters = compile_set(3, FILTERS, {}, pipeline.columns)
    pipeline.process(messages(VALUES[:5], 0), filters)
    place = sorted(store.claims)[0]
    store.claims[place] = b"damage"
    outcome = pipeline.process(messages(VALUES[:5], 50), filters)
    assert outcome.counts["ztf", "rejected", "unreadable_claim"] == 1
    assert outcome.counts["ztf", "duplicate", ""] == 4
    assert outcome.counts["ztf", "in", ""] == 5
    (letter,) = [packet for packet in outcome.packets if packet.topic == "dead-letters"]
    assert b"broker history rebuild" in dict(letter.headers)["detail"]
