"""The models of a cluster, kept in the `control` topic: promote, roll back, list.

A bundle is stored under its id and version once and for good, so what provenance names can always be looked
up. Only a bundle that this version of the code can serve is stored. A call returns once every live worker has
taken the new state, and says how many of them serve the model.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from typing import Any, Generic, TypeVar

import redis

from broker import control
from broker.assemble import survey_names
from broker.config import Settings
from broker.control import ControlState
from broker.control.lock import alone, redis_client
from broker.control.topic import ControlTail, ControlWriter
from broker.errors import BrokerError, BundleError
from broker.heartbeats import Heartbeat, live_workers, wait_for_epoch
from broker.models import load_checked
from broker.promotion import ALL, BundleName, Promotion, Shadow, StoredBundle, promoted, rolled_back
from broker.scores.archive import pack, unpack
from broker.scores.bundle import MANIFEST, write_manifest
from broker.scores.catalog import BUNDLES, OWN_BUNDLES, STAMPS_BUNDLE, Scorer
from broker.shadow import Disagreement, read_disagreements

ACKNOWLEDGE_S = 10.0
"""How long a call waits for the workers, as for a filter."""
Found = Mapping[str, Mapping[str, Disagreement]]
"""Disagreements of the shadow of each group, by the live model's id:version."""
SHIPPED = "shipped"
"""How the time before the first promotion is named."""


class UnknownModel(BrokerError):
    """No bundle has this name, or nothing was promoted that could be rolled back."""


@dataclass(frozen=True)
class Promoted:
    """What a change came to.

    written : False if the group had this bundle already;  epoch : control offset from which it holds
    reached, serving of live : workers that took the state, and those of them that score by the bundle
    """

    promotion: Promotion
    written: bool
    epoch: int
    reached: int
    serving: int
    live: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"promotion": promotion_json(self.promotion), **_outcome_json(self)}


@dataclass(frozen=True)
class Shadowed:
    """What setting a shadow, or turning it off, came to; the fields as in Promoted.

    serving : workers that score by the shadow, or by none if it was turned off
    """

    shadow: Shadow
    written: bool
    epoch: int
    reached: int
    serving: int
    live: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"shadow": shadow_json(self.shadow), **_outcome_json(self)}


def _outcome_json(found: Promoted | Shadowed) -> dict[str, Any]:
    """What both say besides what was changed."""
    names = ("written", "epoch", "reached", "serving", "live")
    return {**{name: getattr(found, name) for name in names}, "seconds": round(found.seconds, 3)}


def read(settings: Settings) -> ControlState:
    """The control state as it is now.  Raises BrokerError."""
    with ControlTail(settings.kafka) as tail:
        return tail.catch_up()


def promote(
    settings: Settings,
    what: str,
    *,
    group: str = ALL,
    version: str | None = None,
    why: str = "",
    timeout_s: float = ACKNOWLEDGE_S,
) -> Promoted:
    """Let the alerts of a group be scored by a bundle, and wait until the workers do.

    what : folder of a bundle, name of a shipped one, or id:version of one that was promoted before
    group : a survey, or ALL for the surveys that have no promotion of their own
    version : store the bundle of a folder under this version instead of its own
    Nothing is written unless the bundle can be served. Raises BundleError, UnknownModel, or BrokerError.
    """
    _check_group(group)
    folder = _folder(what)
    given = None if folder is None else sealed(folder, version)
    if given is None and version is not None:
        raise BundleError(f"{what} is stored already; a version can be given to a folder only")

    def change(state: ControlState) -> tuple[list[tuple[bytes, bytes]], Promotion]:
        stored, records = _stored(state, given) if given else (find(state, what), [])
        history = state.promotions.get(group, {})
        live = history.get(max(history, default=0))
        if live is not None and live.bundle == stored.name:
            return [], live
        new = promoted(history, _new(group, stored.name, why))
        return [*records, control.promotion_record(new)], new

    return _changed(settings, change, timeout_s)


