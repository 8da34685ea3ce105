"""What histories cost: a batch through the store against the bare commands, and memory an object."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import redis

from broker.config import Settings
from broker.history import pack
from broker.history.base import Addition, Claim, Located
from broker.history.places import locate
from broker.history.redis import RedisStore
from broker.lightcurves import POINT

BATCH = 500
STORED_POINTS, NEW_POINTS = 20, 2
"""Points an object has before the first batch, and gets with each."""
_EXPOSURE_BITS = 36
_SOURCE_ID = 3_250_000_000_015_000_000
_RENEWAL = 12
"""One in so many appends renews a time to live: an object seen every two to three nights, renewed monthly."""
_WARM_ROUNDS = 3
_MEMORY_CHUNK = 5000
_GROWTH_POINTS = 10
MILLION = 1_000_000


@dataclass(frozen=True)
class Cost:
    """One batch: CPU of this process and of the server, and wall time [ms]."""

    client_cpu_ms: float
    server_cpu_ms: float
    wall_ms: float

    @property
    def cpu_ms(self) -> float:
        """Both ends."""
        return self.client_cpu_ms + self.server_cpu_ms


@dataclass(frozen=True)
class Memory:
    """What Valkey or Redis needs, by its own account (used_memory).

    object_bytes : a light curve of `points` points, the object's place and the claim of one alert
    place_bytes : where it is on the sky, for other surveys to find it
    point_bytes : each point more, of 10 appended one at a time; the server doubles a string's room when it is
                  appended to, so this is more than a point's 32 bytes now and nothing later
    """

    objects: int
    points: int
    object_bytes: float
    claim_bytes: float
    place_bytes: float
    point_bytes: float

    @property
    def million_gib(self) -> float:
        """A million such objects, in proportion."""
        return self.object_bytes * MILLION / 2**30


@dataclass(frozen=True)
class HistoryCost:
    """Medians over the repeats, of batches of 500 objects that each get the same new bytes.

    store : claims, light curves and annotations read, points appended, times to live, as the pipeline does
    bare : MGET, then pipelined APPEND, by the redis-py client;  packed : the same, packed as the store does
    """

    repeats: int
    store: Cost
    bare: Cost
    packed: Cost
    memory: Memory

    @property
    def client_ratio(self) -> float:
        """Client CPU of the store over the bare client's."""
        return self.store.client_cpu_ms / self.bare.client_cpu_ms

    @property
    def cpu_ratio(self) -> float:
        """The same, the server's CPU included."""
        return self.store.cpu_ms / self.bare.cpu_ms

    @property
    def packed_ratio(self) -> float:
        """CPU of both ends over that of the bare commands packed by hand: what the extra commands cost."""
        return self.store.cpu_ms / self.packed.cpu_ms

    @property
    def wall_ratio(self) -> float:
        """Wall time of the store over the bare commands'."""
        return self.store.wall_ms / self.bare.wall_ms

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "client_ratio": self.client_ratio,
            "cpu_ratio": self.cpu_ratio,
            "packed_ratio": self.packed_ratio,
            "wall_ratio": self.wall_ratio,
            "million_gib": self.memory.million_gib,
        }


def history_cost(
    settings: Settings, *, repeats: int, objects: int, say: Callable[[str], None]
) -> HistoryCost:
    """Measure on a server that is this process's own: it is emptied first."""
    client = redis.Redis.from_url(settings.redis.url)
    client.flushdb()
    store = RedisStore(settings.redis.url, settings.history, uuid.uuid4().hex)
    store.mark_rebuilt()
    memory = _memory(store, client, objects)
    say(f"{objects:,} objects measured")
    client.flushdb()
    store.mark_rebuilt()
    ways = [_through_store(store), _bare(client), _packed(store)]
    rounds = [[_measured(client, way) for way in ways] for _ in range(_WARM_ROUNDS + repeats)][_WARM_ROUNDS:]
    store.close()
    costs = [_median([each[number] for each in rounds]) for number in range(len(ways))]
    return HistoryCost(repeats, costs[0], costs[1], costs[2], memory)


def _measured(client: Any, way: Iterator[None]) -> Cost:
    server, cpu, wall = _server_cpu_s(client), time.process_time(), time.perf_counter()
    next(way)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(1000 * cpu, 1000 * (_server_cpu_s(client) - server), 1000 * wall)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.client_cpu_ms for cost in costs),
        statistics.median(cost.server_cpu_ms for cost in costs),
        statistics.median(cost.wall_ms for cost in costs),
    )


