"""Exactly once under fire: kills, stops and faults on the wire drawn from a seed, judged by sets.

CHAOS_SEED, CHAOS_ALERTS, CHAOS_KILLS, CHAOS_WIRE and CHAOS_FILTERS change what is done; the long form is
`pytest -m soak tests/faults/test_chaos.py`. A failure prints the seed and the schedule that it came from.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from chaos.judge import Findings, judge
from chaos.run import Chaos
from chaos.schedule import Step, draw
from kafka_proxy import servers_behind_proxy

_SEED = 11


def size(name: str, default: int) -> int:
    """A size of the test: from the environment, else the default."""
    return int(os.environ.get(f"CHAOS_{name}", default))


def under_fire(folder: Path, alerts: int, steps: list[Step], seed: int, batches: tuple[int, int]) -> Findings:
    """A run under a schedule, judged; what happened is printed."""
    start = time.monotonic()
    with servers_behind_proxy() as (servers, proxy):
        with Chaos(servers, proxy, folder, seed=seed, alerts=alerts, batches=batches) as chaos:
            chaos.go(steps)
            chaos.finish()
        took = time.monotonic() - start
        findings = judge(chaos)
        wire = {f"{act} {kind}".strip(): count for (act, kind), count in sorted(proxy.done.items())}
        judged = time.monotonic() - start - took
    print(f"\nseed {seed}: {dict(findings.counts)} in {took:.0f} s, judged in {judged:.0f} s")
    print(f"done: {dict(chaos.done)}; on the wire, {sum(wire.values())} faults: {wire}")
    print(f"medians of recovery [s]: {findings.medians()}")
    print("\n".join(findings.diary))
    return findings


def check(findings: Findings, seed: int) -> None:
    """Nothing may be wrong; what is, is told with how to see it again."""
    told = "\n".join(f"- {problem}" for problem in findings.problems)
    diary = "\n".join(findings.diary)
    assert not findings.problems, f"CHAOS_SEED={seed}\n{told}\nwhat was done:\n{diary}"


def test_a_short_run_under_fire(tmp_path: Path) -> None:
    seed = size("SEED", _SEED)
    steps = draw(seed, size("KILLS", 8), size("WIRE", 10), size("FILTERS", 5), verdicts=3)
    findings = under_fire(tmp_path, size("ALERTS", 2000), steps, seed, (40, 120))
    check(findings, seed)


@pytest.mark.soak
def test_a_long_run_under_fire(tmp_path: Path) -> None:
    seed = size("SEED", _SEED)
    steps = draw(seed, size("KILLS", 200), size("WIRE", 200), size("FILTERS", 60), verdicts=20)
    findings = under_fire(tmp_path, size("ALERTS", 100_000), steps, seed, (100, 1000))
    check(findings, seed)