def rollback(
    settings: Settings, *, group: str = ALL, why: str = "", timeout_s: float = ACKNOWLEDGE_S
) -> Promoted:
    """Go back to what scored a group before its newest promotion; twice in a row goes back twice.

    Raises UnknownModel where nothing is left to go back to.
    """
    _check_group(group)

    def change(state: ControlState) -> tuple[list[tuple[bytes, bytes]], Promotion]:
        new = rolled_back(state.promotions.get(group, {}), _new(group, None, why))
        if new is None:
            raise UnknownModel(f"nothing is promoted for {group!r}; there is nothing to go back to")
        return [control.promotion_record(new)], new

    return _changed(settings, change, timeout_s)


def shadow(
    settings: Settings,
    what: str,
    *,
    group: str = ALL,
    version: str | None = None,
    why: str = "",
    timeout_s: float = ACKNOWLEDGE_S,
) -> Shadowed:
    """Let a bundle score a share of a group's alerts beside the live one, publishing nothing of it.

    The arguments are those of `promote`. A group has one shadow: a new one takes the place of the one before,
    and its disagreements are counted from then on.
    """
    _check_group(group)
    folder = _folder(what)
    given = None if folder is None else sealed(folder, version)
    if given is None and version is not None:
        raise BundleError(f"{what} is stored already; a version can be given to a folder only")

    def change(state: ControlState) -> tuple[list[tuple[bytes, bytes]], Shadow]:
        stored, records = _stored(state, given) if given else (find(state, what), [])
        return _new_shadow(state, Shadow(group, stored.name, _now(), _who(), why), records)

    return _shadowed(settings, change, timeout_s)


def shadow_off(
    settings: Settings, *, group: str = ALL, why: str = "", timeout_s: float = ACKNOWLEDGE_S
) -> Shadowed:
    """Let nothing score beside a group's live model any more.  Raises UnknownModel where nothing does."""
    _check_group(group)

    def change(state: ControlState) -> tuple[list[tuple[bytes, bytes]], Shadow]:
        if group not in live_shadows(state):
            raise UnknownModel(f"no shadow scores beside the live model of {group!r}")
        return _new_shadow(state, Shadow(group, None, _now(), _who(), why), [])

    return _shadowed(settings, change, timeout_s)


def _new_shadow(
    state: ControlState, new: Shadow, records: Sequence[tuple[bytes, bytes]]
) -> tuple[list[tuple[bytes, bytes]], Shadow]:
    known = state.shadows.get(new.group)
    if known is not None and known.bundle == new.bundle:
        return [], known
    return [*records, control.shadow_record(new)], new


def live_shadows(state: ControlState) -> dict[str, Shadow]:
    """What scores beside the live models, by group."""
    return {group: item for group, item in sorted(state.shadows.items()) if item.bundle is not None}


def disagreements(settings: Settings, state: ControlState) -> Found:
    """What was found since each shadow was set, by group and live model.  Raises BrokerError."""
    with redis_client(settings) as client:
        try:
            return found_by(client, settings.run.group, state)
        except redis.RedisError as error:
            raise BrokerError(f"Redis does not answer: {error}; is it running?") from error


def found_by(client: Any, run_group: str, state: ControlState) -> Found:
    """As `disagreements`, by a client that is there.  Raises redis.RedisError."""
    shadows = live_shadows(state).items()
    return {group: read_disagreements(client, run_group, item.epoch) for group, item in shadows}


def sealed(folder: Path, version: str | None = None) -> StoredBundle:
    """A folder's bundle as it would be stored, after every check of it.  Raises BundleError."""
    with tempfile.TemporaryDirectory(prefix="broker-bundle-") as place:
        copy = Path(place) / "bundle"  # what is checked is what is packed, whoever writes to the folder
        try:
            copytree(folder, copy)
        except OSError as error:
            raise BundleError(f"cannot read {folder}: {error}") from error
        scorer = load_checked(copy)
        if version is not None:
            write_manifest(copy, replace(scorer.manifest, version=version))
            scorer = load_checked(copy)
        return _packed(copy, scorer)


