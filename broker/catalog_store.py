"""The catalogues of a cluster: files in the folder context.folder, and records in the `control` topic.

Adding reads the tables into a folder of its own first; only when that is whole is it named in `control`, from
which epoch on the workers match with it. Every revision stays on disk until it is purged, because who judges
the alerts of an earlier epoch again must find what was matched then.
"""

from __future__ import annotations

import getpass
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from broker import control
from broker.catalog import StoredCatalog, check_name
from broker.config import Settings
from broker.context.catalogs import open_catalog
from broker.context_files import catalogs_folder
from broker.control import ControlState
from broker.control.lock import alone, redis_client
from broker.control.topic import ControlTail, ControlWriter
from broker.errors import BrokerError, CatalogError, FilterError
from broker.filter import Filter
from broker.filters.functions import CATALOG, FUNCTION_BY_NAME
from broker.filters.parse import parse
from broker.filters.tree import Call, String, walk
from broker.heartbeats import wait_for_epoch

if TYPE_CHECKING:
    from broker.context.catalog_build import Chosen

ACKNOWLEDGE_S = 10.0
"""How long a call waits for the workers, as for a filter."""


@dataclass(frozen=True)
class Changed:
    """What a change came to.

    written : False if the catalogue was so already;  epoch : control offset from which it holds
    skipped : rows of the files that were left out because they have no position
    reached of live : workers that have taken the new state
    """

    catalog: StoredCatalog
    written: bool
    skipped: int
    reached: int
    live: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        names = ("written", "skipped", "reached", "live")
        counts = {name: getattr(self, name) for name in names}
        return {"catalog": as_json(self.catalog), **counts, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class New:
    """A catalogue as it is asked for, the fields as `broker catalogs add` takes them."""

    name: str
    paths: Sequence[Path]
    ra: str = ""
    dec: str = ""
    columns: Sequence[str] | None = None
    footprint: Path | None = None
    description: str = ""


def as_json(item: StoredCatalog) -> dict[str, Any]:
    """A catalogue as the API and `--json` show it."""
    return {**item.to_json(), "epoch": item.epoch, "kind": "catalog"}


def read(settings: Settings) -> ControlState:
    """The control state as it is now.  Raises BrokerError."""
    with ControlTail(settings.kafka) as tail:
        return tail.catch_up()


def listed(state: ControlState, *, removed: bool = False) -> list[StoredCatalog]:
    """The newest revision of each catalogue, by name; those that are removed only if asked for."""
    newest = [revisions[max(revisions)] for _, revisions in sorted(state.catalogs.items())]
    return [item for item in newest if removed or item.state == "active"]


def chosen(new: New) -> Chosen:
    """What of its files a catalogue is made of, which needs no server.  Raises CatalogError."""
    from broker.context.catalog_build import choose  # noqa: PLC0415 (pyarrow; only who adds needs it)
    from broker.context.catalog_files import open_table  # noqa: PLC0415

    check_name(new.name)
    return choose([open_table(path) for path in new.paths], new.ra, new.dec, new.columns)


def add(
    settings: Settings,
    new: New,
    meter: Callable[[int], Any] = lambda rows: None,
    *,
    of: Chosen | None = None,
    timeout_s: float = ACKNOWLEDGE_S,
) -> Changed:
    """Read tables into the folder of catalogues, name the result in `control`, and wait for the workers.

    meter : told how many more rows were read;  of : chosen(new), if it is known already
    The same content again under a name gets no new revision.
    Raises CatalogError, or BrokerError if a server does not answer.
    """
    of = of or chosen(new)
    folder = catalogs_folder(settings) / new.name
    with _building(folder) as built:
        made, skipped = _build(new, of, built, meter)
        with redis_client(settings) as client:
            with alone(client):
                stored, written = _store(settings, made, built, folder.parent)
            return _acknowledged(settings, client, stored, written, skipped, timeout_s)


def _building(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder to build in, on the file system where the catalogue will be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix=".adding-")
    except OSError as error:
        raise CatalogError(f"cannot make the folder {folder}: {error}; set context.folder") from error


def _build(new: New, of: Chosen, parent: str, meter: Callable[[int], Any]) -> tuple[StoredCatalog, int]:
    from broker.context.catalog_build import build  # noqa: PLC0415 (as in chosen)

    footprint = None if new.footprint is None else _footprint(new.footprint)
    folder = Path(parent) / "built"
    folder.mkdir()
    try:
        manifest, sha256 = build(of, folder, footprint, meter)
    except OSError as error:
        raise CatalogError(f"cannot write to {parent}: {error}") from error
    now, by = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), getpass.getuser()
    made = StoredCatalog(
        new.name, 1, sha256, manifest.rows, manifest.specs, "active", new.description, now, by
    )
    return made, manifest.skipped


