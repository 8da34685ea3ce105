"""The filters of all users, kept in the `control` topic: add, find, enable, disable, remove.

An edit is `add` again: it makes the next version. Of each filter the newest version that is no draft is in
force; a draft waits beside it until it is enabled, and every version stays addressable as NAME@VERSION.

Three promises. A filter's topic exists before its record is written, because a missing topic inside a
transaction stalls a worker. Two writers never give one version number to two rules: writing happens under a
lock in Redis. And a call returns once every live worker judges by the new state, or says how many do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import redis

from broker import control
from broker.config import Settings
from broker.control import ControlState
from broker.control.lock import alone, redis_client
from broker.control.topic import ControlTail, ControlWriter
from broker.errors import BrokerError, FilterError
from broker.filter import Excess, Filter, Payload, State
from broker.filters.builtin import BUILTIN_FILTERS
from broker.filters.compile import compile_filter, names_in, require_names
from broker.filters.functions import PLUGIN
from broker.filters.parse import split_statement
from broker.filters.select import compile_select
from broker.heartbeats import wait_for_epoch
from broker.kafka.clients import admin, create_topics
from broker.kafka.topics import filter_spec
from broker.plugin import installed_names
from broker.table import ColumnSpec

DEFAULT_OWNER = "local"
BUILTIN_OWNER = "broker"
ACKNOWLEDGE_S = 10.0
"""How long a call waits for the workers: twice the time after which a silent one no longer counts as live."""


class ReservedOwner(FilterError):
    """The owner `broker` is for the filters that come with the code."""


class UnknownFilter(BrokerError):
    """No filter, or no such version of it, has this name."""


@dataclass(frozen=True)
class Added:
    """What a change came to.

    written : False if the filter was so already;  epoch : control offset from which it holds
    reached of live : workers that judge by it;  seconds : from the write to their acknowledgement
    """

    filter: Filter
    written: bool
    epoch: int
    reached: int
    live: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As the API and `--json` show it."""
        return {
            "filter": as_json(self.filter),
            "written": self.written,
            "epoch": self.epoch,
            "reached": self.reached,
            "live": self.live,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class _Stored:
    """A filter as `control` has it now, and the offset since which it has it."""

    filter: Filter
    epoch: int
    written: bool


def as_json(item: Filter, in_force: Filter | None = None) -> dict[str, Any]:
    """A filter as the API and `--json` show it: as stored, and where its hits go.

    in_force : the version of it that is; given, the answer says whether this is the one
    """
    shown = {**item.to_json(), "topic": item.topic}
    return shown if in_force is None else shown | {"inForce": item == in_force and item.state != "draft"}


def full_name(name: str, owner: str | None = None) -> tuple[str, str]:
    """(owner, name) of `owner.name`, or of `name` and an owner given apart (else DEFAULT_OWNER)."""
    before, dot, after = name.partition(".")
    if not dot:
        return owner or DEFAULT_OWNER, name
    if owner not in {None, before}:
        raise FilterError(f"{name!r} names the owner {before!r}, but the owner given is {owner!r}; give one")
    return before, after


def versioned_name(
    text: str, owner: str | None = None, version: int | None = None
) -> tuple[str, str, int | None]:
    """(owner, name, version) of NAME, OWNER.NAME or either with @VERSION; None = no version is named.

    owner, version : as given apart from the name.  Raises FilterError.
    """
    name, at, number = text.partition("@")
    if at and not (number.isascii() and number.isdigit()):
        raise FilterError(f"{text[:60]!r} names no version; write NAME@2")
    if at and version not in {None, int(number)}:
        raise FilterError(f"{text!r} names version {number}, but the version given is {version}; give one")
    return *full_name(name, owner), int(number) if at else version


def whole_name(name: str, owner: str | None, what: str) -> tuple[str, str]:
    """(owner, name) for something that is done to a filter and not to one version.  Raises FilterError."""
    *whose, version = versioned_name(name, owner)
    if version is not None:
        raise FilterError(f"{name!r} names a version; {what}")
    return whose[0], whose[1]


def read(settings: Settings) -> ControlState:
    """The control state as it is now.  Raises BrokerError."""
    with ControlTail(settings.kafka) as tail:
        return tail.catch_up()


def newest(state: ControlState, *, removed: bool = False) -> list[Filter]:
    """Each filter as it stands, by name: the version in force, else the newest draft.

    removed : those that are removed too
    """
    current = state.current_filters()
    return [current[name] for name in sorted(current) if removed or current[name].state != "removed"]


def versions(state: ControlState, owner: str, name: str) -> list[Filter]:
    """Every version of a filter, oldest first.  Raises UnknownFilter if there is none."""
    wanted = f"{owner}.{name}"
    found = [item for (key, _), item in sorted(state.filters.items()) if key == wanted]
    if not found:
        raise UnknownFilter(f"there is no filter {wanted}; `broker filters list` shows those there are")
    return found


def find(state: ControlState, owner: str, name: str, version: int | None = None) -> Filter:
    """One version of a filter; by default the one in force, else the newest draft.  Raises UnknownFilter."""
    known = versions(state, owner, name)
    if version is None:
        return state.current_filters()[known[-1].full_name]
    for item in known:
        if item.version == version:
            return item
    have = ", ".join(str(item.version) for item in known)
    raise UnknownFilter(f"filter {owner}.{name} has no version {version}; it has {have}")


def named(state: ControlState, text: str, owner: str | None = None, version: int | None = None) -> Filter:
    """What NAME, OWNER.NAME or either with @VERSION means.  Raises FilterError or UnknownFilter."""
    return find(state, *versioned_name(text, owner, version))


def checked(asked: Wanted, columns: Mapping[str, ColumnSpec]) -> Wanted:
    """The same with a statement taken apart, once its texts compile.  Raises FilterError."""
    if asked.where is None:
        if asked.source is None:
            raise FilterError("a filter needs a condition; give one, or a version to take it from")
        where, select = None, asked.select
    else:
        listed, where = split_statement(asked.where)
        if listed and asked.select:
            raise FilterError("two select lists; give it once, in the statement or apart", 0)
        select = listed or asked.select
        compile_filter(where, columns)
    if select:
        try:
            compile_select(select, columns)
        except FilterError as error:  # the place is one in the list, which the statement may hold
            raise FilterError(str(error), error.position, asked.select or "") from None
    return replace(asked, where=where and where.strip(), select=select and select.strip())


@dataclass(frozen=True)
class Wanted:
    """What an owner asks of a filter; None = as in `source` if one is named, else the usual.

    where : the condition, or a whole statement `select ... where ...`
    select : expressions for the messages, '' for none;  source : NAME@VERSION of a version to begin with
    description : None without a source keeps that of the version before
    draft : store it, but let it judge nothing until it is enabled.  by : who asks
    """

    where: str | None = None
    select: str | None = None
    payload: Payload | None = None
    description: str | None = None
    max_hits_per_hour: int | None = None
    max_us_per_alert: float | None = None
    on_excess: Excess | None = None
    source: str | None = None
    draft: bool = False
    by: str = ""

    @property
    def given(self) -> dict[str, Any]:
        """The fields of a Filter that are asked for, by name."""
        fields = {name: getattr(self, name) for name in _RULE_FIELDS}
        return {name: value for name, value in fields.items() if value is not None}


_RULE_FIELDS = (
    "where", "select", "payload", "description", "max_hits_per_hour", "max_us_per_alert", "on_excess",
)  # fmt: skip


def add(
    settings: Settings,
    name: str,
    where: str | None = None,
    *,
    columns: Mapping[str, ColumnSpec],
    owner: str | None = None,
    timeout_s: float = ACKNOWLEDGE_S,
    **wanted: Any,
) -> Added:
    """Store a filter, or the next version of it, and wait until the workers judge by it.

    columns : what a filter may name;  wanted : further fields of Wanted.
    A filter in force that is given again unchanged gets no new version, nor does the newest draft. Nothing is
    written unless the text compiles and all that it names is there. Raises FilterError, ReservedOwner,
    UnknownFilter for the source, or BrokerError if a server does not answer.
    """
    owner, name = whole_name(
        name, owner, "the next version has a number of its own; write --from for its text"
    )
    if owner == BUILTIN_OWNER:
        raise ReservedOwner(f"the owner {BUILTIN_OWNER!r} is reserved for built-in filters; choose another")
    asked = checked(Wanted(where, **wanted), columns)
    Filter(
        owner, name, 1, **{"where": "", **asked.given}
    )  # refuses what is malformed before any server is asked
    with redis_client(settings) as client:
        with alone(client):
            stored = _store(settings, (owner, name), asked, columns)
        return _acknowledged(settings, client, stored, timeout_s)


def plugins_missing_here(item: Filter, columns: Mapping[str, ColumnSpec]) -> list[str]:
    """Names of plug-ins that a filter calls and this machine does not have; its workers' machines may."""
    select = compile_select(item.select, columns).items if item.select else ()
    calls = [call for form in (compile_filter(item.where, columns), *select) for call in names_in(form)]
    asked = {call.name for call in calls if call.state == PLUGIN}
    return sorted(asked - installed_names()) if asked else []


def remove(
    settings: Settings, name: str, *, owner: str | None = None, by: str = "", timeout_s: float = ACKNOWLEDGE_S
) -> Added:
    """Stop a filter for good; its versions stay readable, its topic and messages are kept."""
    whose = whole_name(name, owner, "a filter is removed as a whole, its versions stay readable")
    return _change_state(settings, (*whose, None), "removed", by, timeout_s)


def disable(
    settings: Settings, name: str, *, owner: str | None = None, by: str = "", timeout_s: float = ACKNOWLEDGE_S
) -> Added:
    """Pause a filter: it judges nothing until it is enabled."""
    return _change_state(settings, versioned_name(name, owner), "paused", by, timeout_s)


def enable(
    settings: Settings, name: str, *, owner: str | None = None, by: str = "", timeout_s: float = ACKNOWLEDGE_S
) -> Added:
    """Put a draft into force, or resume a paused filter, at its full rate; a topic that is gone is made anew.

    Where there are both, the name must say which version is meant.
    """
    return _change_state(settings, versioned_name(name, owner), "active", by, timeout_s)


def install_builtin(settings: Settings, builtin: Sequence[Filter] = BUILTIN_FILTERS) -> list[Filter]:
    """Store the built-in filters that are missing or whose rule changed, and create their topics.

    One that a person removed or paused stays so until its rule changes. Returns what was written.
    """
    with redis_client(settings) as client, alone(client):
        current = read(settings).current_filters()
        new = [_next_builtin(item, current.get(item.full_name)) for item in builtin]
        written = [item for item in new if item is not None]
        held = {item.full_name: item for item in [*current.values(), *written]}
        active = [item for item in held.values() if item.owner == BUILTIN_OWNER and item.state == "active"]
        specs = [filter_spec(item.owner, item.name, settings.topics) for item in active]
        create_topics(admin(settings.kafka), specs)
        if written:
            _write(ControlWriter(settings.kafka), written)
    return written


def _next_builtin(item: Filter, before: Filter | None) -> Filter | None:
    """The version to write for a built-in filter, None if the stored one will do."""
    if before is None:
        return item
    same_rule = (before.where, before.payload) == (item.where, item.payload)
    if same_rule and (before.state != "active" or before.description == item.description):
        return None
    return replace(item, version=before.version + 1)


def _store(
    settings: Settings, whose: tuple[str, str], asked: Wanted, columns: Mapping[str, ColumnSpec]
) -> _Stored:
    """Write what is asked for as the next version, unless there is one in force that does the same."""
    writer = ControlWriter(settings.kafka)  # takes half a second to be ready, so it comes first
    state = read(settings)
    new = _next_version(state, whose, asked)
    select = compile_select(new.select, columns).items if new.select else ()
    for compiled in (compile_filter(new.where, columns), *select):
        require_names(compiled, state.names())
    compile_filter(new.where, columns, state.members())
    if new.select:
        compile_select(new.select, columns, state.members())
    if not asked.draft:
        create_topics(admin(settings.kafka), [filter_spec(new.owner, new.name, settings.topics)])
    before = (state.latest_filters() if asked.draft else state.filters_in_force()).get(new.full_name)
    if before is not None and before.state == new.state and before.rule == new.rule:
        return _as_it_was(state, before)
    return _Stored(new, _write(writer, [new]), written=True)


def _next_version(state: ControlState, whose: tuple[str, str], asked: Wanted) -> Filter:
    """The filter that somebody asks for.  Raises UnknownFilter for a source that is not there."""
    before = state.latest_filters().get(".".join(whose))
    fields: dict[str, Any] = {} if before is None else {"description": before.description}
    if asked.source is not None:
        source = named(state, asked.source, None if "." in asked.source else whose[0])
        fields = {name: getattr(source, name) for name in _RULE_FIELDS}
    now = _now()
    return Filter(
        owner=whose[0],
        name=whose[1],
        version=1 if before is None else before.version + 1,
        state="draft" if asked.draft else "active",
        created_at=now,
        changed_at=now,
        changed_by=asked.by,
        **(fields | asked.given),
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_Whose = tuple[str, str, int | None]


def _change_state(settings: Settings, whose: _Whose, state: State, by: str, timeout_s: float) -> Added:
    with redis_client(settings) as client:
        with alone(client):
            stored = _store_state(settings, whose, state, by)
        return _acknowledged(settings, client, stored, timeout_s)


def _store_state(settings: Settings, whose: _Whose, state: State, by: str) -> _Stored:
    writer = ControlWriter(settings.kafka)
    known = read(settings)
    item = _meant(known, whose, state)
    if state == "active":
        create_topics(admin(settings.kafka), [filter_spec(item.owner, item.name, settings.topics)])
    if item.state == state and item.sample == 1:
        return _as_it_was(known, item)
    changed = replace(
        item, state=state, sample=1.0, sampled_hour=0, reason="", changed_at=_now(), changed_by=by
    )
    return _Stored(changed, _write(writer, [changed]), written=True)


def _meant(known: ControlState, whose: _Whose, state: State) -> Filter:
    """The version whose state somebody wants to change.  Raises UnknownFilter or FilterError."""
    owner, name, version = whose
    newest_one, current = versions(known, owner, name)[-1], find(known, owner, name)
    item = find(known, owner, name, version)
    if current.state == "removed":
        raise UnknownFilter(f"filter {current.full_name} is removed; `broker filters add` brings it back")
    if item.version < current.version:
        raise FilterError(
            f"{item.label} was replaced by version {current.version}; "
            f"`broker filters add {item.full_name} --from {item.label}` makes its text the next version"
        )
    if state == "paused" and item.state == "draft":
        raise FilterError(f"{item.label} is a draft and judges nothing; there is nothing to pause")
    if state == "active" and version is None and newest_one.state == "draft":
        if current.state == "paused":
            both = f"version {current.version}, which is paused, and the draft {newest_one.version}"
            raise FilterError(
                f"filter {current.full_name} has {both}; write {newest_one.label}, or the other"
            )
        return newest_one
    return item


def _as_it_was(state: ControlState, item: Filter) -> _Stored:
    return _Stored(item, state.filter_epochs[(item.full_name, item.version)], written=False)


def _write(writer: ControlWriter, items: Sequence[Filter]) -> int:
    """Append the records of some filters; the offset of the last."""
    return [writer.write(*control.filter_record(item)) for item in items][-1]


def _acknowledged(settings: Settings, client: redis.Redis, stored: _Stored, timeout_s: float) -> Added:
    """Wait for the workers; a filter that is stored stays stored, whatever happens here."""
    item, start = stored.filter, time.monotonic()
    try:
        reached, live = wait_for_epoch(client, settings.run.group, stored.epoch, timeout_s)
    except redis.RedisError as error:
        raise BrokerError(
            f"filter {item.full_name} version {item.version} is stored as {item.state}, but Redis "
            f"does not answer ({error}): it is unknown which workers have it"
        ) from error
    return Added(item, stored.written, stored.epoch, reached, live, time.monotonic() - start)
