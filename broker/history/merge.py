"""Joining points into light curves: the same result for any order of arrival and any repetition.

A point's identity is (kind, source id), with the band if it was forced. Of several copies the one in force
is the withdrawn one, else the alert's own record, else one with an exact time, else the one known first;
remaining ties go by the values themselves. Its `known_at` is the smallest of all copies. Both are maxima of a
fixed order, so at most two copies of a point are worth keeping, and which two does not depend on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import numpy.typing as npt

from broker.lightcurves import (
    FLAG_OWN,
    FLAG_TIME_ASSUMED,
    FLAG_WITHDRAWN,
    FORCED,
    I64,
    KINDS,
    POINT,
    LightCurves,
    Points,
    empty_light_curves,
)

F64 = npt.NDArray[np.float64]
_COMPACT_SLACK = 64
_KINDS = len(KINDS)
_WORDS = POINT.itemsize // 8
"""A point as whole numbers of 8 bytes: numba copies records byte by byte."""


@dataclass(frozen=True)
class Merged:
    """The light curves of a batch's keys.

    curves  : one row a key, in time order, withdrawn points left out
    added   : (m,) points to append, by key: `added_starts` (k+1)
    kept    : (m,) the copies worth keeping of each key, by `kept_starts` (k+1): what a compaction would write
    late    : how many of `curves` are new to their key and older than the newest point it had
    """

    curves: LightCurves
    added: Points
    added_starts: I64
    kept_starts: I64
    late: int
    words: I64
    """(p, 4) every point that took part, as numbers."""
    kept_index: I64
    """(m,) which of them are kept."""

    @cached_property
    def kept(self) -> Points:
        """Gathered when first asked for: most batches compact nothing."""
        return _points(self.words, self.kept_index)


def merge(stored: LightCurves, fresh: LightCurves) -> Merged:
    """Join stored and fresh points, key by key.

    stored, fresh : k rows each, in any order, with repetitions
    """
    count, total = len(stored), len(stored.points) + len(fresh.points)
    parts = [np.ascontiguousarray(part.points).view(np.int64) for part in (stored, fresh)]
    words = np.concatenate(parts).reshape(total, _WORDS)
    curve, added, kept = (np.empty(total, dtype=np.int64) for _ in range(3))
    known_at = np.empty(total, dtype=np.uint32)
    curve_starts, added_starts, kept_starts = (np.zeros(count + 1, dtype=np.int64) for _ in range(3))
    late = _merge_rows(
        words.view(POINT).ravel(), np.asarray(stored.starts, dtype=np.int64),
        np.asarray(fresh.starts, dtype=np.int64),
        curve, known_at, curve_starts, added, added_starts, kept, kept_starts,
    )  # fmt: skip
    points = _points(words, curve[: curve_starts[-1]])
    points["known_at"] = known_at[: curve_starts[-1]]
    return Merged(
        LightCurves(points, curve_starts),
        _points(words, added[: added_starts[-1]]),
        added_starts,
        kept_starts,
        int(late),
        words,
        kept[: kept_starts[-1]],
    )


def _points(words: I64, index: I64) -> Points:
    """Some points of many.  words : (p, 4);  index : (m,)."""
    out = np.empty((len(index), _WORDS), dtype=np.int64)
    _gather_words(words, index, out)
    return out.view(POINT).ravel()


def known_by(stored: LightCurves, unix_s: float) -> LightCurves:
    """Light curves as we knew them at a moment: of each point the copy then in force, if we had one.

    stored : rows as the store keeps them, copies and withdrawn points included, in any order
    unix_s : the moment [Unix s]; a point that was withdrawn later is there, with the values of its time
    Kept are a point's copy in force and its oldest one, so what was in force between the two is not known:
    the oldest stands for it.
    """
    early = stored.points["known_at"] <= unix_s
    seen = np.concatenate([[0], np.cumsum(early)])
    points = np.frombuffer(stored.points[early].tobytes(), dtype=POINT)
    known = LightCurves(points, seen[stored.starts].astype(np.int64))
    return merge(known, empty_light_curves(len(stored))).curves


def as_known(curves: LightCurves, rows: I64, until_mjd: F64) -> LightCurves:
    """Light curves of alerts: row `rows[i]` of `curves`, its points up to and including `until_mjd[i]`.

    rows : (n,) int64;  until_mjd : (n,) [MJD TAI]
    """
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    _count_until(curves.points, curves.starts, rows, until_mjd, starts)
    points = np.empty(starts[-1], dtype=POINT)
    _copy_until(curves.points, curves.starts, rows, starts, points)
    return LightCurves(points, starts)


def group(points: LightCurves, key_of_row: I64, keys: int) -> LightCurves:
    """Regroup rows by key: row j of the result holds the points of every row whose key is j."""
    if np.array_equal(key_of_row, np.arange(keys)):
        return points
    lengths = np.diff(points.starts)
    order = np.argsort(key_of_row, kind="stable")
    starts = np.zeros(keys + 1, dtype=np.int64)
    np.add.at(starts, key_of_row + 1, lengths)
    return LightCurves(points.take(order).points, np.cumsum(starts))


def join_blobs(blobs: Sequence[bytes]) -> LightCurves:
    """Stored light curves from their bytes; a torn tail is dropped."""
    size = POINT.itemsize
    whole = [blob if len(blob) % size == 0 else blob[: len(blob) // size * size] for blob in blobs]
    starts = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum([len(blob) // size for blob in whole], out=starts[1:])
    return LightCurves(np.frombuffer(b"".join(whole), dtype=POINT), starts)


def wants_compaction(stored_count: int, kept_count: int) -> bool:
    """Whether a stored light curve repeats itself enough to be rewritten."""
    return stored_count > kept_count + kept_count // 4 + _COMPACT_SLACK


def warm_up() -> None:
    """Compile (or load from the cache) every kernel of this file."""
    one = LightCurves(np.zeros(1, dtype=POINT), np.array([0, 1]))
    frozen = LightCurves(np.frombuffer(one.points.tobytes(), dtype=POINT), one.starts)
    as_known(merge(frozen, one).curves, np.array([0]), np.array([1.0]))


@numba.njit(cache=True, nogil=True)
def _gather_words(words, index, out):  # type: ignore[no-untyped-def]
    for k in range(len(index)):
        for j in range(_WORDS):
            out[k, j] = words[index[k], j]


@numba.njit(cache=True, nogil=True)
def _identity_order(a, b):  # type: ignore[no-untyped-def]
    """-1, 0 or 1: order of two points by identity."""
    if a.kind != b.kind:
        return -1 if a.kind < b.kind else 1
    if a.source_id != b.source_id:
        return -1 if a.source_id < b.source_id else 1
    if a.kind == FORCED and a.band != b.band:
        return -1 if a.band < b.band else 1
    return 0


@numba.njit(cache=True, nogil=True)
def _time_order(a, b):  # type: ignore[no-untyped-def]
    """-1, 0 or 1: order of two points by time, then kind, then source id, then band."""
    if a.midpoint_mjd_tai != b.midpoint_mjd_tai:
        return -1 if a.midpoint_mjd_tai < b.midpoint_mjd_tai else 1
    if a.kind != b.kind:
        return -1 if a.kind < b.kind else 1
    if a.source_id != b.source_id:
        return -1 if a.source_id < b.source_id else 1
    if a.band != b.band:
        return -1 if a.band < b.band else 1
    return 0


@numba.njit(cache=True, nogil=True)
def _float_order(a, b):  # type: ignore[no-untyped-def]
    """-1, 0 or 1 of two floats, NaN the smallest."""
    if a == b or (np.isnan(a) and np.isnan(b)):
        return 0
    if np.isnan(a):
        return -1
    if np.isnan(b):
        return 1
    return -1 if a < b else 1


@numba.njit(cache=True, nogil=True)
def _beats(a, b):  # type: ignore[no-untyped-def]
    """Whether copy `a` of a point is in force over copy `b`: a total order of their content."""
    if (a.flags ^ b.flags) & FLAG_WITHDRAWN:
        return (a.flags & FLAG_WITHDRAWN) != 0
    if (a.flags ^ b.flags) & FLAG_OWN:
        return (a.flags & FLAG_OWN) != 0
    if (a.flags ^ b.flags) & FLAG_TIME_ASSUMED:
        return (b.flags & FLAG_TIME_ASSUMED) != 0
    if a.known_at != b.known_at:
        return a.known_at < b.known_at
    order = _float_order(a.midpoint_mjd_tai, b.midpoint_mjd_tai)
    if order == 0:
        order = _float_order(a.psf_flux, b.psf_flux)
    if order == 0:
        order = _float_order(a.psf_flux_err, b.psf_flux_err)
    if order != 0:
        return order < 0
    if a.band != b.band:
        return a.band < b.band
    return a.flags < b.flags


@numba.njit(cache=True, nogil=True)
def _known_before(a, b):  # type: ignore[no-untyped-def]
    """Whether copy `a` was known before copy `b`; equally old copies in the order of `_beats`."""
    if a.known_at != b.known_at:
        return a.known_at < b.known_at
    return _beats(a, b)


@numba.njit(cache=True, nogil=True)
def _sort(points, order, scratch, bounds, count, by_time):  # type: ignore[no-untyped-def]
    """Merge sort of order[:count], indices into points, from the runs that are in order already.

    What is stored and what a packet brings are such runs, so one pass does. scratch, bounds : room for it.
    """
    runs = 0
    bounds[0] = 0
    for k in range(1, count):
        if _order(points[order[k - 1]], points[order[k]], by_time) > 0:
            runs += 1
            bounds[runs] = k
    runs += 1
    bounds[runs] = count
    while runs > 1:
        for run in range(0, runs, 2):
            left, middle, right = bounds[run], bounds[run + 1], bounds[min(run + 2, runs)]
            _join(points, order, scratch, left, middle, right, by_time)
            bounds[run // 2] = left
        runs = (runs + 1) // 2
        bounds[runs] = count


@numba.njit(cache=True, nogil=True)
def _order(a, b, by_time):  # type: ignore[no-untyped-def]
    return _time_order(a, b) if by_time else _identity_order(a, b)


@numba.njit(cache=True, nogil=True)
def _join(points, order, scratch, left, middle, right, by_time):  # type: ignore[no-untyped-def]
    """Merge the sorted order[left:middle] and order[middle:right], of equals the left one first."""
    scratch[left:middle] = order[left:middle]
    i, j, k = left, middle, left
    while i < middle and j < right:
        if _order(points[scratch[i]], points[order[j]], by_time) <= 0:
            order[k] = scratch[i]
            i += 1
        else:
            order[k] = order[j]
            j += 1
        k += 1
    while i < middle:
        order[k] = scratch[i]
        i += 1
        k += 1


@numba.njit(cache=True, nogil=True)
def _gather(points, stored_starts, fresh_starts, row, order):  # type: ignore[no-untyped-def]
    """Put the indices of a row's points into `order`: by kind, stored before fresh; gives their number."""
    first = stored_starts[-1]
    parts = (
        (stored_starts[row], stored_starts[row + 1]),
        (first + fresh_starts[row], first + fresh_starts[row + 1]),
    )
    at = np.zeros(_KINDS + 1, dtype=np.int64)
    for low, high in parts:
        for k in range(low, high):
            at[min(points[k].kind, _KINDS - 1) + 1] += 1
    for kind in range(_KINDS):
        at[kind + 1] += at[kind]
    count = at[_KINDS]
    for low, high in parts:
        for k in range(low, high):
            kind = min(points[k].kind, _KINDS - 1)
            order[at[kind]] = k
            at[kind] += 1
    return count


