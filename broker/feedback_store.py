"""What people say of alerts, kept in the `control` topic: mark, take back, list, and suggest what to look at.

A mark and the forest that knows it are written under the lock that all writers of `control` hold, the mark
first: a forest that could not be made any more is made with the next mark. A call returns once every live
worker judges by the new forest, or says how many do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import redis

from broker import control
from broker.assemble import survey_names
from broker.config import Settings
from broker.control import ControlState
from broker.control.lock import alone, redis_client
from broker.control.topic import ControlTail, ControlWriter
from broker.errors import BrokerError, FeedbackError
from broker.feedback import Mark, StoredForest, StoredTrees, Verdict
from broker.filter import Filter, check_name
from broker.filters import store as filter_store
from broker.heartbeats import wait_for_epoch
from broker.personal import ForestError, load_forest, load_trees
from broker.published import RecordDecoder, find_alert, newest_alerts
from broker.scores.personal import PERSONAL_INPUTS, PersonalForest, Trees, pack_forest, pack_trees
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]

RECENT = 5000
"""Alerts that trees are grown on, and among which a forest ranks."""
FEW = 200
"""With fewer recent alerts than this, ranks are rough, and the answer says so."""
TREES_LIVE = timedelta(days=1)
"""Trees are shared for so long, then the next mark of anybody grows new ones."""
ACKNOWLEDGE_S = 10.0
FILTER_NAME = "anomalies"
MIN_RANK = 0.99
_WANTED = ("kind", "diaSourceId", "objectName", "midpointMjdTai", "ra", "dec", "mag", "features")


class UnknownMark(BrokerError):
    """The owner has not marked this alert."""


@dataclass(frozen=True)
class Told:
    """What a mark came to.

    filter : the owner's filter of anomalies, where this call made it
    epoch : control offset from which the forest judges;  reached of live : workers that do
    fit_s, seconds : to make the forest; from reading the alert to the workers' acknowledgement
    note : what the owner must know besides, '' if nothing
    """

    mark: Mark
    forest: StoredForest
    filter: Filter | None
    epoch: int
    reached: int
    live: int
    fit_s: float
    seconds: float
    note: str

    def to_json(self) -> dict[str, Any]:
        """As the API and `--json` show it."""
        return {
            "mark": self.mark.summary(),
            "forest": self.forest.summary(),
            "filter": None if self.filter is None else filter_store.as_json(self.filter),
            "epoch": self.epoch,
            "reached": self.reached,
            "live": self.live,
            "fitSeconds": round(self.fit_s, 3),
            "seconds": round(self.seconds, 3),
            "note": self.note,
        }


@dataclass(frozen=True)
class _Recent:
    """The newest alerts of a survey, as they were published."""

    alerts: Sequence[Mapping[str, Any]]

    def columns(self, inputs: Sequence[str]) -> F64:
        """(n, len(inputs)), NaN where unknown."""
        return _matrix([alert["features"] for alert in self.alerts], inputs)


def read(settings: Settings) -> ControlState:
    """The control state as it is now.  Raises BrokerError."""
    with ControlTail(settings.kafka) as tail:
        return tail.catch_up()


def add(
    settings: Settings,
    owner: str,
    survey: str,
    alert: int,
    verdict: Verdict,
    *,
    by: str,
    columns: Mapping[str, ColumnSpec],
    note: str = "",
    timeout_s: float = ACKNOWLEDGE_S,
) -> Told:
    """Mark a published alert, make the owner's forest anew, and wait until the workers judge by it.

    The first mark makes the filter `<owner>.anomalies`, unless the owner ever had one of this name.
    columns : what a filter may name;  by : who says it
    Raises FeedbackError, FilterError, UnknownAlert, or BrokerError if a server does not answer.
    """
    check(owner, survey)
    start = time.monotonic()
    decoder = RecordDecoder(read(settings).schemas, _WANTED)
    found = find_alert(settings.kafka, survey, alert, decoder)
    features = {name: value for name, value in found["features"].items() if _is_known(value)}
    mark = Mark(owner, survey, alert, found["objectName"], verdict, note, features, False, _now(), by)
    return _told(settings, mark, lambda _: mark, decoder, columns, start, timeout_s)


def remove(
    settings: Settings,
    owner: str,
    survey: str,
    alert: int,
    *,
    by: str,
    columns: Mapping[str, ColumnSpec],
    timeout_s: float = ACKNOWLEDGE_S,
) -> Told:
    """Take a mark back, make the forest anew without it, and wait for the workers.

    Without any mark the forest ranks as a plain isolation forest does.
    Raises UnknownMark, FeedbackError, or BrokerError if a server does not answer.
    """
    check(owner, survey)
    start, state = time.monotonic(), read(settings)

    def taken_back(state: ControlState) -> Mark:
        mark = state.marks.get((owner, survey, alert))
        if mark is None or mark.removed:
            raise UnknownMark(f"{owner} has not marked alert {alert} of {survey}; see `broker feedback list`")
        return replace(mark, removed=True, at=_now(), by=by)

    decoder = RecordDecoder(state.schemas, _WANTED)
    return _told(settings, taken_back(state), taken_back, decoder, columns, start, timeout_s)


def suggest(settings: Settings, owner: str, survey: str, count: int = 10) -> list[dict[str, Any]]:
    """What an owner should look at next: the strangest recent alert of each object not yet marked.

    Before the first mark the plain isolation forest says what is strange.
    Raises FeedbackError, or BrokerError if a server does not answer.
    """
    check(owner, survey)
    state = read(settings)
    recent = _recent(settings, survey, RecordDecoder(state.schemas, _WANTED))
    forest = _serving(state, owner, survey) or _plain(state, survey, recent)
    rank = forest.rank(forest.trees.leaves(recent.columns(forest.trees.inputs)))
    strangeness = forest.strangeness(forest.trees.leaves(recent.columns(forest.trees.inputs)))
    marked = {mark.object_name for mark in state.marks_of(owner, survey)}
    found: dict[str, dict[str, Any]] = {}
    for row in np.argsort(-strangeness, kind="stable").tolist():
        alert = recent.alerts[row]
        name = alert["objectName"]
        if name not in marked and name not in found and len(found) < count:
            found[name] = _suggestion(alert, float(rank[row]))
    return list(found.values())


def check(owner: str, survey: str) -> None:
    """Raise FilterError or FeedbackError unless an owner may mark alerts of a survey."""
    check_name("owner", owner)
    if owner == filter_store.BUILTIN_OWNER:
        raise FeedbackError(f"the owner {owner!r} is reserved for the broker's own filters; choose another")
    if survey not in survey_names():
        raise FeedbackError(f"no survey {survey!r}; choose one of {', '.join(survey_names())}")


def describe(state: ControlState, owner: str) -> dict[str, Any]:
    """An owner's marks and forests, as JSON; `epoch` is the control offset since which a forest judges."""
    forests = [
        item.summary() | {"epoch": state.forest_epochs[item.label]}
        for (whose, _), revisions in sorted(state.forests.items())
        if whose == owner
        for _, item in sorted(revisions.items())
    ]
    return {"owner": owner, "marks": [mark.summary() for mark in state.marks_of(owner)], "forests": forests}