def _packed(folder: Path, scorer: Scorer) -> StoredBundle:
    try:
        name = BundleName(scorer.id, scorer.version)
    except ValueError as error:
        raise BundleError(f"bundle {scorer.id}: {error}") from None
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return StoredBundle(name, digest, pack(folder), _now(), _who())


def find(state: ControlState, name: str) -> StoredBundle:
    """A bundle in `control` by id:version, or by its id if it has one version.  Raises UnknownModel."""
    found = [item for key, item in state.bundles.items() if name in (str(key), key.id)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(map(str, state.bundles))) or "none yet"
    folders = [path.parent for path in BUNDLES.glob(f"*/{MANIFEST}")]
    shipped = ", ".join(sorted(folder.name for folder in folders if folder != STAMPS_BUNDLE))
    raise UnknownModel(
        f"{name!r} is neither a folder nor one bundle; promoted before: {known}; shipped: {shipped}"
    )


def describe(
    state: ControlState, settings: Settings, workers: Sequence[Heartbeat] = (), found: Found | None = None
) -> dict[str, Any]:
    """What is live, what scores beside it, what is known and what the workers serve, as JSON.

    found : how far shadows and live models disagree

    note : what a reader must know besides, '' if nothing
    """
    note = ""
    if settings.run.model:
        note = f"run.model is set to {settings.run.model}: workers started with it ignore promotions"
    return {
        "live": {group: promotion_json(item) for group, item in state.live_promotions().items()},
        "shadows": {
            group: {
                **shadow_json(item),
                "workers": sum(beat.shadows.get(group) == str(item.bundle) for beat in workers),
                "against": {live: one.to_json() for live, one in (found or {}).get(group, {}).items()},
            }
            for group, item in live_shadows(state).items()
        },
        "known": [item.summary() for _, item in sorted(state.bundles.items(), key=lambda pair: str(pair[0]))],
        "workers": {beat.slot: dict(beat.models) for beat in workers},
        "note": note,
    }


def details(state: ControlState, stored: StoredBundle) -> dict[str, Any]:
    """All that is known of a bundle: its manifest, its card, its promotions.  Raises BundleError."""
    files = unpack(stored.archive)
    history = [item for group in state.promotions.values() for item in group.values()]
    return {
        **stored.summary(),
        "manifest": json.loads(files[MANIFEST]),
        "card": files.get("card.md", b"").decode(errors="replace"),
        "promotions": [promotion_json(item) for item in history if item.bundle == stored.name],
    }


def promotion_json(item: Promotion) -> dict[str, Any]:
    """A promotion as people are shown it."""
    return {**item.to_json(), "bundle": SHIPPED if item.bundle is None else str(item.bundle)}


def shadow_json(item: Shadow) -> dict[str, Any]:
    """A shadow as people are shown it."""
    return {**item.to_json(), "bundle": None if item.bundle is None else str(item.bundle)}


def serving(settings: Settings) -> list[Heartbeat]:
    """The live workers.  Raises BrokerError if Redis does not answer."""
    with redis_client(settings) as client:
        try:
            return live_workers(client, settings.run.group)
        except redis.RedisError as error:
            raise BrokerError(f"Redis does not answer: {error}; is it running?") from error


def _folder(what: str) -> Path | None:
    """The folder that a user means: a path, or a shipped bundle's name."""
    for folder in (Path(what), BUNDLES / what):
        if (folder / MANIFEST).is_file():
            return folder
    if Path(what).is_dir():
        raise BundleError(f"{what} has no {MANIFEST}; give the folder of a bundle")
    return None


def _check_group(group: str) -> None:
    known = (ALL, *survey_names())
    if group not in known:
        raise BundleError(f"no survey {group!r}; choose one of {', '.join(known)}")


