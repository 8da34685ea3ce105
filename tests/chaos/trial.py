"""A run under a schedule of faults and its judgement, as the tests ask for it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka_proxy import KafkaProxy

from chaos.judge import Findings, judge
from chaos.run import Chaos
from chaos.schedule import Step

SEED = 11


def size(name: str, default: int) -> int:
    """A size of the test: from the environment (CHAOS_...), else the default."""
    return int(os.environ.get(f"CHAOS_{name}", default))


def under_fire(
    servers: Any,
    proxy: KafkaProxy | None,
    folder: Path,
    steps: Sequence[Step],
    *,
    alerts: int,
    seed: int = SEED,
    **settings: Any,
) -> None:
    """Carry out a schedule and judge the run; what happened is printed, what was wrong fails the test."""
    start = time.monotonic()
    with Chaos(servers, proxy, folder, seed=seed, alerts=alerts, **settings) as chaos:
        chaos.go(steps)
        chaos.finish()
    took = time.monotonic() - start
    findings = judge(chaos)
    _tell(chaos, findings, took, time.monotonic() - start - took)
    told = "\n".join(f"- {problem}" for problem in findings.problems)
    assert not findings.problems, f"CHAOS_SEED={seed}\n{told}\nwhat was done:\n" + "\n".join(chaos.diary)


def _tell(chaos: Chaos, findings: Findings, took_s: float, judged_s: float) -> None:
    print(f"\nseed {chaos.seed}: {dict(findings.counts)} in {took_s:.0f} s, judged in {judged_s:.0f} s")
    print(f"done: {_counted(chaos.done)}")
    if chaos.proxy is not None:
        wire = {f"{act} {kind}".strip(): count for (act, kind), count in chaos.proxy.done.items()}
        print(f"on the wire, {sum(wire.values())} faults: {_counted(wire)}")
    print(f"medians of recovery [s]: {findings.medians()}")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count)