def _told(
    settings: Settings,
    mark: Mark,
    final: Callable[[ControlState], Mark],
    decoder: RecordDecoder,
    columns: Mapping[str, ColumnSpec],
    start: float,
    timeout_s: float,
) -> Told:
    """Write a mark and the forest that knows it; then the owner's filter, then wait for the workers.

    final : the mark in the state as it is under the lock
    """
    recent = _recent(settings, mark.survey, decoder)
    with redis_client(settings) as client:
        with alone(client):
            writer = ControlWriter(settings.kafka)
            state = read(settings)
            mark = final(state)
            state = _written(writer, state, control.mark_record(mark))
            begun = time.monotonic()
            trees, state = _trees(writer, state, mark.survey, recent)
            forest, state = _forest(writer, state, mark, trees, recent)
            fit_s = time.monotonic() - begun
        made = _first_filter(settings, state, mark.owner, columns)
        epoch = state.epoch if made is None else made.epoch
        try:
            reached, live = wait_for_epoch(client, settings.run.group, epoch, timeout_s)
        except redis.RedisError as error:
            raise BrokerError(
                f"the mark is stored, but Redis does not answer ({error}): it is unknown who judges by it"
            ) from error
    item = None if made is None else made.filter
    seconds = time.monotonic() - start
    return Told(mark, forest, item, epoch, reached, live, fit_s, seconds, _note(forest))


def _written(writer: ControlWriter, state: ControlState, record: tuple[bytes, bytes]) -> ControlState:
    """The state after one more record, which is in `control` now."""
    return control.apply(state, writer.write(*record), *record)


def _trees(
    writer: ControlWriter, state: ControlState, survey: str, recent: _Recent
) -> tuple[Trees, ControlState]:
    """The trees that a forest is to stand on: those of the survey while they are fresh, else new ones."""
    revisions = state.trees.get(survey, {})
    newest = max(revisions, default=0)
    if newest and _fresh(revisions[newest], len(recent.alerts)):
        try:
            return load_trees(state, survey, newest), state
        except ForestError:  # written by another version of the code: grow our own
            pass
    trees = _grown(recent, newest + 1)
    stored = StoredTrees(survey, newest + 1, pack_trees(trees), len(recent.alerts), _now())
    return trees, _written(writer, state, control.trees_record(stored))


