"""What comes too late for an alert that was judged: the reason to judge it again.

An alert is judged by what is known up to it. When a packet of an *older* alert of the same object arrives
afterwards, it may bring what the newer one was judged without: its own detection, earlier detections or
forced photometry that no packet had before, or the news that a detection was withdrawn. An alert that is the
newest of its object judges itself with all that it brings, so it is never the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from broker.batch import AlertBatch
from broker.lightcurves import (
    DETECTION,
    FLAG_OWN,
    FLAG_UNUSED,
    FLAG_WITHDRAWN,
    FORCED,
    I64,
    POINT,
    LightCurves,
    Points,
)

Bools = npt.NDArray[np.bool_]
LATE_S = 60
"""How much later than the newest alert's record a packet's must have been written to be late: what was
written together, such as a night that is replayed, is only processed in another order."""


@dataclass(frozen=True, slots=True)
class Late:
    """Why the newest alert of an object is to be judged again.

    causes : for people;  sources : ids of the points that are the reason: they tell one case from another
    """

    key: bytes
    causes: tuple[str, ...]
    sources: tuple[int, ...]


def late_news(
    keys: Sequence[bytes],
    rows: I64,
    alerts: AlertBatch,
    stored: LightCurves,
    curves: LightCurves,
    retried: Bools,
    withdrawn: Sequence[tuple[int, int]],
) -> list[Late]:
    """What a batch brings of objects whose newest alert was judged before.

    keys : (k,) the objects;  rows : (n,) which of them each alert is of;  alerts : (n,) those that count
    stored : (k,) what the store held, copies included;  curves : (k,) joined with what the batch brings
    retried : (n,) alerts that were in a batch before, which was aborted: it may have stored their points
    withdrawn : (alert, diaSourceId) of the detections of whose withdrawal the batch is the first to tell
    """
    newest, known_at = newest_own(curves.points, curves.starts)
    here = set(alerts.dia_source_id.tolist())
    passed_by = {key for key in set(rows.tolist()) if newest[key] and int(newest[key]) not in here}
    found: dict[int, tuple[dict[str, None], set[int]]] = {}
    for row, key in enumerate(rows.tolist() if passed_by else ()):
        packet = alerts.points.row(row)
        if key not in passed_by or int(packet["known_at"][0]) < int(known_at[key]) + LATE_S:
            continue
        news = new_points(packet, stored.row(key), retried=bool(retried[row]))
        gone = [source for at, source in withdrawn if at == row]
        causes, sources = found.setdefault(key, ({}, set()))
        causes |= dict.fromkeys(_causes(news, gone))
        sources |= {*news["source_id"].tolist(), *gone}
    return [
        Late(keys[key], tuple(causes), tuple(sorted(sources)))
        for key, (causes, sources) in found.items()
        if causes
    ]


def _causes(news: Points, withdrawn: Sequence[int]) -> list[str]:
    detections = news["source_id"][news["kind"] == DETECTION].tolist()
    forced = ["forced photometry"] if (news["kind"] == FORCED).any() else []
    gone = [f"withdrawal of {source}" for source in withdrawn]
    more = f" and {len(detections) - 1} more" if len(detections) > 1 else ""
    late = [f"late detection {detections[0]}{more}"] if detections else []
    return [*late, *gone, *forced]


def new_points(packet: Points, stored: Points, *, retried: bool) -> Points:
    """The points of a packet that features look at and that no other packet had brought before.

    retried : the packet's own points may be among the stored ones, with its own `known_at`
    """
    own = packet["known_at"][0]
    others = stored[stored["known_at"] != own] if retried else stored
    known = set(_identities(others))
    used = (packet["flags"] & (FLAG_WITHDRAWN | FLAG_UNUSED) == 0) & (packet["kind"] <= FORCED)
    new = [name not in known for name in _identities(packet)]
    found: Points = packet[used & np.array(new, dtype=np.bool_)]
    return found


def _identities(points: Points) -> list[tuple[int, int, int]]:
    """What tells points apart, as history/merge.py has it."""
    band = np.where(points["kind"] == FORCED, points["band"], 0)
    columns = (points["kind"].tolist(), points["source_id"].tolist(), band.tolist())
    return list(zip(*columns, strict=True))


def warm_up() -> None:
    """Compile (or load from the cache) the kernel of this file."""
    newest_own(np.zeros(1, dtype=POINT), np.array([0, 1]))


@numba.njit(cache=True, nogil=True)
def newest_own(points, starts):  # type: ignore[no-untyped-def]
    """Id of the newest alert of each row and when it was first known [Unix s]; 0, 0 if a row has none."""
    source = np.zeros(len(starts) - 1, dtype=np.int64)
    known_at = np.zeros(len(starts) - 1, dtype=np.int64)
    for row in range(len(starts) - 1):
        for k in range(starts[row + 1] - 1, starts[row] - 1, -1):
            if points[k].kind == DETECTION and points[k].flags & FLAG_OWN:
                source[row], known_at[row] = points[k].source_id, points[k].known_at
                break
    return source, known_at
