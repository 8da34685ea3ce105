"""The C interface gives what LightGBM's own package gives."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from broker.scores.booster import Booster


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    generator = np.random.default_rng(4)
    values = generator.normal(scale=30.0, size=(300, 12))
    return np.where(generator.random(values.shape) < 0.4, np.nan, values)


@pytest.fixture(scope="module")
def kept(matrix: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a model of four classes."""
    path = tmp_path_factory.mktemp("model") / "m.txt"
    settings = {"objective": "multiclass", "num_class": 4, "num_threads": 1, "verbosity": -1}
    target = np.nan_to_num(matrix[:, 0]) // 20 % 4
    lightgbm.train(settings, lightgbm.Dataset(matrix, label=target), num_boost_round=9).save_model(str(path))
    return path


def test_scores_are_the_packages(matrix: np.ndarray, kept: Path) -> None:
    package = lightgbm.Booster(model_file=str(kept))
    booster = Booster(kept)
    assert (booster.inputs, booster.outputs) == (package.num_feature(), package.num_model_per_iteration())
    expected = package.predict(matrix, raw_score=True, num_threads=1)
    np.testing.assert_array_equal(booster.raw_scores(matrix), expected)
    for other in (
        np.asfortranarray(matrix),
        np.repeat(matrix, 2, axis=0)[::2],
        np.hstack([matrix, matrix])[:, : matrix.shape[1]],
    ):
        np.testing.assert_array_equal(booster.raw_scores(other), expected)


def test_a_model_of_one_output(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows, target = generator.normal(size=(200, 3)), generator.integers(0, 2, 200)
    settings = {"objective": "binary", "num_threads": 1, "verbosity": -1}
    package = lightgbm.train(settings, lightgbm.Dataset(rows, label=target), num_boost_round=5)
    package.save_model(str(tmp_path / "m.txt"))
    booster = Booster(tmp_path / "m.txt")
    assert (booster.inputs, booster.outputs) == (3, 1)
    np.testing.assert_array_equal(booster.raw_scores(rows)[:, 0], package.predict(rows, raw_score=True))


def test_no_rows_give_no_scores(kept: Path) -> None:
    booster = Booster(kept)
    assert booster.raw_scores(np.empty((0, booster.inputs))).shape == (0, booster.outputs)


@pytest.mark.parametrize("shape", [(2, 3), (5,), (0, 3)])
def test_another_width_is_refused(shape: tuple[int, ...], kept: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        Booster(kept).raw_scores(np.zeros(shape))


@pytest.mark.parametrize("text", ["", "tree\n", "\x00\xff"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(ValueError, match=r"\w"):
        Booster(tmp_path / "m.txt")
    with pytest.raises(FileNotFoundError):
        Booster(tmp_path / "nowhere.txt")


def test_contributions_are_the_packages(matrix: np.ndarray, kept: Path) -> None:
    package, booster = lightgbm.Booster(model_file=str(kept)), Booster(kept)
    expected = package.predict(matrix, pred_contrib=True, num_threads=1).reshape(len(matrix), 4, -1)
    found = booster.contributions(matrix)
    np.testing.assert_allclose(found, expected[:, :, :-1])
    np.testing.assert_allclose(found.sum(axis=2) + expected[:, :, -1], booster.raw_scores(matrix))
