"""The strangest objects of a night, sorted into groups of alike ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.astro.times import unix_s_to_mjd_tai
from broker.client import Stream
from broker.config import Settings
from broker.errors import BrokerError
from broker.kafka.topics import ALERT_TOPICS, alerts_topic
from broker.similar import State, embedded

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEAST_IN_GROUP = 5
_TRAITS, _EXAMPLES, _OUTLIERS = 5, 5, 10
_DAY = 1.0
_TELL_EVERY = 1000


class NothingSeen(BrokerError):
    """No object with an embedding was seen in the time asked for."""


@dataclass(frozen=True)
class Period:
    """The observations meant: mid-exposure from `since` on and before `until` [MJD, TAI].

    since None: the last day that there are any of.
    """

    since: float | None = None
    until: float = np.inf
    begin: datetime | None = None
    """The same as a time, for Kafka: no record is written before its observation."""


@dataclass(frozen=True)
class Objects:
    """Objects with an embedding, each as its newest alert of the period shows it, all of one model.

    places : (n, DIMENSIONS);  features : (n, k) of `names`, NaN where unknown
    others : objects that another model had embedded;  unknown : objects without an embedding
    """

    states: list[State]
    places: F64
    features: F32
    names: list[str]
    others: int
    unknown: int


@dataclass(frozen=True)
class Trait:
    """A feature that sets a group apart: its median there and among all objects of the night.

    spreads : the difference, in half-widths of the middle 68 % of all
    """

    name: str
    value: float
    usual: float
    spreads: float


@dataclass(frozen=True)
class Group:
    """Alike objects: their traits, the strongest first, and the most typical of them."""

    size: int
    traits: list[Trait]
    examples: list[State]


@dataclass(frozen=True)
class Clustered:
    """A night's strangest objects.

    since, until : first and last mid-exposure looked at [MJD, TAI];  objects : compared
    chosen : (m,) the strangest;  group : (m,) number of each one's group, -1 for none;  places : (m, d)
    outliers : the strangest of those in no group
    """

    since: float
    until: float
    model: str
    objects: int
    others: int
    unknown: int
    chosen: list[State]
    places: F64
    group: I64
    groups: list[Group]
    outliers: list[State]

    def to_json(self) -> dict[str, Any]:
        """For the API."""
        numbers = self.group.tolist()
        return {
            "sinceMjdTai": self.since,
            "untilMjdTai": self.until,
            "model": self.model,
            "objects": self.objects,
            "objectsOfOtherModels": self.others,
            "objectsWithoutEmbedding": self.unknown,
            "groups": [
                {
                    "group": number,
                    "size": group.size,
                    "traits": [vars(trait) for trait in group.traits],
                    "examples": [state.key for state in group.examples],
                }
                for number, group in enumerate(self.groups)
            ],
            "outliers": [state.key for state in self.outliers],
            "anomalies": [
                {"group": None if number < 0 else number, **state.to_json()}
                for number, state in zip(numbers, self.chosen, strict=True)
            ],
        }


def read_objects(
    settings: Settings,
    period: Period,
    survey: str | None = None,
    tell: Callable[[int, int], None] = lambda alerts, objects: None,
) -> Objects:
    """The objects that were seen in a period, from the alert topics.

    survey : of one survey alone;  tell : told now and then how many alerts and objects were read
    Raises BrokerError, and NothingSeen where nothing was.
    """
    topic = ALERT_TOPICS if survey is None else alerts_topic(survey)
    newest: dict[str, tuple[State, list[float], F32]] = {}
    without: dict[str, float] = {}
    names: list[str] = []
    with Stream(topic, settings.kafka, start=period.begin or "beginning") as stream:
        for count, received in enumerate(stream.past(), start=1):
            if count % _TELL_EVERY == 0:
                tell(count, len(newest))
            key, value = received.message.key, received.value
            mjd = value["midpointMjdTai"]
            if value["kind"] != "alert" or not (period.since or -np.inf) <= mjd < period.until:
                continue
            item = embedded(key, value)
            if item is None:
                name = (key or b"").decode(errors="backslashreplace")
                without[name] = max(mjd, without.get(name, mjd))
                continue
            names = names or list(value["features"])
            held = newest.get(item[0].key)
            if held is None or mjd >= held[0].mjd:
                features = [value["features"].get(name) for name in names]
                newest[item[0].key] = (*item, np.array(features, dtype=np.float32))
    return _of_one_model(newest, without, names, period)


def _of_one_model(
    newest: dict[str, tuple[State, list[float], F32]],
    without: dict[str, float],
    names: list[str],
    period: Period,
) -> Objects:
    """Without a period the last day; of several models the one with the most objects."""
    last = max((item[0].mjd for item in newest.values()), default=None)
    if last is None:
        raise NothingSeen(
            f"no object with an embedding in that time ({len(without):,} without one); the alert topics may "
            "hold other nights, or the model that scored them knows no embedding"
        )
    first = last - _DAY if period.since is None else period.since
    items = [item for item in newest.values() if item[0].mjd >= first]
    ((model, _),) = Counter(item[0].space for item in items).most_common(1)
    own = [item for item in items if item[0].space == model]
    own.sort(key=lambda item: item[0].key)  # topics are read in any order; ties must not be
    return Objects(
        [item[0] for item in own],
        np.array([item[1] for item in own], dtype=np.float64),
        np.array([item[2] for item in own], dtype=np.float32),
        names,
        len(items) - len(own),
        sum(mjd >= first and name not in newest for name, mjd in without.items()),
    )


def cluster(objects: Objects, top: str, least: int = LEAST_IN_GROUP) -> Clustered:
    """The strangest objects in groups: HDBSCAN in the embedding (Campello, Moulavi & Sander 2013, PAKDD).

    top : how many, as a number or as a share such as '1%';  least : objects of the smallest group
    Strangeness is the mean of two ranks among the objects: the forest's anomaly and the reconstruction error.
    """
    strange = strangeness(objects.states)
    count = how_many(top, len(objects.states))
    rows = np.argsort(-strange, kind="stable")[:count]
    number = grouped(objects.places[rows], least)
    usual, spread = _usual(objects.features)
    groups = [
        _group(objects, rows[number == own], usual, spread) for own in range(int(number.max(initial=-1)) + 1)
    ]
    chosen = [objects.states[row] for row in rows.tolist()]
    times = [state.mjd for state in objects.states]
    return Clustered(
        since=min(times),
        until=max(times),
        model=objects.states[0].space,
        objects=len(objects.states),
        others=objects.others,
        unknown=objects.unknown,
        chosen=chosen,
        places=objects.places[rows],
        group=number,
        groups=groups,
        outliers=[chosen[place] for place in np.flatnonzero(number < 0)[:_OUTLIERS].tolist()],
    )


def how_many(top: str, objects: int) -> int:
    """How many objects '50' or '1%' are, rounded up.  Raises BrokerError for anything else.

    >>> how_many("50", 1000), how_many("1%", 1001), how_many("50", 20)
    (50, 11, 20)
    """
    try:
        number = float(top.removesuffix("%"))
    except ValueError:
        number = np.nan
    share = top.endswith("%")
    if not 0 < number <= (100 if share else np.inf) or not (share or number.is_integer()):
        raise BrokerError(f"top {top!r}: give a number of objects such as 50, or a share such as 1%")
    wanted = np.ceil(number * objects / 100.0 - 1e-9) if share else number
    return int(min(wanted, objects))


def strangeness(states: Sequence[State]) -> F64:
    """(n,) mean rank 0..1 of anomaly and reconstruction error among the objects, of those that are known."""
    ranks = [
        _ranks(np.array(values, dtype=np.float64))
        for values in ([state.anomaly for state in states], [state.error for state in states])
    ]
    known = np.isfinite(ranks)
    return np.asarray(np.where(known, ranks, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def grouped(places: F64, least: int) -> I64:
    """(n,) group of each place from 0 on, the largest first, -1 for none.  places : (n, d)."""
    if len(places) < max(least, 2):
        return np.full(len(places), -1, dtype=np.int64)
    from sklearn.cluster import HDBSCAN  # noqa: PLC0415  (slow to import, and only this verb needs it)

    found = HDBSCAN(min_cluster_size=max(least, 2), n_jobs=1, copy=True).fit_predict(places)
    names, sizes = np.unique(found[found >= 0], return_counts=True)
    order = {int(names[place]): new for new, place in enumerate(np.argsort(-sizes, kind="stable"))}
    return np.array([order.get(int(name), -1) for name in found], dtype=np.int64)


def _group(objects: Objects, rows: I64, usual: F64, spread: F64) -> Group:
    places = objects.places[rows]
    typical = np.argsort(np.linalg.norm(places - np.median(places, axis=0), axis=1), kind="stable")
    examples = [objects.states[row] for row in rows[typical[:_EXAMPLES]].tolist()]
    return Group(len(rows), _traits(objects.names, objects.features[rows], usual, spread), examples)


def _traits(names: Sequence[str], features: F32, usual: F64, spread: F64) -> list[Trait]:
    """The features whose median is farthest from the usual one, of those that half of the group has."""
    value = np.array([_median(column) for column in features.T])
    value[np.isfinite(features).sum(axis=0) * 2 < len(features)] = np.nan
    spreads = (value - usual) / spread
    order = [place for place in np.argsort(-np.abs(spreads), kind="stable") if np.isfinite(spreads[place])]
    return [
        Trait(names[place], float(value[place]), float(usual[place]), float(spreads[place]))
        for place in order[:_TRAITS]
    ]


def _usual(features: F32) -> tuple[F64, F64]:
    """(k,) median and half the width of the middle 68 %; NaN where that says nothing."""
    usual, spread = np.full((2, features.shape[1]), np.nan)
    for place, column in enumerate(features.T):
        known = column[np.isfinite(column)]
        if len(known):
            low, usual[place], high = np.percentile(known, [16.0, 50.0, 84.0])
            spread[place] = (high - low) / 2.0 if high > low else np.nan
    return usual, spread


def _median(column: F32) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if len(known) else np.nan


def _ranks(values: F64) -> F64:
    """(n,) rank 0..1 of each known value, NaN of the others."""
    known = np.flatnonzero(np.isfinite(values))
    ranks = np.full(len(values), np.nan)
    ranks[known[np.argsort(values[known], kind="stable")]] = np.linspace(0.0, 1.0, len(known))
    return ranks


def utc_period(since: datetime, until: datetime | None = None) -> Period:
    """The observations from one moment on, and before another.  Times with their zone."""
    end = np.inf if until is None else float(unix_s_to_mjd_tai(until.timestamp()))
    return Period(float(unix_s_to_mjd_tai(since.timestamp())), end, since)
