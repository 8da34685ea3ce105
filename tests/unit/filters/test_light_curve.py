"""Counts on light curves: beside a plain reading of their definition, and beside the features."""

from __future__ import annotations

import numpy as np
import pytest

from broker.astro.bands import BAND_INDEX
from broker.errors import FilterError
from broker.features.catalog import FEATURES, extract
from broker.features.gated import GATED_NAMES
from broker.filters import compile_filter, evaluate
from broker.filters.select import compile_select, evaluate_select
from broker.lightcurves import (
    DETECTION,
    FLAG_UNUSED,
    FLAG_WITHDRAWN,
    FORCED,
    LIMIT,
    LightCurves,
    empty_points,
)
from broker.table import Column, ColumnSpec, Table

SPECS = {name: ColumnSpec(name, "", "") for name in ("midpoint_mjd_tai", "wanted")}
ROWS = 200


def random_curves(seed: int) -> tuple[LightCurves, np.ndarray]:
    """Light curves of all kinds of points, one an exposure, and the time of the alert that ends each."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, ROWS)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    points = empty_points(int(starts[-1]))
    points["kind"] = rng.choice([DETECTION, FORCED, LIMIT], len(points), p=[0.7, 0.2, 0.1])
    points["band"] = rng.integers(0, 6, len(points))
    points["psf_flux"], points["psf_flux_err"] = rng.normal(500, 200, len(points)), 10.0
    points["flags"] = rng.choice([0, FLAG_UNUSED, FLAG_WITHDRAWN], len(points), p=[0.9, 0.05, 0.05])
    midpoint = 60000.0 + rng.uniform(0, 100, ROWS)
    for row in range(ROWS):
        own = points[starts[row] : starts[row + 1]]
        own["midpoint_mjd_tai"] = midpoint[row] - np.sort(rng.uniform(0, 60, len(own)))[::-1]
        own["midpoint_mjd_tai"][-1] = midpoint[row]
    return LightCurves(points, starts), midpoint


def values_of(text: str, curves: LightCurves, midpoint: np.ndarray) -> list[float]:
    """A number on every row, found out by asking which whole number it is."""
    columns = [
        Column(SPECS["midpoint_mjd_tai"], midpoint),
        Column(SPECS["wanted"], np.zeros(len(midpoint))),
    ]
    table = Table(columns, len(midpoint), curves)
    found = evaluate([compile_filter(f"{text} = {number}", SPECS) for number in range(60)], table)
    assert found.failures == {}
    assert found.masks.sum(axis=0).tolist() == [1] * len(midpoint)
    return np.argmax(found.masks, axis=0).tolist()


def counted(curves: LightCurves, midpoint: np.ndarray, days: float, kind: int, band: str = "") -> list[int]:
    """By the definition, point by point."""
    result = []
    for row, end in enumerate(midpoint):
        good = [
            point
            for point in curves.row(row)
            if point["kind"] == kind
            and not point["flags"]
            and point["midpoint_mjd_tai"] - end >= -days
            and (not band or point["band"] == BAND_INDEX[band])
        ]
        result.append(len(good))
    return result


@pytest.mark.parametrize("days", [0, 0.5, 7, 30, 1000])
def test_counts_are_those_of_their_definition(days: float) -> None:
    curves, midpoint = random_curves(4)
    for text, kind, band in [
        (f"last_days({days})", DETECTION, ""),
        (f"last_days_in('r', {days})", DETECTION, "r"),
        (f"forced_in_last_days({days})", FORCED, ""),
    ]:
        assert values_of(text, curves, midpoint) == counted(curves, midpoint, days, kind, band), text


def test_over_the_whole_age_they_are_the_features_of_the_alert() -> None:
    curves, midpoint = random_curves(5)
    matrix = extract(curves, midpoint, gated=np.full((ROWS, len(GATED_NAMES)), np.nan))
    place = {feature.name: index for index, feature in enumerate(FEATURES)}
    for text, name in [
        ("last_days(1000)", "n_detections"),
        ("last_days_in('g', 1000)", "n_det_g"),
        ("nights_in_last_days(1000)", "n_nights"),
        ("forced_in_last_days(1000)", "n_forced"),
    ]:
        assert values_of(text, curves, midpoint) == matrix[:, place[name]].tolist(), text


def test_each_row_may_ask_for_days_of_its_own() -> None:
    curves, midpoint = random_curves(6)
    days = np.linspace(0, 60, ROWS)
    columns = [Column(SPECS["midpoint_mjd_tai"], midpoint), Column(SPECS["wanted"], days)]
    masks = evaluate([compile_filter("last_days(wanted) >= 5", SPECS)], Table(columns, ROWS, curves)).masks
    each = [counted(curves, midpoint, day, DETECTION)[row] >= 5 for row, day in enumerate(days)]
    assert masks[0].tolist() == each
    assert 0 < sum(each) < ROWS


def test_a_night_ends_with_a_gap() -> None:
    points = empty_points(4)
    points["midpoint_mjd_tai"] = [60000.2, 60000.3, 60001.2, 60003.1]
    points["psf_flux"] = 1.0
    curves, midpoint = LightCurves(points, np.array([0, 4])), np.array([60003.1])
    assert values_of("nights_in_last_days(1)", curves, midpoint) == [1]
    assert values_of("nights_in_last_days(2.85)", curves, midpoint) == [3]
    assert values_of("nights_in_last_days(1.95)", curves, midpoint) == [2]


def test_where_light_curves_are_not_at_hand_the_filter_fails_and_no_other() -> None:
    table = Table([Column(spec, np.ones(3)) for spec in SPECS.values()], 3)
    found = evaluate([compile_filter("last_days(3) > 0", SPECS), compile_filter("wanted = 1", SPECS)], table)
    assert list(found.failures) == [0]
    assert "light curve" in found.failures[0]
    assert found.masks.tolist() == [[False] * 3, [True] * 3]


def test_days_end_with_the_newest_point_where_an_alert_is_judged_again() -> None:
    points = empty_points(3)
    points["midpoint_mjd_tai"], points["psf_flux"] = [60000.0, 60010.0, 60020.0], 1.0
    points["kind"] = [DETECTION, DETECTION, FORCED]
    curves, midpoint = LightCurves(points, np.array([0, 3])), np.array([60010.0])
    assert values_of("last_days(5)", curves, midpoint) == [0]
    assert values_of("last_days(10)", curves, midpoint) == [1]
    assert values_of("forced_in_last_days(5)", curves, midpoint) == [1]


def test_counts_can_be_selected_of_the_rows_that_hit() -> None:
    curves, midpoint = random_curves(7)
    columns = [Column(SPECS["midpoint_mjd_tai"], midpoint), Column(SPECS["wanted"], np.ones(ROWS))]
    hits = np.arange(ROWS) % 3 == 1
    found = evaluate_select(
        [compile_select("last_days(20) as n", SPECS)], hits[None, :], Table(columns, ROWS, curves)
    )
    assert found.failures == {}
    ((name, values),) = found.values[0]
    assert name == "n"
    assert values == np.array(counted(curves, midpoint, 20, DETECTION))[hits].tolist()


def test_they_need_the_time_of_the_alert() -> None:
    with pytest.raises(FilterError, match="midpoint_mjd_tai"):
        compile_filter("last_days(3) > 0", {"mag": ColumnSpec("mag", "", "")})
