"""Light curves come out the same for any order of arrival, any repetition and any split of the work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.history.merge import as_known, known_by, merge
from broker.lightcurves import (
    DETECTION,
    FLAG_OWN,
    FLAG_TIME_ASSUMED,
    FLAG_WITHDRAWN,
    FORCED,
    LIMIT,
    POINT,
    LightCurves,
    Points,
    empty_light_curves,
)

EMPTY = empty_light_curves(1)


def one_row(points: Points) -> LightCurves:
    return LightCurves(points, np.array([0, len(points)]))


def random_points(seed: int, count: int) -> Points:
    """Points that collide often: few ids, few times, all kinds and flags."""
    rng = np.random.default_rng(seed)
    points = np.zeros(count, dtype=POINT)
    points["source_id"] = rng.integers(1, 6, count)
    points["kind"] = rng.integers(0, 3, count)
    points["band"] = rng.integers(1, 3, count)
    points["midpoint_mjd_tai"] = rng.integers(0, 4, count) / 2
    points["psf_flux"] = np.where(rng.random(count) < 0.2, np.nan, rng.integers(0, 3, count))
    points["known_at"] = rng.integers(0, 4, count)
    points["flags"] = rng.choice(
        [0, FLAG_OWN, FLAG_TIME_ASSUMED, FLAG_WITHDRAWN], count, p=[0.5, 0.2, 0.2, 0.1]
    )
    return points


def arrive(stored: Points, new: Points) -> Points:
    """The store after a batch: what was there, and what merging says to append."""
    return np.concatenate([stored, merge(one_row(stored), one_row(new)).added])


def curve_of(stored: Points) -> bytes:
    return merge(one_row(stored), EMPTY).curves.points.tobytes()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 40), parts=st.integers(1, 6), shuffle=st.integers(0, 999)
)
def test_order_repetition_and_batching_do_not_matter(seed: int, count: int, parts: int, shuffle: int) -> None:
    points = random_points(seed, count)
    at_once = arrive(np.zeros(0, dtype=POINT), points)
    rng = np.random.default_rng(shuffle)
    again = rng.permutation(np.concatenate([points, points[rng.integers(0, count, count // 2)]]))
    bit_by_bit = np.zeros(0, dtype=POINT)
    for part in np.array_split(again, parts):
        bit_by_bit = arrive(bit_by_bit, part)
    assert curve_of(bit_by_bit) == curve_of(at_once)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 30))
def test_two_workers_that_race_only_repeat_points(seed: int, count: int) -> None:
    points = random_points(seed, count)
    half = count // 2
    nothing = np.zeros(0, dtype=POINT)
    first = merge(one_row(nothing), one_row(points[:half])).added
    second = merge(one_row(nothing), one_row(points[half:])).added  # neither saw the other's
    raced = curve_of(np.concatenate([second, first]))
    assert raced == curve_of(arrive(arrive(nothing, points[:half]), points[half:]))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 40), cut=st.integers(0, 40))
def test_compacting_in_between_changes_nothing(seed: int, count: int, cut: int) -> None:
    points = random_points(seed, count)
    compacted = merge(one_row(points[:cut]), EMPTY).kept
    assert curve_of(arrive(compacted, points[cut:])) == curve_of(points)


def test_what_is_stored_already_is_not_appended_again() -> None:
    points = random_points(1, 50)
    stored = arrive(np.zeros(0, dtype=POINT), points)
    assert len(merge(one_row(stored), one_row(points)).added) == 0


def point(**values: float) -> Points:
    row = np.zeros(1, dtype=POINT)
    for name, value in values.items():
        row[name] = value
    return row


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (point(psf_flux=1, flags=FLAG_OWN, known_at=9), point(psf_flux=2, known_at=1)),
        (point(psf_flux=1, known_at=9), point(psf_flux=2, flags=FLAG_TIME_ASSUMED, known_at=1)),
        (point(psf_flux=1, known_at=1), point(psf_flux=2, known_at=9)),
    ],
)
def test_the_better_copy_gives_the_values_and_the_oldest_the_time_it_was_known(
    winner: Points, loser: Points
) -> None:
    for order in ([winner, loser], [loser, winner]):
        curve = merge(one_row(order[0]), one_row(order[1])).curves.points
        assert len(curve) == 1
        assert curve["psf_flux"][0] == 1
        assert curve["known_at"][0] == 1


def test_a_withdrawn_point_is_gone_whoever_came_first() -> None:
    measured = point(source_id=5, psf_flux=1, flags=FLAG_OWN)
    withdrawn = point(source_id=5, psf_flux=1, flags=FLAG_WITHDRAWN)
    for stored in (arrive(measured, withdrawn), arrive(withdrawn, measured)):
        assert curve_of(stored) == b""


def test_identity_is_kind_and_source_id_and_the_band_only_where_forced() -> None:
    forced = [point(source_id=7, kind=FORCED, band=band) for band in (1, 2)]
    detections = [point(source_id=7, kind=DETECTION, band=band) for band in (1, 2)]
    limit = point(source_id=7, kind=LIMIT)
    merged = merge(one_row(np.concatenate([*forced, *detections, limit])), EMPTY).curves.points
    assert sorted(merged["kind"].tolist()) == [DETECTION, FORCED, FORCED, LIMIT]


def test_an_alert_sees_its_past_and_itself_and_nothing_later() -> None:
    points = np.zeros(4, dtype=POINT)
    points["source_id"] = [1, 2, 3, 4]
    points["midpoint_mjd_tai"] = [1.0, 2.0, 2.0, 3.0]
    curves = merge(one_row(points), EMPTY).curves
    seen = as_known(curves, np.array([0, 0, 0]), np.array([2.0, 0.5, 9.0]))
    assert [row["source_id"].tolist() for row in map(seen.row, range(3))] == [[1, 2, 3], [], [1, 2, 3, 4]]


def test_a_light_curve_as_it_was_known_at_a_moment() -> None:
    copy = point(source_id=5, psf_flux=2, known_at=10)
    own = point(source_id=5, psf_flux=1, flags=FLAG_OWN, known_at=20)
    withdrawn = point(source_id=5, psf_flux=1, flags=FLAG_WITHDRAWN, known_at=30)
    other = point(source_id=6, psf_flux=3, midpoint_mjd_tai=1.0, known_at=25)
    first = arrive(arrive(np.zeros(0, dtype=POINT), copy), own)
    stored = arrive(arrive(first, other), withdrawn)
    seen = {
        moment: known_by(one_row(stored), moment).row(0)["psf_flux"].tolist() for moment in range(5, 40, 5)
    }
    assert seen == {5: [], 10: [2], 15: [2], 20: [1], 25: [1, 3], 30: [3], 35: [3]}
    rows = LightCurves(np.concatenate([stored, stored, first]), np.cumsum([0, len(stored), len(stored), 2]))
    assert [len(known_by(rows, 30.0).row(row)) for row in range(3)] == [1, 1, 1]


def test_late_points_are_new_ones_older_than_the_newest_stored() -> None:
    def at(source: int, time: float, **more: float) -> Points:
        return point(source_id=source, midpoint_mjd_tai=time, **more)

    stored = one_row(np.concatenate([at(1, 10.0), at(2, 20.0)]))
    late, newer, better = at(3, 15.0), at(4, 25.0), at(1, 10.0, flags=FLAG_OWN)
    gone = at(5, 12.0, flags=FLAG_WITHDRAWN)
    fresh = one_row(np.concatenate([late, newer, better, gone, late]))
    assert merge(stored, fresh).late == 1
    assert merge(EMPTY, fresh).late == 0
    assert merge(stored, EMPTY).late == 0