def _server_cpu_s(client: Any) -> float:
    found = client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def _points(count: int) -> bytes:
    points = np.zeros(count, dtype=POINT)
    points["midpoint_mjd_tai"] = 61000.0 + np.arange(count)
    return points.tobytes()


def _keys(word: bytes) -> list[bytes]:
    return [pack.curve_key(b"%b:%d" % (word, 170_000_000_000_000 + 977 * row)) for row in range(BATCH)]


def _claims(first: int, count: int) -> list[Claim]:
    """Claims of exposures of 500 alerts each: ids of one are neighbours, as ZTF's are."""
    value = pack.claim_value("ztf_replay", 0, first, 0, bytes(range(32)))
    numbers = [divmod(row, BATCH) for row in range(first, first + count)]
    ids = [_SOURCE_ID + (exposure << _EXPOSURE_BITS) + 15 * row for exposure, row in numbers]
    return [Claim(pack.claim_bucket("ztf", i), pack.claim_field(i), value) for i in ids]


def _through_store(store: RedisStore) -> Iterator[None]:
    keys, new = _keys(b"store"), _points(NEW_POINTS)
    said = [pack.annotation_key(key) for key in keys]
    store.append([Addition(key, _points(STORED_POINTS)) for key in keys], [])
    additions = [Addition(key, new, renew=row % _RENEWAL == 0) for row, key in enumerate(keys)]
    renewed = _places(range(0, BATCH, _RENEWAL))
    batch = 0
    while True:
        batch += 1
        claims = _claims(batch * BATCH, BATCH)
        store.open(claims, [], keys, said)
        store.append(additions, [], [], renewed)
        yield


def _bare(client: Any) -> Iterator[None]:
    keys, new = _keys(b"bare"), _points(NEW_POINTS)
    client.mset(dict.fromkeys(keys, _points(STORED_POINTS)))
    while True:
        client.mget(keys)
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.append(key, new)
        pipeline.execute()
        yield


def _packed(store: RedisStore) -> Iterator[None]:
    keys, new = _keys(b"packed"), _points(NEW_POINTS)
    store.exchange([(b"SET", key, _points(STORED_POINTS)) for key in keys])
    while True:
        store.exchange([(b"MGET", *keys)])
        store.exchange([(b"APPEND", key, new) for key in keys])
        yield


def _memory(store: RedisStore, client: Any, objects: int) -> Memory:
    """Fill a server with light curves and claims, then let every object grow point by point."""
    start = _used(client)
    _each_chunk(objects, lambda rows: store.open(_claims(rows.start, len(rows)), [], []))
    claimed = _used(client)
    first = _points(STORED_POINTS)
    _each_chunk(objects, lambda rows: store.append([Addition(_object(row), first) for row in rows], []))
    curved = _used(client)
    _each_chunk(objects, lambda rows: store.append([], [], [], _places(rows)))
    filled = _used(client)
    point = _points(1)
    for _ in range(_GROWTH_POINTS):
        _each_chunk(objects, lambda rows: store.append([Addition(_object(row), point) for row in rows], []))
    grown = _used(client)
    return Memory(
        objects,
        STORED_POINTS,
        (filled - start) / objects,
        (claimed - start) / objects,
        (filled - curved) / objects,
        (grown - filled) / objects / _GROWTH_POINTS,
    )


def _places(rows: range) -> list[Located]:
    """Objects at random places, which is dense for nobody: a hash each."""
    rng = np.random.default_rng(rows.start)
    ra, dec = rng.uniform(0, 360, len(rows)), np.degrees(np.arcsin(rng.uniform(-1, 1, len(rows))))
    return locate("ztf", [170_000_000_000_000 + 977 * row for row in rows], ra, dec)


def _each_chunk(objects: int, act: Callable[[range], object]) -> None:
    for first in range(0, objects, _MEMORY_CHUNK):
        act(range(first, min(first + _MEMORY_CHUNK, objects)))


def _object(row: int) -> bytes:
    return pack.curve_key(b"ztf:%d" % (170_000_000_000_000 + 977 * row))


def _used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])
