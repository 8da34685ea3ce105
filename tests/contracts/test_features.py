"""What every feature of the catalogue must hold, whoever wrote it."""

from __future__ import annotations

import numpy as np
import pytest

from broker.features.catalog import FAMILIES, FEATURE_SPECS, FEATURES, extract, feature_set_hash
from broker.features.gated import GATED_NAMES
from broker.features.measurements import Reference, measure
from broker.lightcurves import DETECTION, FORCED, LIMIT, LightCurves, Points, empty_light_curves, empty_points

NAMES = [feature.name for feature in FEATURES]
REF = 60_000.0
COUNTS = ("n_detections", "n_nights", "n_forced", *(name for name in NAMES if name.startswith("n_det_")))


def random_points(rng: np.random.Generator, count: int) -> Points:
    """Points of one object in the 60 days before REF: all kinds, all bands, some negative."""
    points = empty_points(count)
    points["midpoint_mjd_tai"] = np.sort(REF - rng.uniform(0.0, 60.0, count))
    points["source_id"] = np.arange(count) + 1
    points["psf_flux"] = rng.normal(8e3, 5e3, count)
    points["psf_flux_err"] = rng.uniform(200.0, 900.0, count)
    points["band"] = rng.choice([1, 1, 1, 2, 2, 2, 0, 3, 4, 5, 255], count)
    points["kind"] = rng.choice([DETECTION, DETECTION, DETECTION, FORCED, LIMIT], count)
    points["psf_flux"][points["kind"] == LIMIT] = np.nan
    return points


def rows(*objects: Points) -> LightCurves:
    """One row an object."""
    starts = np.concatenate([[0], np.cumsum([len(points) for points in objects])])
    return LightCurves(np.concatenate([empty_points(0), *objects]), starts.astype(np.int64))


def features(points: Points, ref: float = REF) -> dict[str, float]:
    """Features of one object by name, on a reference source of 5000 nJy."""
    values = extract(rows(points), np.array([ref]), references(1))[0]
    return dict(zip(NAMES, values.tolist(), strict=True))


def references(count: int, flux: float = 5e3) -> Reference:
    """Alerts in g and r by turns, on a reference source."""
    return Reference((np.arange(count) % 2 + 1).astype(np.uint8), np.full(count, flux))


@pytest.fixture
def sky() -> LightCurves:
    """Forty objects with 0 to 90 points."""
    rng = np.random.default_rng(7)
    return rows(*(random_points(rng, int(count)) for count in rng.integers(0, 90, 40)))


@pytest.mark.parametrize("name", NAMES)
def test_is_known_of_some_objects(sky: LightCurves, name: str) -> None:
    """Or the other tests of this file would say nothing about it."""
    matrix = extract(sky, np.full(len(sky), REF), references(len(sky)))
    assert np.isfinite(matrix[:, NAMES.index(name)]).sum() > 4


def test_names_are_unique_and_documented() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 60
    assert [spec.name for spec in FEATURE_SPECS] == NAMES
    assert all(feature.doc and feature.source for feature in FEATURES)


def test_families_give_exactly_the_catalogue() -> None:
    m = measure(empty_light_curves(3), np.full(3, REF))
    given = [name for family in FAMILIES for name in family(m)] + list(GATED_NAMES)
    assert sorted(given) == sorted(NAMES)


def test_a_feature_of_the_first_bundle_keeps_its_place() -> None:
    """The first 63: a new feature goes to the end, whatever its family."""
    assert (NAMES[0], NAMES[62], feature_set_hash(FEATURES[:63])) == (
        "n_detections", "color_gr_rate", "b7ffb8aeb53a90e4",
    )  # fmt: skip


def test_hash_changes_with_order_and_prefix() -> None:
    assert len({feature_set_hash(), feature_set_hash(FEATURES[:-1]), feature_set_hash(FEATURES[::-1])}) == 3


