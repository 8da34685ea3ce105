"""How long a worker takes from the start of its process until it is ready for alerts, part by part."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

from broker import worker
from broker.config import Settings
from broker.environment import variable
from broker.errors import BrokerError

STEPS = {
    "process": "a new interpreter",
    "imports": "modules",
    "load": "the model",
    "warm_up": "compiled code, from its cache or made anew",
    "state": "Redis and what it holds, control topic, filters, the transactional producer",
    "join": "the consumer group, until the partitions are given out",
}
"""The parts of a start in their order; all but the last make a worker ready to join."""
_PATIENCE_S = 600.0
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True)
class Start:
    """Seconds, medians over the repeats.

    steps : each of STEPS, of a worker alone;  ready : all until it joins the group
    run : from the command `broker run` until its one worker has joined
    cold : nothing was compiled before
    """

    cold: bool
    repeats: int
    steps: dict[str, float]
    ready: float
    run: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Clock:
    """Told of each part in the worker, it tells this process when that was."""

    told: Connection

    def __call__(self, step: str) -> None:
        self.told.send((step, time.monotonic()))


def measure(
    settings: Settings, slots: Path, *, repeats: int, cold: bool, say: Callable[[str], None]
) -> Start:
    """Start workers and whole runs one after another, on servers that are prepared for them.

    Warm: after one uncounted start, with the cache that this installation uses. Cold: with an empty cache
    each. Raises BrokerError when a worker does not come up.
    """
    starts, runs = [], []
    for number in range(repeats + (not cold)):
        with _cache(cold):
            starts.append(_worker_start(settings, slots))
        with _cache(cold):
            runs.append(_run_start(settings, slots))
        parts = ", ".join(f"{step} {seconds:.2f}" for step, seconds in starts[-1].items())
        say(f"start {number + 1}: {parts}; run {runs[-1]:.2f}")
    counted = starts[-repeats:]
    steps = {step: statistics.median(start[step] for start in counted) for step in STEPS}
    ready = statistics.median(sum(start.values()) - start["join"] for start in counted)
    return Start(cold, repeats, steps, ready, statistics.median(runs[-repeats:]))


def _worker_start(settings: Settings, slots: Path) -> dict[str, float]:
    """Seconds of each part of one worker's start; the worker is gone afterwards."""
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    gate, bolt = context.Pipe(duplex=False)
    bolt.close()
    hear, tell = context.Pipe(duplex=False)
    process = context.Process(target=worker.main, args=(settings, slots, lifeline, gate, _Clock(tell)))
    last, seconds = time.monotonic(), {}
    process.start()
    tell.close()
    try:
        for expected in STEPS:
            if not hear.poll(_PATIENCE_S):
                raise BrokerError(f"a worker is not done with {expected!r} after {_PATIENCE_S:.0f} s")
            step, at = hear.recv()
            seconds[step], last = at - last, at
    except EOFError:
        raise BrokerError("a worker ended in its start; it says why above") from None
    finally:
        held.close()
        process.join()
    return seconds


def _run_start(settings: Settings, folder: Path) -> float:
    """Seconds from the command `broker run` until its worker has joined; the run is over afterwards."""
    import redis  # noqa: PLC0415 (a worker that is measured imports this file too, and must not pay for it)

    from broker.heartbeats import live_workers  # noqa: PLC0415

    ours = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    ours |= {
        "BROKER_KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "BROKER_REDIS_URL": settings.redis.url,
        "BROKER_DATA_DIR": str(folder),
        "BROKER_METRICS_PORT": "0",
        "BROKER_RUN_GROUP": f"run-{uuid4().hex}",  # the worker before this one may still count as live
    }
    command = [sys.executable, "-m", "broker", "run", "--workers", "1"]
    start = time.monotonic()
    with (
        redis.Redis.from_url(settings.redis.url) as beats,
        subprocess.Popen(command, env=ours, cwd=folder, stderr=subprocess.DEVNULL) as run,
    ):
        try:
            while not any(beat.ready for beat in live_workers(beats, ours["BROKER_RUN_GROUP"])):
                if run.poll() is not None or time.monotonic() - start > _PATIENCE_S:
                    raise BrokerError("`broker run` does not come up; run it by itself to see why")
                time.sleep(_LOOK_EVERY_S)
            return time.monotonic() - start
        finally:
            run.terminate()


@contextmanager
def _cache(empty: bool) -> Iterator[None]:
    """For a while an empty cache of compiled code in the place of this installation's, if asked for."""
    if not empty:
        yield
        return
    with tempfile.TemporaryDirectory() as folder, variable("NUMBA_CACHE_DIR", folder):
        yield
