"""Expensive features: computed when a light curve has grown, kept in between, never from the future."""

from __future__ import annotations

import numpy as np
import pytest

from broker.features.gated import AGES, GATED_NAMES, MIN_POINTS, Gated, compute, extract_gated
from broker.lightcurves import LIMIT, LightCurves, Points, empty_points

REF = 60_000.0
PEAK = GATED_NAMES.index("fit_days_since_peak")


def transient(count: int, seed: int = 1) -> Points:
    """A transient that peaks ten days before REF, in g and r by turns."""
    rng = np.random.default_rng(seed)
    points = empty_points(count)
    points["midpoint_mjd_tai"] = np.linspace(REF - 30.0, REF, count)
    age = points["midpoint_mjd_tai"] - REF + 10.0
    points["psf_flux"] = 1e4 * np.exp(-age / 20.0) / (1.0 + np.exp(-age / 3.0)) + rng.normal(0, 50, count)
    points["psf_flux_err"], points["band"] = 50.0, np.arange(count) % 2 + 1
    return points


def rows(*objects: Points) -> LightCurves:
    starts = np.concatenate([[0], np.cumsum([len(points) for points in objects])])
    return LightCurves(np.concatenate(objects), starts.astype(np.int64))


def at(*moments: float) -> np.ndarray:
    return np.array(moments)


def known(points: Points) -> Gated:
    return extract_gated(rows(points), at(float(points["midpoint_mjd_tai"].max())), [b""])


def test_without_a_budget_every_row_is_what_training_sees() -> None:
    curves = rows(transient(30), transient(12), transient(3))
    gated = extract_gated(curves, np.full(3, REF))
    np.testing.assert_array_equal(gated.values, compute(curves, np.full(3, REF)))
    assert gated.computed.tolist() == [True, True, False]
    assert [bool(blob) for blob in gated.blobs] == [True, True, False]


def test_too_few_measured_fluxes_are_never_computed() -> None:
    points = transient(MIN_POINTS + 4)
    points["kind"][-5:] = LIMIT
    gated = extract_gated(rows(points), at(REF), [b""])
    assert not gated.computed[0]
    assert np.isnan(gated.values).all()


@pytest.mark.parametrize(("new", "computed"), [(0, False), (3, False), (4, True), (10, True)])
def test_kept_values_serve_until_a_tenth_is_new(new: int, computed: bool) -> None:
    points = transient(40)
    before = known(points[: 40 - new])
    now = extract_gated(rows(points), at(REF), before.blobs)
    assert now.computed[0] == computed
    assert bool(now.blobs[0]) == computed


def test_few_points_need_two_new_ones() -> None:
    points = transient(10)
    for new, computed in ((1, False), (2, True)):
        now = extract_gated(rows(points), at(REF), known(points[: 10 - new]).blobs)
        assert now.computed[0] == computed


def test_kept_values_are_the_same_again_and_ages_grow() -> None:
    points = transient(40)
    before = known(points)
    later = extract_gated(rows(points), at(REF + 5.0), before.blobs)
    others = [i for i in range(len(GATED_NAMES)) if i not in AGES]
    np.testing.assert_array_equal(later.values[:, others], before.values[:, others])
    assert later.values[0, PEAK] == pytest.approx(before.values[0, PEAK] + 5.0, abs=1e-4)


def test_the_budget_goes_to_the_rows_with_most_new_points() -> None:
    old, grown, fresh = transient(40), transient(40), transient(40)
    kept = [known(old).blobs[0], known(grown[:30]).blobs[0], b""]
    ref = np.full(3, REF)
    assert extract_gated(rows(old, grown, fresh), ref, kept, 1).computed.tolist() == [False, False, True]
    assert extract_gated(rows(old, grown, fresh), ref, kept, 9).computed.tolist() == [False, True, True]
    starved = extract_gated(rows(old, grown, fresh), ref, kept, 1)
    assert np.isfinite(starved.values[1]).any(), "the kept values stay"


def test_values_from_an_alerts_future_are_neither_used_nor_overwritten() -> None:
    points = transient(40)
    future = known(points)
    late = extract_gated(rows(points[:20]), at(float(points["midpoint_mjd_tai"][19])), future.blobs)
    np.testing.assert_array_equal(late.values, known(points[:20]).values)
    assert late.blobs == [b""]


def test_a_withdrawn_point_makes_kept_values_useless() -> None:
    points = transient(40)
    fewer = np.delete(points, 15)
    now = extract_gated(rows(fewer), at(REF), known(points).blobs)
    assert now.computed[0]
    assert now.blobs[0]


def test_rows_of_another_list_or_damaged_ones_are_not_used() -> None:
    points = transient(20)
    blob = known(points).blobs[0]
    for kept in (blob[:-1], b"other..." + blob[8:], b"x"):
        now = extract_gated(rows(points), at(REF), [kept])
        assert now.computed[0]
        np.testing.assert_array_equal(now.values, known(points).values)
