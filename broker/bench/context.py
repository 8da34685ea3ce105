"""What matching a batch with a catalogue costs: warm, and after the system has forgotten its files."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.astro.sky import separation_deg
from broker.context.catalog_build import build, choose
from broker.context.catalog_files import Chunk, SourceColumn
from broker.context.catalogs import Catalog, open_catalog
from broker.near import NearCatalog

F64 = npt.NDArray[np.float64]

ALERTS = 500
RADIUS_ARCSEC = 5.0
SOURCES = (1_000_000, 10_000_000)
_CHUNK = 500_000


@dataclass(frozen=True)
class MatchCost:
    """Milliseconds to find the nearest source of each of ALERTS random positions, and a column of it.

    warm : CPU, of positions that were not asked for before
    cold, cold_wall : CPU and wall time of the first batch after the files were dropped from the page cache,
    if the system does as it is asked
    by_declination : CPU of numpy, sources sorted by declination and in memory
    add_s : CPU seconds to make the catalogue's files;  mib : their size
    """

    sources: int
    warm: float
    cold: float
    cold_wall: float
    by_declination: float
    add_s: float
    mib: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(repeats: int, sources: Sequence[int] = SOURCES) -> list[MatchCost]:
    """Random sources all over the sky, on disk as `broker catalogs add` puts them there."""
    with tempfile.TemporaryDirectory() as folder:
        return [_measure(repeats, count, Path(folder) / str(count)) for count in sources]


def _measure(repeats: int, sources: int, folder: Path) -> MatchCost:
    folder.mkdir()
    start = time.process_time()
    manifest, sha256 = build(choose([RandomSky(sources)]), folder)
    add_s = time.process_time() - start
    rng = np.random.default_rng(2)
    cold = [_cold(folder, sha256, rng) for _ in range(min(repeats, 3) + 1)][1:]
    catalog = open_catalog(folder, sha256)
    warm = [_cpu_ms(lambda: _match(catalog, *_sky(ALERTS, rng))) for _ in range(repeats + 1)][1:]
    order = np.argsort(catalog.index.dec)
    ra, dec = np.asarray(catalog.index.ra)[order], np.asarray(catalog.index.dec)[order]
    plain = [_cpu_ms(lambda: by_declination(ra, dec, *_sky(ALERTS, rng))) for _ in range(repeats + 1)][1:]
    return MatchCost(
        sources,
        statistics.median(warm),
        statistics.median(cpu for cpu, _ in cold),
        statistics.median(wall for _, wall in cold),
        statistics.median(plain),
        add_s,
        sum(size for size, _ in manifest.files.values()) / 2**20,
    )


def _match(catalog: Catalog, ra: F64, dec: F64) -> Any:
    near, radius = NearCatalog("random", catalog), np.asarray(RADIUS_ARCSEC / 3600.0)
    memo: dict[Any, Any] = {}
    return near(memo, ra, dec, radius), near.member("mag", memo, ra, dec, radius)


def _cold(folder: Path, sha256: str, rng: np.random.Generator) -> tuple[float, float]:
    """CPU and wall time [ms] of a batch on files that were just dropped from the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            _forget(file.fileno())
    catalog = open_catalog(folder, sha256)
    sky, start = _sky(ALERTS, rng), time.perf_counter()
    return _cpu_ms(lambda: _match(catalog, *sky)), (time.perf_counter() - start) * 1e3


def _forget(descriptor: int) -> None:
    if hasattr(os, "posix_fadvise"):  # macOS has none; there, nothing is cold
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def by_declination(ra: F64, dec: F64, asked_ra: F64, asked_dec: F64) -> npt.NDArray[np.int64]:
    """Row of the nearest source within the radius, -1 where there is none.  dec : ascending"""
    radius = RADIUS_ARCSEC / 3600.0
    low, high = np.searchsorted(dec, asked_dec - radius), np.searchsorted(dec, asked_dec + radius, "right")
    found = np.full(len(asked_ra), -1, dtype=np.int64)
    for alert, (begin, end) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if begin < end:
            apart = separation_deg(asked_ra[alert], asked_dec[alert], ra[begin:end], dec[begin:end])
            best = int(np.argmin(apart))
            found[alert] = begin + best if apart[best] <= radius else -1
    return found


def _sky(count: int, rng: np.random.Generator) -> tuple[F64, F64]:
    """Positions spread evenly over the sky [deg]."""
    return rng.uniform(0.0, 360.0, count), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, count)))


class RandomSky:
    """A table of made-up sources, as a file would be read."""

    path = Path("random")
    ra, dec = "ra", "dec"
    columns = (SourceColumn("ra", "float"), SourceColumn("dec", "float"), SourceColumn("mag", "float"))

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """As TableFile says."""
        rng = np.random.default_rng(1)
        for start in range(0, self.rows, _CHUNK):
            ra, dec = _sky(min(_CHUNK, self.rows - start), rng)
            yield {"ra": ra, "dec": dec, "mag": rng.uniform(12.0, 22.0, len(ra))}


def _cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3
