"""Embedding and reconstruction error as they are served, against scikit-learn's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_bundle import made_bundle
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPRegressor

from broker.context import CONTEXT_NAMES
from broker.errors import BundleError
from broker.features.catalog import FEATURES
from broker.scores.bundle import Manifest, read_manifest, write_manifest
from broker.scores.catalog import SCORE_SPECS, load_scorer
from broker.scores.embedding import (
    DIMENSIONS,
    EMBEDDING_FILE,
    EMBEDDING_SPECS,
    FARTHEST,
    LEAST_KNOWN,
    EmbeddingScore,
    Space,
    load_embedding,
    save_embedding,
)
from broker.training.embedding import HIDDEN, fit_space

WIDTH = 12
INPUTS = tuple(f"f{number}" for number in range(WIDTH))
MANIFEST = Manifest(
    id="test", version="1", created="", survey="ztf", feature_set_hash="", feature_names=("other", *INPUTS),
    context_names=(), stages=(), shares={}, anomaly_inputs=(),
)  # fmt: skip


def made(count: int, seed: int) -> np.ndarray:
    """Rows on a curved sheet of three dimensions in twelve, with noise and gaps."""
    hidden = np.random.default_rng(0).normal(size=(3, WIDTH))
    rng = np.random.default_rng(seed)
    columns = np.sin(rng.normal(size=(count, 3)) @ hidden) * 10.0 + rng.normal(0.0, 0.3, (count, WIDTH))
    columns[rng.random(columns.shape) < 0.1] = np.nan
    return columns


@pytest.fixture(scope="module")
def space() -> Space:
    return fit_space(made(300, 1), seed=1, errors=np.linspace(0.01, 1.0, 50))


def score(space: Space, columns: np.ndarray) -> np.ndarray:
    return EmbeddingScore(space, list(range(WIDTH))).score(columns)


def test_the_components_are_scikit_learns(space: Space) -> None:
    scaled = space.scaled(made(300, 1))
    expected = PCA(DIMENSIONS, svd_solver="full").fit(scaled).transform(scaled)
    np.testing.assert_allclose(space.embed(scaled), expected, atol=1e-9)


def test_the_network_is_scikit_learns(space: Space) -> None:
    scaled = space.scaled(made(300, 1))
    network = MLPRegressor(hidden_layer_sizes=HIDDEN, activation="tanh", max_iter=1, batch_size=64)
    network.partial_fit(scaled, scaled)
    own = replace(space, weights=tuple(network.coefs_), biases=tuple(network.intercepts_))
    np.testing.assert_allclose(own.redrawn(scaled), network.predict(scaled), atol=1e-12)


def test_what_is_served_is_what_was_trained(space: Space, tmp_path: Path) -> None:
    save_embedding(tmp_path, space, INPUTS)
    loaded = load_embedding(tmp_path, MANIFEST)
    columns = made(40, 2)
    matrix = np.column_stack([np.ones(40), columns])
    np.testing.assert_array_equal(loaded.score(matrix), score(space, columns))


def test_a_planted_outlier_is_redrawn_worst(space: Space) -> None:
    columns = made(200, 3)
    # Every value of it is usual, all together are not: no column alone shows it.
    columns[77] = [
        np.nanquantile(column, 0.9 if place % 2 else 0.1) for place, column in enumerate(columns.T)
    ]
    errors = score(space, columns)[:, DIMENSIONS]
    assert np.nanargmax(errors) == 77


def test_an_unknown_value_is_the_median_and_no_error(space: Space) -> None:
    known = np.full((1, WIDTH), np.nan)
    known[0, :LEAST_KNOWN] = made(1, 4)[0, :LEAST_KNOWN]
    known = np.where(np.isnan(known[:, :LEAST_KNOWN]).any(), space.median, known)
    filled = np.where(np.isnan(known), space.median, known)
    np.testing.assert_allclose(score(space, known)[:, :DIMENSIONS], score(space, filled)[:, :DIMENSIONS])
    scaled = space.scaled(known)
    off = np.square(scaled - space.redrawn(scaled))[0]
    assert space.error(scaled, np.isfinite(known))[0] == pytest.approx(off[np.isfinite(known[0])].mean())


def test_too_little_known_gives_no_answer(space: Space) -> None:
    columns = made(2, 5)
    columns[np.isnan(columns)] = 0.0
    columns[0, LEAST_KNOWN - 1 :] = np.nan
    columns[1, LEAST_KNOWN:] = np.nan
    assert np.isnan(score(space, columns)).all(axis=1).tolist() == [True, False]


def test_absurd_values_stay_finite(space: Space) -> None:
    columns = np.array([[1e300] * WIDTH, [-1e300] * WIDTH, [0.0] * WIDTH])
    assert np.isfinite(score(space, columns)).all()
    assert np.abs(space.scaled(columns)).max() <= FARTHEST


def test_the_rank_keeps_the_order_and_never_reaches_one(space: Space) -> None:
    errors = np.array([0.0, 0.01, 0.5, 1.0, 1.0001, 2.0, 1e6])
    ranks = space.rank(errors)
    assert np.all(np.diff(ranks[1:]) > 0)
    assert (ranks[0], ranks[1]) == (0.0, 0.0)
    assert ranks[2] == pytest.approx(0.5, abs=0.02)
    assert ranks[-1] < 1.0


def test_a_bundle_without_the_file_has_empty_columns(tmp_path: Path) -> None:
    loaded = load_embedding(tmp_path, MANIFEST)
    found = loaded.score(np.ones((3, WIDTH + 1)))
    assert found.shape == (3, len(EMBEDDING_SPECS))
    assert np.isnan(found).all()


def test_a_sealed_bundle_with_the_file_fills_the_columns(space: Space, tmp_path: Path) -> None:
    folder = made_bundle(tmp_path / "bundle")
    names = [feature.name for feature in FEATURES]
    manifest = read_manifest(folder, names, CONTEXT_NAMES)
    save_embedding(folder, space, tuple(names[:WIDTH]))
    write_manifest(folder, manifest)
    scorer = load_scorer(folder, feature_names=names, context_names=CONTEXT_NAMES)
    found = scorer.score(np.ones((2, len(names))), np.full((2, len(CONTEXT_NAMES)), np.nan))
    first = SCORE_SPECS.index(EMBEDDING_SPECS[0])
    assert SCORE_SPECS[first : first + len(EMBEDDING_SPECS)] == list(EMBEDDING_SPECS)
    assert np.isfinite(found[:, first : first + len(EMBEDDING_SPECS)]).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: {"components": s.components[:-1]},
        lambda s: {"median": s.median[:-1]},
        lambda s: {"scale": np.zeros_like(s.scale)},
        lambda s: {"weights": s.weights[:-1], "biases": s.biases[:-1]},
        lambda s: {"biases": (*s.biases[:-1], s.biases[-1][:-1])},
        lambda s: {"errors": s.errors[::-1].copy()},
        lambda s: {"errors": np.zeros(0)},
        lambda s: {"mean": np.full_like(s.mean, np.nan)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(space: Space, tmp_path: Path, damage: object) -> None:
    save_embedding(tmp_path, replace(space, **damage(space)), INPUTS)  # type: ignore[operator]
    with pytest.raises(BundleError, match="is no embedding"):
        load_embedding(tmp_path, MANIFEST)


def test_what_is_no_archive_or_asks_for_strange_columns_is_refused(space: Space, tmp_path: Path) -> None:
    (tmp_path / EMBEDDING_FILE).write_bytes(b"no archive")
    with pytest.raises(BundleError, match="is no embedding"):
        load_embedding(tmp_path, MANIFEST)
    save_embedding(tmp_path, space, ("strange", *INPUTS[1:]))
    with pytest.raises(BundleError, match="strange"):
        load_embedding(tmp_path, MANIFEST)