def test_no_rows() -> None:
    assert extract(empty_light_curves(0), np.empty(0)).shape == (0, len(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_of_nothing(name: str) -> None:
    value = features(empty_points(0))[name]
    assert value == 0.0 if name in COUNTS else np.isnan(value)


@pytest.mark.parametrize("name", NAMES)
def test_of_one_point_is_finite_or_nan(name: str) -> None:
    points = random_points(np.random.default_rng(1), 1)
    points["kind"], points["band"], points["psf_flux"] = DETECTION, 1, 5e3
    assert not np.isinf(features(points)[name])


@pytest.mark.parametrize("name", NAMES)
def test_of_points_that_say_nothing(name: str) -> None:
    points = random_points(np.random.default_rng(2), 12)
    points["psf_flux"], points["psf_flux_err"] = np.nan, np.nan
    value = features(points)[name]
    assert value == 0.0 if name in COUNTS else np.isnan(value)


@pytest.mark.parametrize("name", NAMES)
def test_of_equal_times_is_finite_or_nan(name: str) -> None:
    points = random_points(np.random.default_rng(3), 12)
    points["midpoint_mjd_tai"] = REF
    assert not np.isinf(features(points)[name])


@pytest.mark.parametrize("name", NAMES)
def test_of_equal_fluxes_is_finite_or_nan(name: str) -> None:
    points = random_points(np.random.default_rng(4), 12)
    points["psf_flux"] = 1234.5
    assert not np.isinf(features(points)[name])


@pytest.mark.parametrize("name", NAMES)
def test_odd_errors_do_no_harm(name: str) -> None:
    points = random_points(np.random.default_rng(5), 12)
    points["psf_flux_err"] = [0.0, -1.0, np.nan, np.inf] * 3
    assert not np.isinf(features(points)[name])


def test_a_shift_of_the_clock_changes_nothing(sky: LightCurves) -> None:
    shifted = sky.points.copy()
    shifted["midpoint_mjd_tai"] += 256.0
    ref = np.full(len(sky), REF)
    known = references(len(sky))
    moved = extract(LightCurves(shifted, sky.starts), ref + 256.0, known)
    np.testing.assert_allclose(extract(sky, ref, known), moved, rtol=1e-6, atol=1e-9)


def test_sorting_again_gives_the_same(sky: LightCurves) -> None:
    rng = np.random.default_rng(8)
    objects = []
    for index in range(len(sky)):
        points = rng.permutation(sky.row(index))
        objects.append(points[np.lexsort((points["source_id"], points["kind"], points["midpoint_mjd_tai"]))])
    ref = np.full(len(sky), REF)
    known = references(len(sky))
    np.testing.assert_array_equal(extract(sky, ref, known), extract(rows(*objects), ref, known))


def test_a_batch_is_its_rows_one_by_one(sky: LightCurves) -> None:
    ref = np.full(len(sky), REF)
    known = references(len(sky))
    alone = [
        extract(sky.take(np.array([i])), ref[:1], Reference(known.band[i : i + 1], known.flux[:1]))[0]
        for i in range(len(sky))
    ]
    np.testing.assert_array_equal(extract(sky, ref, known), np.array(alone))


def test_flux_in_another_unit(sky: LightCurves) -> None:
    """Fluxes scale, magnitudes shift, all else stays: the unit of a feature says which."""
    scaled = sky.points.copy()
    scaled["psf_flux"] *= 4.0
    scaled["psf_flux_err"] *= 4.0
    ref = np.full(len(sky), REF)
    before = extract(sky, ref, references(len(sky)))
    after = extract(LightCurves(scaled, sky.starts), ref, references(len(sky), 4.0 * 5e3))
    for index, feature in enumerate(FEATURES):
        factor = 4.0 if feature.unit == "nJy" else 1.0
        shift = -2.5 * np.log10(4.0) if feature.unit == "AB mag" else 0.0
        expected = before[:, index] * factor + shift
        np.testing.assert_allclose(after[:, index], expected, rtol=1e-6, atol=1e-8, err_msg=feature.name)


def test_inputs_are_left_alone(sky: LightCurves) -> None:
    points, ref = sky.points.copy(), np.full(len(sky), REF)
    sky.points.setflags(write=False)
    extract(sky, ref, references(len(sky)))
    assert points.tobytes() == sky.points.tobytes()


def test_no_feature_looks_ahead(sky: LightCurves) -> None:
    ref = np.full(len(sky), REF - 20.0)
    past = rows(
        *(row[row["midpoint_mjd_tai"] <= REF - 20.0] for row in (sky.row(i) for i in range(len(sky))))
    )
    known = references(len(sky))
    np.testing.assert_array_equal(extract(sky, ref, known), extract(past, ref, known))
