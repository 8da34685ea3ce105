"""The score by images: what it looks at, when it says nothing, and which folders it is read from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from broker.errors import BundleError
from broker.scores.bundle import MANIFEST, read_sealed, seal
from broker.scores.catalog import DEFAULT_BUNDLE, SHIPPED, STAMPS_BUNDLE, stamps_of
from broker.scores.stamps import SIDE, Stamps, load_stamps, prepare
from broker.simulate.stamps import gzipped_fits

NOISE = np.random.default_rng(3).normal(150.0, 8.0, (40, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def stamps() -> Stamps:
    return load_stamps(STAMPS_BUNDLE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may damage."""
    return Path(shutil.copytree(STAMPS_BUNDLE, tmp_path / "bundle"))


def sky(count: int) -> np.ndarray:
    """Science and template with the same sky; the difference is the noise of both."""
    images = NOISE[:count].copy()
    images[:, 1] = 150.0 + 0.3 * (images[:, 1] - 150.0)
    images[:, 2] = images[:, 0] - images[:, 1]
    return images


def spot(width: float, row: float = 0.0, column: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2.0 * width**2)).astype(np.float32)


def test_units_and_sky_do_not_matter() -> None:
    images = sky(8)
    one, good = prepare(images)
    other, _ = prepare(images * 3.0 + np.array([5.0, -40.0, 7.0], dtype=np.float32)[:, None, None])
    assert good.all()
    np.testing.assert_allclose(one, other, atol=1e-3)
    difference = np.sinh(one[:, 2].astype(np.float64))
    assert np.median(difference, axis=(1, 2)) == pytest.approx(0.0, abs=1e-6)
    assert difference.std(axis=(1, 2)) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("masked", [np.nan, np.inf, -3.4e38])
def test_masked_pixels_are_left_out(masked: float) -> None:
    images = sky(2)
    plain, _ = prepare(images)
    images[0, :, :3] = masked
    found, good = prepare(images)
    assert good.all()
    assert (found[0, :, :3] == 0.0).all()
    np.testing.assert_array_equal(found[1], plain[1])
    np.testing.assert_allclose(found[0, :, 3:], plain[0, :, 3:], atol=0.2)


def test_images_that_say_too_little(stamps: Stamps) -> None:
    images = sky(5)
    images[0, 2, : SIDE // 2 + 2] = np.nan
    images[1] = np.nan
    images[2, 2] = 7.0
    images[3, 1] = np.nan
    scores = stamps.of_images(images)
    assert np.isnan(scores[:4]).all()
    assert 0.0 <= scores[4] <= 1.0


def test_sources_are_real_and_what_is_none_is_not(stamps: Stamps) -> None:
    real, pixel, dipole = sky(40), sky(40), sky(40)
    real[:, [0, 2]] += 150.0 * spot(1.0)
    pixel[:, [0, 2], SIDE // 2, SIDE // 2] += 400.0
    dipole[:, 0] += 600.0 * spot(1.0)
    dipole[:, 1] += 600.0 * spot(1.0, 1.0, 0.7)
    dipole[:, 2] += 600.0 * (spot(1.0) - spot(1.0, 1.0, 0.7))
    assert np.median(stamps.of_images(real)) > 0.9
    for bogus in (sky(40), pixel, dipole):
        assert np.median(stamps.of_images(bogus)) < 0.2


def test_only_alerts_of_its_survey_and_only_those_with_three_images(stamps: Stamps) -> None:
    image = np.random.default_rng(5).normal(0.0, 5.0, (63, 63)).astype(np.float32)
    data = gzipped_fits(image)
    third = len(data) // 3
    ranges = np.array([[(0, len(data))] * 3, [(0, len(data)), (0, len(data)), (0, 0)], [(0, third)] * 3])
    scores = stamps.score("ztf", [data] * 3, ranges)
    assert np.isfinite(scores).tolist() == [True, False, False]
    assert scores[0] == stamps.score("ztf", [data], ranges[:1])[0]
    assert np.isnan(stamps.score("lsst", [data] * 3, ranges)).all()
    assert stamps.score("ztf", [], np.zeros((0, 3, 2), dtype=np.int64)).shape == (0,)


def test_a_batch_is_its_rows_one_by_one(stamps: Stamps) -> None:
    images = sky(40)
    alone = [stamps.of_images(images[row : row + 1])[0] for row in range(len(images))]
    np.testing.assert_allclose(stamps.of_images(images), alone, rtol=1e-5)


def test_what_the_setting_asks_for(copy: Path, stamps: Stamps) -> None:
    assert stamps_of("") is None
    for setting in (SHIPPED, str(copy)):
        chosen = stamps_of(setting)
        assert chosen is not None
        assert chosen.manifest == stamps.manifest


def test_a_folder_that_holds_no_such_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        stamps_of(str(tmp_path / "nowhere"))
    with pytest.raises(BundleError, match="not one for images"):
        load_stamps(DEFAULT_BUNDLE)
    (copy / "card.md").write_text("another")
    with pytest.raises(BundleError, match=r"card\.md"):
        load_stamps(copy)


@pytest.mark.parametrize("change", [{"side": 31}, {"temperature": 0.0}, {"bias": float("nan")}])
def test_a_sealed_but_wrong_manifest_is_refused(copy: Path, change: dict[str, float]) -> None:
    seal(copy, read_sealed(copy) | change)
    with pytest.raises(BundleError, match=MANIFEST):
        load_stamps(copy)


def test_sealed_but_no_model_is_refused(copy: Path) -> None:
    content = read_sealed(copy)
    (copy / "model.onnx").write_bytes(b"nothing")
    seal(copy, content)
    with pytest.raises(BundleError, match="ONNX"):
        load_stamps(copy)
    content.pop("side")
    seal(copy, content)
    with pytest.raises(BundleError, match="side"):
        load_stamps(copy)