def _stored(state: ControlState, given: StoredBundle) -> tuple[StoredBundle, list[tuple[bytes, bytes]]]:
    """The bundle and the record it needs, none if `control` has it already.  Raises BundleError."""
    known = state.bundles.get(given.name)
    if known is None:
        _check_shipped(given)
        return given, [control.bundle_record(given)]
    if known.sha256 != given.sha256:
        raise BundleError(_taken(given.name, "was promoted before"))
    return known, []


def _check_shipped(given: StoredBundle) -> None:
    """Alerts may name a shipped bundle that was never promoted: its name is taken too."""
    for path in BUNDLES.glob(f"*/{MANIFEST}"):
        content = path.read_bytes()
        said = json.loads(content)
        same_name = (said["id"], said["version"]) == (given.name.id, given.name.version)
        if same_name and hashlib.sha256(content).hexdigest() != given.sha256:
            raise BundleError(_taken(given.name, "is shipped"))


def _taken(name: BundleName, how: str) -> str:
    return f"another bundle of the name {name} {how}; give this one a version of its own with --version"


def _new(group: str, bundle: BundleName | None, why: str) -> Promotion:
    return Promotion(group, 1, bundle, 0, rollback=False, at=_now(), by=_who(), why=why)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"user {os.getuid()}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _changed(
    settings: Settings,
    change: Callable[[ControlState], tuple[Sequence[tuple[bytes, bytes]], Promotion]],
    timeout_s: float,
) -> Promoted:
    done = _write(settings, change, timeout_s)
    count = sum(beat.epoch >= done.epoch and serves(beat.models, done.item) for beat in done.workers)
    return Promoted(done.item, done.written, done.epoch, done.reached, count, done.live, done.seconds)


def _shadowed(
    settings: Settings,
    change: Callable[[ControlState], tuple[Sequence[tuple[bytes, bytes]], Shadow]],
    timeout_s: float,
) -> Shadowed:
    done = _write(settings, change, timeout_s)
    name = None if done.item.bundle is None else str(done.item.bundle)
    count = sum(
        beat.epoch >= done.epoch and beat.shadows.get(done.item.group) == name for beat in done.workers
    )
    return Shadowed(done.item, done.written, done.epoch, done.reached, count, done.live, done.seconds)


_Item = TypeVar("_Item", Promotion, Shadow)


@dataclass(frozen=True)
class _Written(Generic[_Item]):
    item: _Item
    written: bool
    epoch: int
    reached: int
    live: int
    workers: list[Heartbeat]
    seconds: float


def _write(
    settings: Settings,
    change: Callable[[ControlState], tuple[Sequence[tuple[bytes, bytes]], _Item]],
    timeout_s: float,
) -> _Written[_Item]:
    """Write what a change comes to in the state as it is now, and wait for the workers."""
    with redis_client(settings) as client:
        with alone(client):
            writer = ControlWriter(settings.kafka)
            state = read(settings)
            records, item = change(state)
            epoch = state.epoch
            for record in records:
                epoch = writer.write(*record)
        start = time.monotonic()
        try:
            reached, live = wait_for_epoch(client, settings.run.group, epoch, timeout_s)
            workers = live_workers(client, settings.run.group)
        except redis.RedisError as error:
            raise BrokerError(
                f"it is stored what scores {item.group}, but Redis does not answer ({error}): it is unknown "
                "which workers have it"
            ) from error
    return _Written(item, bool(records), epoch, reached, live, workers, time.monotonic() - start)


def serves(models: Mapping[str, str], item: Promotion) -> bool:
    """Whether a worker that serves these models (by group) has taken a promotion or a rollback."""
    if item.bundle is not None:
        return models.get(item.group) == str(item.bundle)
    return item.group == ALL or models.get(item.group) in (None, _own_name(item.group))


def _own_name(survey: str) -> str:
    """id:version of the shipped bundle that a survey has of its own, '' if it has none."""
    path = OWN_BUNDLES.get(survey)
    if path is None:
        return ""
    said = json.loads((path / MANIFEST).read_text())
    return f"{said['id']}:{said['version']}"
