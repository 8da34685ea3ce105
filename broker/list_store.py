"""Watchlists and regions, kept in the `control` topic: add, replace, list, fetch and remove.

A list's contents are written before its head, under the lock that all writers of `control` hold, and a call
returns once every live worker judges by the new revision, or says how many do. A name belongs to who took it
first: nobody else may replace or remove what it stands for.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import redis

from broker.config import Settings
from broker.context.positions import (
    MAX_RADIUS_ARCSEC,
    Positions,
    pack_positions,
    read_csv,
    unpack_positions,
)
from broker.context.region_files import MAX_FILE_BYTES, plain, read_region
from broker.context.regions import Region, pack_region, unpack_region
from broker.context.stored import (
    ListKind,
    Parts,
    StoredList,
    blob_records,
    content_of,
    list_record,
    purged_record,
)
from broker.context.watchlists import DEFAULT_RADIUS_ARCSEC
from broker.control import ControlState
from broker.control.lock import alone, redis_client
from broker.control.topic import ControlWriter
from broker.errors import BrokerError, ListError
from broker.filters.store import ACKNOWLEDGE_S, BUILTIN_OWNER, DEFAULT_OWNER, read
from broker.heartbeats import wait_for_epoch


class NotTheOwner(ListError):
    """The list is somebody else's."""


class UnknownList(BrokerError):
    """No watchlist or region, or no such revision of it, has this name."""