def _fresh(stored: StoredTrees, recent: int) -> bool:
    """Whether trees are young enough, and were not grown on a first few alerts of a stream that goes on."""
    age = datetime.now(UTC) - datetime.fromisoformat(stored.at)
    return age < TREES_LIVE and min(recent, RECENT) < 2 * stored.alerts


def _grown(recent: _Recent, seed: int) -> Trees:
    from broker.scores.aad import grow  # noqa: PLC0415 (a quarter of a second, and workers never need it)

    if len(recent.alerts) < 2:
        raise FeedbackError("fewer than two alerts were published: there is nothing to compare with yet")
    try:
        return grow(recent.columns(PERSONAL_INPUTS), PERSONAL_INPUTS, seed)
    except ValueError as error:
        raise FeedbackError(f"{error}; wait until objects have some history") from None


def _forest(
    writer: ControlWriter, state: ControlState, mark: Mark, trees: Trees, recent: _Recent
) -> tuple[StoredForest, ControlState]:
    """The next revision of an owner's forest, which knows all marks of the state."""
    from broker.scores.aad import personal_forest  # noqa: PLC0415 (as above)

    marks = state.marks_of(mark.owner, mark.survey)
    interesting = np.array([item.verdict == "interesting" for item in marks], dtype=np.bool_)
    features = _matrix([item.features for item in marks], trees.inputs)
    fitted = personal_forest(trees, features, interesting, recent.columns(trees.inputs))
    stored = StoredForest(
        owner=mark.owner,
        survey=mark.survey,
        revision=max(state.forests.get((mark.owner, mark.survey), {}), default=0) + 1,
        trees=max(state.trees[mark.survey]),
        archive=pack_forest(fitted),
        interesting=tuple(item.alert for item in marks if item.verdict == "interesting"),
        boring=tuple(item.alert for item in marks if item.verdict == "boring"),
        alerts=len(recent.alerts),
        at=_now(),
    )
    return stored, _written(writer, state, control.forest_record(stored))


def _first_filter(
    settings: Settings, state: ControlState, owner: str, columns: Mapping[str, ColumnSpec]
) -> filter_store.Added | None:
    """Make the owner's filter of anomalies; one that was there before, even removed, stays as it is."""
    if f"{owner}.{FILTER_NAME}" in state.latest_filters():
        return None
    where = f"personal_anomaly('{owner}') > {MIN_RANK:g}"
    about = (
        f"Stranger to {owner} than {MIN_RANK:.0%} of recent alerts; follows what `broker feedback` is told."
    )
    return filter_store.add(settings, FILTER_NAME, where, columns=columns, owner=owner, description=about)


def _recent(settings: Settings, survey: str, decoder: RecordDecoder) -> _Recent:
    return _Recent(newest_alerts(settings.kafka, survey, RECENT, decoder))


def _serving(state: ControlState, owner: str, survey: str) -> PersonalForest | None:
    """The newest forest of an owner that can be used here."""
    revisions = state.forests.get((owner, survey), {})
    for revision in sorted(revisions, reverse=True):
        try:
            return load_forest(state, revisions[revision], {})
        except ForestError:
            continue
    return None


def _plain(state: ControlState, survey: str, recent: _Recent) -> PersonalForest:
    """The forest of somebody who has said nothing."""
    from broker.scores.aad import personal_forest  # noqa: PLC0415 (as above)

    trees = _grown(recent, max(state.trees.get(survey, {}), default=0) + 1)
    nothing = np.empty((0, len(trees.inputs)))
    return personal_forest(trees, nothing, np.empty(0, dtype=np.bool_), recent.columns(trees.inputs))


def _suggestion(alert: Mapping[str, Any], rank: float) -> dict[str, Any]:
    about = {name: alert[name] for name in ("objectName", "midpointMjdTai", "ra", "dec", "mag")}
    return {"alert": str(alert["diaSourceId"]), "rank": round(rank, 4), **about}


def _note(forest: StoredForest) -> str:
    if forest.alerts < FEW:
        return (
            f"only {forest.alerts} recent alerts to rank among: ranks are rough until there are {FEW}; mark "
            "again then"
        )
    if not (forest.interesting and forest.boring):
        missing = "interesting" if forest.boring else "boring"
        return f"nothing is marked {missing} yet: a few of both tell much more"
    return ""


def _matrix(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> F64:
    """(n, len(names)), NaN where a row has no value of a name."""
    values = [[np.nan if (value := row.get(name)) is None else value for name in names] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(names))


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
