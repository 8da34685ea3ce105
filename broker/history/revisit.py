"""An object's newest alert once more, with all that is known of the object now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from broker.batch import AlertBatch
from broker.errors import HistoryLost
from broker.history import pack
from broker.history.base import Claim, HistoryStore
from broker.history.merge import Merged, as_known, join_blobs, merge
from broker.history.recall import Recall, begins_midlife, withdrawn_counts
from broker.lightcurves import (
    DETECTION,
    FLAG_OWN,
    I64,
    LightCurves,
    empty_light_curves,
)

_CANDIDATES = 3
"""Newest detections of an object that are looked at: one after the other, if those before were withdrawn."""


@dataclass(frozen=True)
class Visit:
    """n objects as the store has them.

    keys : (n,) history keys;  claims : (n,) of the newest alert that was published and not taken back, None
    if there is none;  sources : (n,) its diaSourceId, 0 if there is none
    """

    keys: list[bytes]
    claims: list[Claim | None]
    sources: list[int]
    merged: Merged
    gated: list[bytes]
    said: list[bytes]
    surveys: frozenset[str]
    server: str


def visit(store: HistoryStore, objects: Sequence[tuple[bytes, str]]) -> Visit:
    """Read some objects, by (history key, survey), and find the newest alert of each.

    Two round trips. Raises RetryBatch, its kind HistoryLost when the store must be rebuilt first.
    """
    keys = [key for key, _ in objects]
    kept = [name(key) for name in (pack.gated_key, pack.annotation_key) for key in keys]
    opened = store.open([], [], [pack.curve_key(key) for key in keys], kept)
    if not opened.rebuilt:
        raise HistoryLost("Redis does not hold what Kafka remembers")
    merged = merge(join_blobs(opened.curves), empty_light_curves(len(keys)))
    newest = [_newest_own(merged.curves, row) for row in range(len(keys))]
    places = [
        (pack.claim_bucket(survey, source), pack.claim_field(source))
        for (_, survey), sources in zip(objects, newest, strict=True)
        for source in sources
    ]
    claims = store.claims_in(places)
    notes = store.claims_in([(pack.told_bucket(bucket), field) for bucket, field in places])
    good = [
        Claim(*place, claim) if claim and not note else None
        for place, claim, note in zip(places, claims, notes, strict=True)
    ]
    chosen, at = [], 0
    for sources in newest:
        mine = zip(good[at : at + len(sources)], sources, strict=True)
        chosen.append(next(((claim, source) for claim, source in mine if claim), (None, 0)))
        at += len(sources)
    gated, said = opened.gated[: len(keys)], opened.gated[len(keys) :]
    return Visit(
        keys,
        [c for c, _ in chosen],
        [s for _, s in chosen],
        merged,
        gated,
        said,
        opened.surveys,
        opened.server,
    )


def recalled(seen: Visit, rows: I64, batch: AlertBatch) -> Recall:
    """Some objects of a visit as the history stage gives alerts: with every point that is known of them.

    rows : (n,) which objects;  batch : (n,) the newest alert of each, decoded anew
    """
    picked = rows.tolist()
    curves = as_known(seen.merged.curves, rows, np.full(len(rows), np.inf))
    gone = withdrawn_counts(seen.merged)
    claims = [seen.claims[row] for row in picked]
    return Recall(
        batch,
        [seen.keys[row] for row in picked],
        [hashlib.sha256(record).hexdigest().encode() for record in batch.records],
        [claim for claim in claims if claim is not None],
        curves,
        begins_midlife(curves.points, curves.starts),
        additions=[],
        server=seen.server,
        dropped_points=0,
        late_points=0,
        withdrawals=[],
        withdrawn=[b""] * len(picked),
        gated=[pack.serving_gated(seen.gated[row], gone[row]) for row in picked],
        gone=[gone[row] for row in picked],
        surveys=seen.surveys,
        said=[seen.said[row] for row in picked],
        annotated=b"",
        late=[],
    )


def _newest_own(curves: LightCurves, row: int) -> list[int]:
    """Ids of an object's newest alerts, the newest first."""
    points = curves.row(row)
    own = points[(points["kind"] == DETECTION) & (points["flags"] & FLAG_OWN != 0)]
    return [int(source) for source in own["source_id"][::-1][:_CANDIDATES]]
