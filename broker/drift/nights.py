"""Every night's histograms of a survey, in Redis: counted by the workers, added up by who asks."""

from __future__ import annotations

import json
import logging
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.astro.times import night_of
from broker.drift.histogram import GRID, WIDTH, Histograms, added, bins, dense

log = logging.getLogger(__name__)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEAST_ALERTS = 500
"""A night with fewer alerts is not judged, and is no reference."""
NIGHTS = 7
"""How many nights before it a night is compared with."""
_LONGEST_NIGHT = 8
_TABLES = 64
"""Nights that a worker holds in memory; the one it saw least lately is let go of, its counts are in Redis."""


@dataclass
class _Table:
    """One worker's counts of one night: (place, count) of every bin that is not empty."""

    name: str
    places: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    changed: bool = False

    def add(self, rows: npt.NDArray[np.uint16]) -> None:
        """Count n alerts.  rows : (n, k) bins of the columns."""
        width = rows.shape[1] * WIDTH
        places = rows + np.arange(0, width, WIDTH, dtype=np.int64)
        whole = np.bincount(places.ravel(), minlength=width)
        whole[self.places] += self.counts
        self.places = np.flatnonzero(whole)
        self.counts, self.changed = whole[self.places], True


_Which = tuple[str, int, tuple[str, ...]]
"""Survey, night, columns."""


class NightCounts:
    """A worker's histograms.  `add` is cheap and may be called beside `changed` of another thread.

    group : the consumer group, whose workers' counts are added up
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, tuple[str, ...], I64, npt.NDArray[np.uint16]]] = []
        self._tables: dict[_Which, _Table] = {}

    def add(self, survey: str, midpoint_mjd_tai: F64, names: tuple[str, ...], values: F64) -> None:
        """Count n alerts.  midpoint_mjd_tai : (n,) [MJD, TAI];  values : (n, k) of the columns `names`."""
        found = bins(values)
        with self._lock:
            self._waiting.append((survey, names, night_of(midpoint_mjd_tai), found))

    def changed(self) -> dict[tuple[str, str], bytes]:
        """What is to be written since the last call: see late_writes.Fields."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for (survey, night, names), rows in _by_night(waiting).items():
            self._table((survey, night, names)).add(rows)
        fields: dict[tuple[str, str], bytes] = {}
        for (survey, night, names), table in self._tables.items():
            if table.changed:
                fields[(_index(self._group), f"{survey}:{night}")] = b""
                where = (_key(self._group, survey, night), table.name)
                fields[where] = packed(names, table.places, table.counts)
                table.changed = False
        while len(self._tables) > _TABLES:
            del self._tables[next(iter(self._tables))]
        return fields

    def _table(self, which: _Which) -> _Table:
        """The table of a night; the one used last is the last in order."""
        table = self._tables.pop(which, None) or _Table(secrets.token_hex(8))
        self._tables[which] = table
        return table


def _by_night(
    waiting: Sequence[tuple[str, tuple[str, ...], I64, npt.NDArray[np.uint16]]],
) -> dict[_Which, npt.NDArray[np.uint16]]:
    found: dict[_Which, list[npt.NDArray[np.uint16]]] = {}
    for survey, names, nights, rows in waiting:
        for night in np.unique(nights).tolist():
            found.setdefault((survey, night, names), []).append(rows[nights == night])
    return {which: np.concatenate(rows) for which, rows in found.items()}


def packed(names: Sequence[str], places: I64, counts: I64) -> bytes:
    """A table as bytes."""
    header = json.dumps({"grid": GRID, "names": names}).encode()
    numbers = [column.astype("<u4").tobytes() for column in (places, counts)]
    return zlib.compress(b"".join([struct.pack("<I", len(header)), header, *numbers]), 1)


def unpacked(content: bytes) -> Histograms:
    """The histograms of `packed` bytes.  Raises ValueError for anything else, another grid's included."""
    try:
        plain = zlib.decompress(content)
        (length,) = struct.unpack_from("<I", plain)
        header = json.loads(plain[4 : 4 + length])
        if header["grid"] != GRID:
            raise ValueError("counted on another grid")
        places, counts = np.frombuffer(plain, dtype="<u4", offset=4 + length).reshape(2, -1)
        return dense(header["names"], places, counts)
    except (zlib.error, struct.error, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"not a night's counts: {error!r}") from None


def nights_of(client: Any, group: str) -> dict[str, list[int]]:
    """Each survey's nights of which there may be counts, the newest first.  Raises redis.RedisError."""
    found: dict[str, list[int]] = {}
    for name in client.hkeys(_index(group)):
        survey, _, night = name.decode(errors="replace").rpartition(":")
        if night.isascii() and night.isdigit() and len(night) < _LONGEST_NIGHT:  # else it is damaged
            found.setdefault(survey, []).append(int(night))
    return {survey: sorted(nights, reverse=True) for survey, nights in sorted(found.items())}


def read_night(client: Any, group: str, survey: str, night: int) -> Histograms:
    """A night's histograms, all workers' added up; empty if there are none.  Raises redis.RedisError."""
    whole: Histograms = {}
    for name, content in client.hgetall(_key(group, survey, night)).items():
        try:
            whole = added(whole, unpacked(content))
        except ValueError as error:
            _tell_once(f"counts {name!a} of {survey}'s night {night} are left out: {error}")
    return whole


@lru_cache(maxsize=1024)
def _tell_once(text: str) -> None:
    """Whoever looks at a night looks again and again: what is damaged is told the first time."""
    log.warning("%s", text)


@dataclass(frozen=True)
class Tonight:
    """The newest night of a survey with enough alerts, and the nights before it, as one.

    before : empty if they have too few alerts;  alerts, alerts_before : how many were counted
    """

    survey: str
    night: int
    now: Histograms
    before: Histograms
    alerts: int
    alerts_before: int


def tonight(client: Any, group: str, survey: str, nights: Sequence[int]) -> Tonight | None:
    """What there is to compare, None without a night of LEAST_ALERTS.  nights : newest first.

    Raises redis.RedisError.
    """
    for night in nights:
        now = read_night(client, group, survey, night)
        if (alerts := alert_count(now)) < LEAST_ALERTS:
            continue
        before: Histograms = {}
        for other in nights:
            if night - NIGHTS <= other < night:
                before = added(before, read_night(client, group, survey, other))
        count = alert_count(before)
        return Tonight(survey, night, now, before if count >= LEAST_ALERTS else {}, alerts, count)
    return None


def every_survey(client: Any, group: str) -> Iterator[Tonight]:
    """Tonight of each survey that has one.  Raises redis.RedisError."""
    for survey, nights in nights_of(client, group).items():
        found = tonight(client, group, survey, nights)
        if found is not None:
            yield found


def alert_count(histograms: Mapping[str, I64]) -> int:
    """How many alerts were counted: a column that came later has fewer."""
    return max((int(counts.sum()) for counts in histograms.values()), default=0)


def _index(group: str) -> str:
    return f"drift:{group}"


def _key(group: str, survey: str, night: int) -> str:
    return f"drift:{group}:{survey}:{night}"
