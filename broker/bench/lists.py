"""What a watchlist of a million positions and regions of the sky cost: to store, to load and to ask."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from broker.context.positions import Positions, pack_positions, read_csv, unpack_positions
from broker.context.regions import BoundRegion, Region, map_region, merged
from broker.context.stored import blob_records
from broker.context.watchlists import BoundWatchlist

F64 = npt.NDArray[np.float64]

ALERTS = 500
POSITIONS = 1_000_000
RADIUS_DEG = 2.0 / 3600.0
REGIONS = (1, 100)
MAP_ORDER = 8
"""786,432 pixels, of which none are alike."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class ListsCost:
    """Of a list of POSITIONS named positions, and of sky maps of 12 * 4**MAP_ORDER cells.

    read_s, pack_s : CPU, from CSV and into what is stored;  stored_mib : of its messages
    load_s : CPU of a worker that takes it up;  held_mib : memory that it keeps for it
    match_ms, entry_ms : CPU of ALERTS alerts, whether they are at an entry, and which
    region_ms : CPU of ALERTS alerts, by the number of different regions that are asked
    region_mib : memory of one
    """

    repeats: int
    read_s: float
    pack_s: float
    stored_mib: float
    load_s: float
    held_mib: float
    match_ms: float
    entry_ms: float
    region_ms: dict[int, float]
    region_mib: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(repeats: int, positions: int = POSITIONS, order: int = MAP_ORDER) -> ListsCost:
    """Random positions all over the sky, every third with a radius of its own, and a smooth sky map."""
    rng = np.random.default_rng(1)
    text = made_csv(positions, rng)
    entries, read_s = _timed(lambda: read_csv(text).positions)
    packed, pack_s = _timed(lambda: pack_positions(entries))
    stored = sum(len(value) for _, value in blob_records(packed)[1])
    _bound(entries)  # compiles
    watch, load_s = _timed(lambda: _bound(unpack_positions(packed)))
    region = made_map(order, rng)
    regions = [BoundRegion(region) for _ in range(max(REGIONS))]
    return ListsCost(
        repeats,
        read_s,
        pack_s,
        stored / 2**20,
        load_s,
        _kept_mib(lambda: _bound(unpack_positions(packed))),
        _median_ms(lambda at: watch({}, *at, np.asarray(RADIUS_DEG)), repeats, rng),
        _median_ms(lambda at: watch.entries({}, *at, np.asarray(RADIUS_DEG)), repeats, rng),
        {count: _median_ms(partial(_ask, regions[:count]), repeats, rng) for count in REGIONS},
        sum(array.nbytes for array in (region.starts, region.ends, region.levels)) / 2**20,
    )


def made_csv(count: int, rng: np.random.Generator) -> str:
    """A table of named positions, every third with a radius."""
    ra, dec = sky(count, rng)
    rows = (
        f"target-{row},{a!r},{d!r},{'' if row % 3 else 1.5}\n"
        for row, (a, d) in enumerate(zip(ra.tolist(), dec.tolist(), strict=True))
    )
    return "name,ra,dec,radius_arcsec\n" + "".join(rows)


def made_map(order: int, rng: np.random.Generator) -> Region:
    """A sky map that falls off along the sky's numbers, with noise in every pixel."""
    count = 12 * 4**order
    return map_region(*merged(np.exp(-np.arange(count) * 8 / count) * rng.uniform(0.9, 1.1, count), order))


def sky(count: int, rng: np.random.Generator) -> tuple[F64, F64]:
    """Positions spread evenly over the sky [deg]."""
    return rng.uniform(0.0, 360.0, count), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, count)))


def _bound(positions: Positions) -> BoundWatchlist:
    watch = BoundWatchlist.of(positions, None)
    watch({}, np.zeros(1), np.zeros(1), np.zeros(()))
    return watch


def _ask(regions: list[BoundRegion], at: tuple[F64, F64]) -> None:
    memo: dict[Any, Any] = {}
    for region in regions:
        region(memo, *at, 0.9)


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def _kept_mib(work: Callable[[], Any]) -> float:
    """Memory that stays in use for what a call gives."""
    tracemalloc.start()
    kept = work()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size / 2**20


def _median_ms(work: Callable[[tuple[F64, F64]], Any], repeats: int, rng: np.random.Generator) -> float:
    """Median over other positions each time; the first is thrown away."""
    spent = [_timed(partial(work, sky(ALERTS, rng)))[1] for _ in range(repeats + 1)]
    return statistics.median(spent[1:]) * 1e3