@dataclass(frozen=True)
class Contents:
    """What is to be stored: made by `watchlist` or `region`, and checked by then.

    packed : as the workers read it;  the rest as in StoredList
    """

    kind: ListKind
    form: str
    packed: bytes
    rows: int
    radius_arcsec: float | None
    area_deg2: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Changed:
    """What a change came to.

    written : False if the list was so already;  epoch : control offset from which it holds
    reached of live : workers that judge by it;  seconds : from the first write to their acknowledgement
    """

    item: StoredList
    written: bool
    epoch: int
    reached: int
    live: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As the API and `--json` show it."""
        return {
            self.item.kind: self.item.to_json(),
            "written": self.written,
            "epoch": self.epoch,
            "reached": self.reached,
            "live": self.live,
            "seconds": round(self.seconds, 3),
        }


def text_of(content: bytes) -> str:
    """The text of a CSV file, gzipped or not.  Raises ListError."""
    content = plain(content)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        wrong = content[error.start : error.start + 1].hex()
        raise ListError(f"a CSV must be UTF-8 text; byte {error.start:,} of this is 0x{wrong}") from None


def watchlist(
    text: str, radius_arcsec: float | None = None, on_rows: Callable[[int], None] = lambda _: None
) -> Contents:
    """The contents of a CSV of positions.

    radius_arcsec : of entries that give none, DEFAULT_RADIUS_ARCSEC if not given;  on_rows : see read_csv
    Raises ListError for a faulty file.
    """
    radius = DEFAULT_RADIUS_ARCSEC if radius_arcsec is None else radius_arcsec
    if not 0 <= radius <= MAX_RADIUS_ARCSEC:
        raise ListError(f"a radius of {radius:g} arcsec; it must be in 0..{MAX_RADIUS_ARCSEC:g}")
    found = read_csv(text, on_rows)
    positions = found.positions
    return Contents(
        "watchlist", "positions", pack_positions(positions), len(positions), radius, {}, found.notes()
    )


def region(content: bytes, most: int = MAX_FILE_BYTES) -> Contents:
    """The contents of a MOC or a sky map.  Raises ListError for a faulty file.

    most : bytes of the file once unpacked
    """
    found = read_region(content, most)
    areas = {level: round(area, 4) for level, area in found.region.areas().items()}
    packed = pack_region(found.region)
    return Contents("region", found.form, packed, len(found.region), None, areas, found.notes)


def add(
    settings: Settings,
    name: str,
    contents: Contents,
    *,
    owner: str = DEFAULT_OWNER,
    description: str | None = None,
    purge: bool = False,
    by: str,
    timeout_s: float = ACKNOWLEDGE_S,
) -> Changed:
    """Store a list, or the next revision of it, and wait until the workers judge by it.

    description : None keeps that of the revision before. What is there unchanged is not written again.
    purge : forget the contents of the revisions before
    Raises NotTheOwner, ListError, FilterError for a wrong name, or BrokerError if a server does not answer.
    """
    if owner == BUILTIN_OWNER:
        raise NotTheOwner(f"the owner {BUILTIN_OWNER!r} is reserved for the broker itself; choose another")
    sha256, parts = blob_records(contents.packed)
    item = StoredList(
        kind=contents.kind, name=name, revision=1, owner=owner, form=contents.form, sha256=sha256,
        size=len(contents.packed), parts=len(parts), rows=contents.rows, description=description or "",
        radius_arcsec=contents.radius_arcsec, area_deg2=contents.area_deg2, notes=contents.notes,
        at=_now(), by=by,
    )  # fmt: skip

    def next_revision(before: StoredList | None) -> StoredList:
        if before is None:
            return item
        kept = before.description if description is None else item.description
        new = replace(item, revision=before.revision + 1, description=kept)
        return before if _same(before, new) else new

    return _change(settings, contents.kind, name, owner, next_revision, parts, purge, timeout_s)


def remove(
    settings: Settings,
    kind: ListKind,
    name: str,
    *,
    owner: str = DEFAULT_OWNER,
    purge: bool = False,
    by: str,
    timeout_s: float = ACKNOWLEDGE_S,
) -> Changed:
    """Take a list away: filters that name it get NULL. Its revisions stay, for rows judged by them.

    purge : forget the contents of all of them
    Raises UnknownList, NotTheOwner, or BrokerError if a server does not answer.
    """

    def removal(before: StoredList | None) -> StoredList:
        if before is None or (before.state == "removed" and not purge):
            raise _unknown(kind, name)
        if before.state == "removed":
            return before
        return replace(
            before, revision=before.revision + 1, state="removed", at=_now(), by=by,
            sha256="", size=0, parts=0, rows=0, area_deg2={}, notes=(),
        )  # fmt: skip

    return _change(settings, kind, name, owner, removal, [], purge, timeout_s)


def newest(state: ControlState, kind: ListKind, *, removed: bool = False) -> list[StoredList]:
    """The newest revision of each list of a kind, by name; those that are removed only if asked for."""
    found = [revisions[max(revisions)] for (its, _), revisions in sorted(state.lists.items()) if its == kind]
    return [item for item in found if removed or item.state == "active"]


def find(state: ControlState, kind: ListKind, name: str, revision: int | None = None) -> StoredList:
    """One revision of a list, the live one by default.  Raises UnknownList."""
    revisions = state.lists.get((kind, name), {})
    item = revisions.get(revision or max(revisions, default=0))
    if item is None or (revision is None and item.state == "removed"):
        raise _unknown(kind, name, revision)
    return item


def describe(state: ControlState, item: StoredList) -> dict[str, Any]:
    """A revision and which others there are, as JSON."""
    return {**item.to_json(), "revisions": sorted(state.lists[item.kind, item.name])}


def download(item: StoredList, blobs: Mapping[str, Parts]) -> Iterator[str]:
    """A revision as pieces of CSV: the entries of a watchlist, or the ranges of a region at order 29.

    Raises UnknownList for a removal, and ListError where the contents cannot be read.
    """
    if item.state == "removed":
        raise UnknownList(f"{item.label} is a removal, and has no contents")
    content = content_of(item, blobs)
    if item.kind == "watchlist":
        return _as_csv(_entries(unpack_positions(content)))
    return _as_csv(_ranges(unpack_region(content)))


def _as_csv(rows: Iterator[tuple[Any, ...]]) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    write = csv.writer(buffer).writerow
    for number, row in enumerate(rows):
        write(row)
        if number % _ROWS_A_PIECE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


_ROWS_A_PIECE = 10_000


def _entries(positions: Positions) -> Iterator[tuple[Any, ...]]:
    yield "name", "ra", "dec", "radius_arcsec"
    columns = (positions.ra.tolist(), positions.dec.tolist(), positions.radius.tolist())
    for row, (ra, dec, radius) in enumerate(zip(*columns, strict=True)):
        yield positions.names[row], repr(ra), repr(dec), "" if math.isnan(radius) else repr(radius)


def _ranges(found: Region) -> Iterator[tuple[Any, ...]]:
    yield "first", "end", "credible_level"
    yield from zip(found.starts.tolist(), found.ends.tolist(), found.levels.tolist(), strict=True)


def _change(
    settings: Settings,
    kind: ListKind,
    name: str,
    owner: str,
    next_revision: Callable[[StoredList | None], StoredList],
    parts: list[tuple[bytes, bytes]],
    purge: bool,
    timeout_s: float,
) -> Changed:
    """Write the next revision of a list and its contents, and wait for the workers."""
    start = time.monotonic()
    with redis_client(settings) as client:
        with alone(client):
            writer = ControlWriter(settings.kafka)
            state = read(settings)
            revisions = state.lists.get((kind, name), {})
            before = revisions.get(max(revisions, default=0))
            _require_owner(before, owner)
            item = next_revision(before)
            if written := item is not before:
                # All parts, also those that are there: the workers have let them go (without_loaded).
                epoch = [writer.write(*record) for record in [*parts, list_record(item)]][-1]
            else:
                epoch = state.epoch
            for record in purged_records(state, item) if purge else ():
                writer.write(*record)
        try:
            reached, live = wait_for_epoch(client, settings.run.group, epoch, timeout_s)
        except redis.RedisError as error:
            raise BrokerError(
                f"{item.label} is stored as {item.state}, but Redis does not answer ({error}): it is unknown"
                " which workers have it"
            ) from error
    return Changed(item, written, epoch, reached, live, time.monotonic() - start)


def purged_records(state: ControlState, newest: StoredList) -> list[tuple[bytes, bytes]]:
    """Records that empty the parts of a list's contents which no list stands for any more.

    newest : its newest revision, which the state need not have yet
    """
    revisions = state.lists.get((newest.kind, newest.name), {}).values()
    others = [
        item for item in state.live_lists().values() if (item.kind, item.name) != (newest.kind, newest.name)
    ]
    live = {item.sha256 for item in (newest, *others)}
    gone = {item.sha256: item.parts for item in revisions if item.sha256 not in live}
    return [purged_record(sha256, part) for sha256, parts in gone.items() for part in range(parts)]


def _require_owner(before: StoredList | None, owner: str) -> None:
    """Refuse who is not the owner of a name; also of one whose list is removed, as filters may name it."""
    if before is not None and before.owner != owner:
        raise NotTheOwner(
            f"{before.kind} {before.name} belongs to {before.owner!r}, not to {owner!r}; choose another name,"
            " or say --owner if that is you"
        )


def _same(before: StoredList, new: StoredList) -> bool:
    """Whether the revision before already is what is asked for."""
    return before == replace(new, revision=before.revision, at=before.at, by=before.by)


def _unknown(kind: ListKind, name: str, revision: int | None = None) -> UnknownList:
    which = "" if revision is None else f" revision {revision}"
    return UnknownList(f"there is no {kind} {name}{which}; `broker catalogs list` shows those there are")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