def _footprint(path: Path) -> Any:
    from broker.context.footprint import read_footprint  # noqa: PLC0415 (mocpy; only who adds one needs it)

    return read_footprint(path)


def _store(
    settings: Settings, made: StoredCatalog, parent: str, catalogs: Path
) -> tuple[StoredCatalog, bool]:
    """Move a catalogue to its place and name it in `control`, unless the live revision is the same."""
    writer = ControlWriter(settings.kafka)
    revisions = read(settings).catalogs.get(made.name, {})
    live = revisions.get(max(revisions, default=0))
    new = replace(made, revision=max(revisions, default=0) + 1)
    same = live is not None and _content(live) == _content(new)
    target = catalogs / (live if same and live else new).folder
    if not (same and _readable(target, new.sha256)):
        shutil.rmtree(target, ignore_errors=True)  # of an add that was killed before it was named
        (Path(parent) / "built").rename(target)
    if same and live:
        return live, False
    return replace(new, epoch=writer.write(*control.catalog_record(new))), True


def _content(item: StoredCatalog) -> tuple[str, str, str]:
    return item.sha256, item.state, item.description


def remove(
    settings: Settings,
    name: str,
    *,
    purge: bool = False,
    force: bool = False,
    timeout_s: float = ACKNOWLEDGE_S,
) -> Changed:
    """Let filters name a catalogue no more; its files stay unless they are purged.

    force : also if active filters name it, which are then refused by every worker
    Raises CatalogError if there is none of this name, or if filters use it.
    """
    with redis_client(settings) as client:
        with alone(client):
            writer = ControlWriter(settings.kafka)
            state = read(settings)
            before = next((it for it in listed(state, removed=True) if it.name == name), None)
            if before is None:
                raise CatalogError(
                    f"no catalogue is named {name!r}; `broker catalogs list` shows those there are"
                )
            written = before.state == "active"
            if written:
                _require_unused(state, name, force)
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                new = replace(
                    before, revision=before.revision + 1, state="removed", at=now, by=getpass.getuser()
                )
                before = replace(new, epoch=writer.write(*control.catalog_record(new)))
        done = _acknowledged(settings, client, before, written, 0, timeout_s)
    if purge:
        shutil.rmtree(catalogs_folder(settings) / name, ignore_errors=True)
    return done


def _require_unused(state: ControlState, name: str, force: bool) -> None:
    users = [f"{item.owner}.{item.name}" for item in users_of(state, name)]
    if users and not force:
        raise CatalogError(
            f"the catalogue {name!r} is used by {', '.join(users)}; change or remove these filters first, "
            "or give --force, and they will judge nothing"
        )


def users_of(state: ControlState, name: str, kind: str = CATALOG) -> list[Filter]:
    """The active filters whose text names a state of a kind."""
    return [item for item in state.active_filters() if _names(item.where, name, kind)]


def _names(where: str, name: str, kind: str) -> bool:
    try:
        calls = [node for node in walk(parse(where)) if isinstance(node, Call) and node.arguments]
    except FilterError:
        return False
    states = [(FUNCTION_BY_NAME.get(call.name.lower()), call.arguments[0]) for call in calls]
    return any(
        function is not None and function.state == kind and isinstance(named, String) and named.value == name
        for function, named in states
    )


def problem(settings: Settings, item: StoredCatalog, *, whole: bool = False) -> str:
    """Why this machine cannot read a live catalogue, '' if it can.  whole : read every byte, too"""
    try:
        catalog = open_catalog(catalogs_folder(settings) / item.folder, item.sha256)
        if whole:
            catalog.check()
    except CatalogError as error:
        return str(error)
    return ""


def _readable(folder: Path, sha256: str) -> bool:
    try:
        open_catalog(folder, sha256)
    except CatalogError:
        return False
    return True


def _acknowledged(
    settings: Settings,
    client: redis.Redis,
    stored: StoredCatalog,
    written: bool,
    skipped: int,
    timeout_s: float,
) -> Changed:
    """Wait for the workers; a catalogue that is stored stays stored, whatever happens here."""
    start = time.monotonic()
    try:
        reached, live = wait_for_epoch(client, settings.run.group, stored.epoch, timeout_s)
    except redis.RedisError as error:
        raise BrokerError(
            f"catalogue {stored.label} is stored as {stored.state}, but Redis does not answer ({error}): it "
            "is unknown which workers have it"
        ) from error
    return Changed(stored, written, skipped, reached, live, time.monotonic() - start)
