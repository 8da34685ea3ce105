"""What the names of watchlists and regions stand for at a control epoch.

A worker keeps a ListSet and makes the next one of it at each epoch; so does who judges rows of the past,
epoch by epoch (control/past.py). Contents are named by their SHA-256 and read once, however many epochs share
them; compaction may have moved their records behind the epoch that first named them, which is why a state of
the past is given all of them. A name that did not exist at an epoch is not in `named`, and a function of it
is NULL; contents that are there but cannot be read give a Failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.context.positions import unpack_positions
from broker.context.regions import BoundRegion, unpack_region
from broker.context.stored import LIST_KINDS, ListKind, Parts, StoredList, content_of
from broker.context.watchlists import BoundWatchlist
from broker.control import ControlState
from broker.errors import ListError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Failed:
    """A list whose contents cannot be read: every answer about it is NULL.  failure : why"""

    failure: str
    reads: tuple[str, ...] = ("ra", "dec")

    def __call__(self, memo: dict[Any, Any], ra: F64, dec: F64, limit: Any = None) -> F64:
        """NaN for every row."""
        return np.full(len(ra), np.nan)

    def entries(
        self, memo: dict[Any, Any], ra: F64, dec: F64, radius_deg: Any = None
    ) -> tuple[I64, tuple[str, ...]]:
        """No name for any row."""
        return np.full(len(ra), -1, dtype=np.int64), ()


BoundList = BoundWatchlist | BoundRegion | Failed
Contents = tuple[ListKind, str, float | None]
"""What a Bound is made of: kind, SHA-256 and default radius."""


def contents_of(item: StoredList) -> Contents:
    """What the Bound of a revision is made of."""
    return item.kind, item.sha256, item.radius_arcsec


def named_at(
    state: ControlState,
    held: dict[Contents, BoundList],
    blobs: Mapping[str, Parts] | None = None,
) -> dict[str, dict[str, BoundList]]:
    """What filters may name at a state's epoch, by kind and name.

    held : what was loaded before; gains what is loaded now
    blobs : where the contents are, those of the state itself if not given
    """
    named: dict[str, dict[str, BoundList]] = {kind: {} for kind in LIST_KINDS}
    for (kind, name), item in state.live_lists().items():
        named[kind][name] = _held(item, held, state.blobs if blobs is None else blobs)
    return named


def _held(item: StoredList, held: dict[Contents, BoundList], blobs: Mapping[str, Parts]) -> BoundList:
    contents = contents_of(item)
    before = held.get(contents)
    if before is not None and not before.failure:
        return before
    found = load(item, blobs)  # once more, if it failed: what was missing may have come
    if before is None or before.failure != found.failure:
        held[contents] = found
    return held[contents]


def load(item: StoredList, blobs: Mapping[str, Parts]) -> BoundList:
    """The Bound of a revision, ready to be asked; a Failed where its contents cannot be read."""
    try:
        content = content_of(item, blobs)
        found: BoundWatchlist | BoundRegion
        if item.kind == "watchlist":
            found = BoundWatchlist.of(unpack_positions(content), item.radius_arcsec)
        else:
            found = BoundRegion(unpack_region(content))
        found({}, np.zeros(1), np.zeros(1))  # compiles what is not compiled yet, before a batch waits for it
    except ListError as error:
        return Failed(str(error))
    except Exception as error:  # readers of arrays fail in many ways, and none may end a worker
        return Failed(f"its contents cannot be used: {error!r}")
    return found


@dataclass(frozen=True)
class ListSet:
    """The watchlists and regions of one epoch; a new object for each.

    named : by kind and name;  held : the same by contents;  failed : label of a revision -> why it fails
    owners : of the revisions that fail, by label
    """

    named: Mapping[str, Mapping[str, BoundList]] = field(default_factory=dict)
    held: Mapping[Contents, BoundList] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)


def list_set(before: ListSet, state: ControlState) -> ListSet:
    """The lists of a control state; those of the set before are not loaded again."""
    held = dict(before.held)
    named = named_at(state, held)
    live = state.live_lists()
    used = {contents_of(item) for item in live.values()}
    failures = {item.label: why for item in live.values() if (why := held[contents_of(item)].failure)}
    return ListSet(
        named,
        {contents: bound for contents, bound in held.items() if contents in used},
        failures,
        {item.label: item.owner for item in live.values() if item.label in failures},
    )


def without_loaded(state: ControlState, lists: ListSet) -> ControlState:
    """The state without the contents that a worker needs no more: loaded, superseded or removed.

    What no head names yet is kept, and what failed: its other parts may come. Who stores contents writes all
    parts of them anew, so that a list can go back to contents which were let go here.
    """
    failed = {contents[1] for contents, bound in lists.held.items() if bound.failure}
    done = {item.sha256 for revisions in state.lists.values() for item in revisions.values()} - failed
    kept = {sha256: parts for sha256, parts in state.blobs.items() if sha256 not in done}
    return state if len(kept) == len(state.blobs) else replace(state, blobs=kept)