@numba.njit(cache=True, nogil=True)
def _merge_rows(  # type: ignore[no-untyped-def]
    points,
    stored_starts,
    fresh_starts,
    curve,
    curve_known,
    curve_starts,
    added,
    added_starts,
    kept,
    kept_starts,
):
    first_fresh = stored_starts[-1]
    room = 0
    for row in range(len(stored_starts) - 1):
        both = stored_starts[row + 1] - stored_starts[row] + fresh_starts[row + 1] - fresh_starts[row]
        room = max(room, both)
    order, scratch = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    bounds = np.empty(room + 2, dtype=np.int64)
    known_at = np.empty(len(points), dtype=np.uint32)
    n_curve = n_added = n_kept = late = 0
    for row in range(len(stored_starts) - 1):
        count = _gather(points, stored_starts, fresh_starts, row, order)
        newest = -np.inf
        for k in range(stored_starts[row], stored_starts[row + 1]):
            newest = max(newest, points[k].midpoint_mjd_tai)
        _sort(points, order, scratch, bounds, count, False)
        n_merged = i = 0
        while i < count:
            best = oldest = order[i]
            is_new = best >= first_fresh
            j = i + 1
            while j < count and _identity_order(points[best], points[order[j]]) == 0:
                if _beats(points[order[j]], points[best]):
                    best = order[j]
                if _known_before(points[order[j]], points[oldest]):
                    oldest = order[j]
                is_new = is_new and order[j] >= first_fresh
                j += 1
            kept[n_kept] = best
            n_kept += 1
            if best >= first_fresh:
                added[n_added] = best
                n_added += 1
            if points[oldest].known_at != points[best].known_at:
                kept[n_kept] = oldest
                n_kept += 1
                if oldest >= first_fresh:
                    added[n_added] = oldest
                    n_added += 1
            if not points[best].flags & FLAG_WITHDRAWN:
                known_at[best] = points[oldest].known_at
                order[n_merged] = best  # never ahead of i: the row's list is used up from the front
                n_merged += 1
                late += is_new and points[best].midpoint_mjd_tai < newest
            i = j
        _sort(points, order, scratch, bounds, n_merged, True)
        for k in range(n_merged):
            curve[n_curve], curve_known[n_curve] = order[k], known_at[order[k]]
            n_curve += 1
        curve_starts[row + 1], added_starts[row + 1], kept_starts[row + 1] = n_curve, n_added, n_kept
    return late


@numba.njit(cache=True, nogil=True)
def _count_until(points, starts, rows, until, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        low, high = starts[rows[i]], starts[rows[i] + 1]
        end = low
        while low < high:
            middle = (low + high) // 2
            if points[middle].midpoint_mjd_tai <= until[i]:
                low = middle + 1
            else:
                high = middle
        out[i + 1] = out[i] + low - end


@numba.njit(cache=True, nogil=True)
def _copy_until(points, starts, rows, out_starts, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        first = starts[rows[i]]
        for k in range(out_starts[i + 1] - out_starts[i]):
            out[out_starts[i] + k] = points[first + k]
