"""Exactly once under fire: kills, stops and faults on the wire drawn from a seed, judged by sets.

CHAOS_SEED, CHAOS_ALERTS, CHAOS_KILLS, CHAOS_WIRE and CHAOS_FILTERS change what is done; the long form is
`pytest -m soak tests/faults/test_chaos.py`. A failure prints the seed and what was done when.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.schedule import draw
from chaos.trial import SEED, size, under_fire
from kafka_proxy import servers_behind_proxy


def test_a_short_run_under_fire(tmp_path: Path) -> None:
    seed = size("SEED", SEED)
    steps = draw(seed, size("KILLS", 8), size("WIRE", 10), size("FILTERS", 4), verdicts=2)
    with servers_behind_proxy() as (servers, proxy):
        under_fire(servers, proxy, tmp_path, steps, alerts=size("ALERTS", 2000), seed=seed)


@pytest.mark.soak
def test_a_long_run_under_fire(tmp_path: Path) -> None:
    seed = size("SEED", SEED)
    steps = draw(seed, size("KILLS", 200), size("WIRE", 200), size("FILTERS", 60), verdicts=20)
    alerts = size("ALERTS", 100_000)
    with servers_behind_proxy() as (servers, proxy):
        under_fire(servers, proxy, tmp_path, steps, alerts=alerts, seed=seed, batches=(100, 1000))
