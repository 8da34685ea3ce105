"""Similar objects: every object's newest embedding, in an index that finds the nearest ones without a scan.

Embeddings are comparable within one model only, so there is an index for each model (its id and version); an
object is in that of its newest alert.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import voyager

from broker.errors import BrokerError
from broker.scores.embedding import DIMENSIONS, EMBEDDING_NAMES
from broker.scores.taxonomy import LEAVES

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_LINKS, _CARE = 12, 64
"""Neighbours that a point is linked to, and candidates looked at when it is put in (HNSW's M and ef)."""
_LEAST_LOOKED_AT = 100
"""Candidates looked at in a search, at least."""
_FIRST_ROOM = 1024
_FORGOTTEN = 0.1
"""Share of the objects that goes when there is no more room."""

_OBJECT = np.dtype(
    [
        ("mjd", "f8"), ("ra", "f8"), ("dec", "f8"), ("source", "i8"), ("anomaly", "f4"), ("error", "f4"),
        ("probability", "f4"), ("leaf", "i1"), ("survey", "u1"), ("space", "i2"),
    ]
)  # fmt: skip


class UnknownObject(BrokerError):
    """No object of that key has an embedding here."""


@dataclass(frozen=True, slots=True)
class State:
    """An object as its newest alert shows it.

    key : the history key, as `ztf:...`;  name : as astronomers write it;  space : model that embedded it
    mjd : mid-exposure of that alert [MJD, TAI];  source : its diaSourceId;  ra, dec : [deg, ICRS]
    anomaly, error : forest's anomaly and rank of the reconstruction error, NaN where unknown
    leaf, probability : most probable class, '' where none is known
    """

    key: str
    name: str
    survey: str
    space: str
    mjd: float
    source: int
    ra: float
    dec: float
    anomaly: float
    error: float
    leaf: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        """For the API: ids as strings, NaN null."""
        return {
            "key": self.key,
            "objectName": self.name,
            "survey": self.survey,
            "model": self.space,
            "midpointMjdTai": self.mjd,
            "diaSourceId": str(self.source),
            "ra": self.ra,
            "dec": self.dec,
            "anomaly": _or_none(self.anomaly),
            "reconstructionError": _or_none(self.error),
            "class": self.leaf or None,
            "probability": _or_none(self.probability),
        }


@dataclass(frozen=True)
class Similar:
    """The answer to a search: the object asked for, and others with their distance, the nearest first."""

    object: State
    found: list[tuple[float, State]]

    def to_json(self) -> dict[str, Any]:
        """For the API."""
        similar = [{"distance": distance, **state.to_json()} for distance, state in self.found]
        return {"object": self.object.to_json(), "similar": similar}


def embedded(key: bytes | None, value: Mapping[str, Any]) -> tuple[State, list[float]] | None:
    """State and embedding that a record of `alerts.<survey>` gives; None if it has no embedding.

    key, value : of the record.  A retraction has none, nor an alert whose light curve says too little.
    """
    scores = value.get("scores") or {}
    place = [scores.get(name) for name in EMBEDDING_NAMES]
    if key is None or any(number is None or not math.isfinite(number) for number in place):
        return None
    leaf, probability = most_probable(scores)
    provenance = value["provenance"]
    state = State(
        key.decode(errors="backslashreplace"),
        value["objectName"],
        value["survey"],
        f"{provenance['modelId']}:{provenance['modelVersion']}",
        value["midpointMjdTai"],
        value["diaSourceId"],
        value["ra"],
        value["dec"],
        _or_nan(scores.get("anomaly")),
        _or_nan(scores.get("reconstruction_error")),
        leaf,
        probability,
    )
    return state, [float(number) for number in place if number is not None]


def most_probable(scores: Mapping[str, float | None]) -> tuple[str, float]:
    """The most probable class and its probability; ('', NaN) where none is known."""
    known = [
        (value, leaf) for leaf in LEAVES if (value := scores.get(f"prob_{leaf}")) is not None and value >= 0
    ]
    if not known:
        return "", math.nan
    probability, leaf = max(known)
    return leaf, probability


class SimilarIndex:
    """Objects by their embedding; any thread may add and ask.

    room : objects kept at most; when it is used up, the tenth with the oldest alerts is forgotten
    """

    def __init__(self, room: int = 1_000_000) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []
        self._names: list[str] = []
        self._rows = np.zeros(_FIRST_ROOM, dtype=_OBJECT)
        self._free: list[int] = []
        self._surveys: list[str] = []
        self._spaces: list[str] = []
        self._indices: list[voyager.Index] = []
        self._live: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, seen: Iterable[tuple[State, Sequence[float]]]) -> int:
        """Take in what alerts say, in any order; returns how many objects are new or moved.

        An object keeps what its newest alert by mid-exposure says, at a tie what came last.
        """
        newest: dict[str, tuple[State, Sequence[float]]] = {}
        for item in seen:
            held = newest.get(item[0].key)
            if held is None or item[0].mjd >= held[0].mjd:
                newest[item[0].key] = item
        with self._lock:
            fresh = [item for item in newest.values() if not self._is_old(item[0])]
            self._make_room(sum(state.key not in self._slots for state, _ in fresh))
            for space in sorted({state.space for state, _ in fresh}):
                self._put(space, [item for item in fresh if item[0].space == space])
        return len(fresh)

    def similar(self, key: str, limit: int = 10) -> Similar:
        """The objects nearest to one.  key : its key, or its name.  Raises UnknownObject."""
        with self._lock:
            slot = self._find(key)
            space = int(self._rows[slot]["space"])
            vector = self._indices[space].get_vector(slot)
            return self._answer(slot, limit, *self._nearest(space, vector, limit + 1))

    def exact(self, key: str, limit: int = 10) -> Similar:
        """The same by comparing with every object: what `similar` is measured against."""
        with self._lock:
            slot = self._find(key)
            space = int(self._rows[slot]["space"])
            vector = self._indices[space].get_vector(slot)
            return self._answer(slot, limit, *self._scan(space, vector, limit + 1))

    def _answer(self, slot: int, limit: int, slots: I64, distances: F32) -> Similar:
        pairs = zip(distances.tolist(), slots.tolist(), strict=True)
        found = [(distance, self._state(other)) for distance, other in pairs if other != slot]
        return Similar(self._state(slot), found[:limit])

    def _is_old(self, state: State) -> bool:
        slot = self._slots.get(state.key)
        return slot is not None and bool(state.mjd < self._rows[slot]["mjd"])

    def _find(self, key: str) -> int:
        slot = self._slots.get(key)
        if slot is not None:
            return slot
        named = [self._slots[held] for held in self._keys_named(key)]
        if not named:
            raise UnknownObject(
                f"no object {key[:80]!r} with an embedding among the {len(self):,} known; give the key of "
                "its messages or its name; an object has an embedding once enough of its light curve is known"
            )
        return named[0]

    def _keys_named(self, name: str) -> list[str]:
        places = [place for place, held in enumerate(self._names) if held == name]
        return [self._keys[place] for place in places if self._slots.get(self._keys[place]) == place]

    def _nearest(self, space: int, vector: F32, count: int) -> tuple[I64, F32]:
        index = self._indices[space]
        count = min(count, self._live[space])
        try:
            slots, squares = index.query(vector, k=count, query_ef=max(_LEAST_LOOKED_AT, 4 * count))
        except voyager.RecallError:  # too many around have left: look at all
            return self._scan(space, vector, count)
        return slots.astype(np.int64), np.sqrt(squares)

    def _scan(self, space: int, vector: F32, count: int) -> tuple[I64, F32]:
        slots = np.array(list(self._slots.values()), dtype=np.int64)
        slots = slots[self._rows["space"][slots] == space]
        distances = np.linalg.norm(self._indices[space].get_vectors(slots.tolist()) - vector, axis=1)
        order = np.argsort(distances, kind="stable")[:count]
        return slots[order], distances[order]

    def _put(self, name: str, items: Sequence[tuple[State, Sequence[float]]]) -> None:
        space = self._space(name)
        slots = [self._slot_of(state) for state, _ in items]
        for slot, (state, _) in zip(slots, items, strict=True):
            before = int(self._rows[slot]["space"])
            if before != space:
                self._leave(slot)
                self._live[space] += 1
            self._rows[slot] = (
                state.mjd, state.ra, state.dec, state.source, state.anomaly, state.error, state.probability,
                LEAVES.index(state.leaf) if state.leaf else -1, self._survey(state.survey), space,
            )  # fmt: skip
        vectors = np.array([vector for _, vector in items], dtype=np.float32)
        self._indices[space].add_items(vectors, slots, num_threads=1)

    def _slot_of(self, state: State) -> int:
        slot = self._slots.get(state.key)
        if slot is not None:
            return slot
        if self._free:
            slot = self._free.pop()
            self._keys[slot], self._names[slot] = state.key, state.name
        else:
            slot = len(self._keys)
            self._keys.append(state.key)
            self._names.append(state.name)
            if slot >= len(self._rows):
                self._rows = np.concatenate([self._rows, np.zeros(len(self._rows), dtype=_OBJECT)])
        self._slots[state.key] = slot
        self._rows[slot]["space"] = _NOWHERE
        return slot

    def _make_room(self, wanted: int) -> None:
        """Forget the objects that were silent for longest, so that so many more find room."""
        if len(self._slots) + wanted <= self._room or not self._slots:
            return
        slots = np.array(list(self._slots.values()), dtype=np.int64)
        count = min(len(slots), max(wanted, int(_FORGOTTEN * self._room)))
        for slot in slots[np.argsort(self._rows["mjd"][slots], kind="stable")[:count]].tolist():
            self._leave(slot)
            del self._slots[self._keys[slot]]
            self._free.append(slot)

    def _leave(self, slot: int) -> None:
        """Take a slot's object out of the index that it is in, if it is in one."""
        space = int(self._rows[slot]["space"])
        if space != _NOWHERE:
            self._indices[space].mark_deleted(slot)
            self._live[space] -= 1

    def _space(self, name: str) -> int:
        if name not in self._spaces:
            self._spaces.append(name)
            self._live.append(0)
            self._indices.append(
                voyager.Index(
                    voyager.Space.Euclidean, DIMENSIONS, M=_LINKS, ef_construction=_CARE, random_seed=1
                )
            )
        return self._spaces.index(name)

    def _survey(self, name: str) -> int:
        if name not in self._surveys:
            self._surveys.append(name)
        return self._surveys.index(name)

    def _state(self, slot: int) -> State:
        row = self._rows[slot]
        return State(
            self._keys[slot],
            self._names[slot],
            self._surveys[int(row["survey"])],
            self._spaces[int(row["space"])],
            float(row["mjd"]),
            int(row["source"]),
            float(row["ra"]),
            float(row["dec"]),
            float(row["anomaly"]),
            float(row["error"]),
            LEAVES[int(row["leaf"])] if row["leaf"] >= 0 else "",
            float(row["probability"]),
        )


_NOWHERE = -1
"""Space of a slot whose object is not in an index yet."""


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
