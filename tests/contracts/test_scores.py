"""What every shipped bundle and every kind of score must hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.context import CONTEXT_NAMES
from broker.errors import BundleError
from broker.features.catalog import FEATURES, feature_set_hash
from broker.scores.bundle import MANIFEST, write_manifest
from broker.scores.catalog import (
    BUNDLES,
    DEFAULT_BUNDLE,
    SCORE_SPECS,
    SCORERS,
    STAMPS_BUNDLE,
    Scorer,
    load_scorer,
)
from broker.scores.stages import set_names
from broker.scores.taxonomy import FAMILIES, LEAVES

NAMES = [feature.name for feature in FEATURES]
PROBABILITIES = [f"prob_{leaf}" for leaf in LEAVES] + [f"prob_family_{family}" for family in FAMILIES]
SHIPPED = sorted(path for path in BUNDLES.iterdir() if path.is_dir() and path != STAMPS_BUNDLE)
"""The bundles of light-curve models; `tests/unit/scores/test_stamps.py` has the network for images."""
MAX_BYTES = 10_000_000


@pytest.fixture(params=SHIPPED, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """Each shipped bundle."""
    path: Path = request.param
    return path


@pytest.fixture
def scorer(folder: Path) -> Scorer:
    """Each shipped bundle, loaded."""
    return load(folder)


def load(folder: Path | None = None, names: Sequence[str] = NAMES) -> Scorer:
    """A bundle, or the default one."""
    return load_scorer(folder, feature_names=names, context_names=CONTEXT_NAMES)


def absurd(width: int) -> np.ndarray:
    """Numbers of all kinds, some missing, some absurd; the last row has none."""
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, 3.0, (64, width)) * 10.0 ** rng.integers(-3, 4, width)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[0], values[1], values[-1] = 1e300, -np.inf, np.nan
    return values


@pytest.fixture
def matrix() -> np.ndarray:
    """Features."""
    return absurd(len(NAMES))


@pytest.fixture
def context() -> np.ndarray:
    """What packets say of the surroundings."""
    return absurd(len(CONTEXT_NAMES))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the default bundle that a test may damage."""
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle"))


def test_the_default_is_shipped() -> None:
    assert DEFAULT_BUNDLE in SHIPPED
    assert load().id == "ztf"


def test_columns_are_the_same_for_every_bundle(scorer: Scorer) -> None:
    names = [spec.name for spec in SCORE_SPECS]
    assert names[: len(PROBABILITIES)] == PROBABILITIES
    assert {"anomaly", "class_set_size", "class_set_bits"} <= set(names)
    assert scorer.specs == SCORE_SPECS == [spec for kind in SCORERS for spec in kind.specs]


def test_probabilities_sum_to_one(scorer: Scorer, matrix: np.ndarray, context: np.ndarray) -> None:
    scores = scorer.score(matrix, context)
    assert scores.shape == (len(matrix), len(SCORE_SPECS))
    leaves, families = scores[:, : len(LEAVES)], scores[:, len(LEAVES) : len(PROBABILITIES)]
    np.testing.assert_allclose(np.nansum(leaves, axis=1), 1.0)
    np.testing.assert_allclose(np.nansum(families, axis=1), 1.0)


def test_only_what_was_not_trained_is_missing(
    scorer: Scorer, matrix: np.ndarray, context: np.ndarray
) -> None:
    scores = scorer.score(matrix, context)
    known = {f"prob_family_{family}" for family in scorer.manifest.shares}
    known |= {f"prob_{leaf}" for shares in scorer.manifest.shares.values() for leaf in shares}
    for index, name in enumerate(PROBABILITIES):
        if name in known:
            assert np.all((scores[:, index] >= 0.0) & (scores[:, index] <= 1.0)), name
        else:
            assert np.all(np.isnan(scores[:, index])), name


def test_the_class_set_holds_the_most_probable_leaf(
    scorer: Scorer, matrix: np.ndarray, context: np.ndarray
) -> None:
    names = [spec.name for spec in SCORE_SPECS]
    scores = scorer.score(matrix, context)
    sets = [set_names(bits) for bits in scores[:, names.index("class_set_bits")]]
    best = [LEAVES[place] for place in np.nanargmax(scores[:, : len(LEAVES)], axis=1)]
    assert all(leaf in chosen for leaf, chosen in zip(best, sets, strict=True))
    assert scores[:, names.index("class_set_size")].tolist() == [float(len(chosen)) for chosen in sets]


def test_a_batch_is_its_rows_one_by_one(scorer: Scorer, matrix: np.ndarray, context: np.ndarray) -> None:
    rows = zip(matrix, context, strict=True)
    alone = np.vstack([scorer.score(row[np.newaxis], own[np.newaxis]) for row, own in rows])
    np.testing.assert_allclose(scorer.score(matrix, context), alone, rtol=1e-5)


def test_no_rows(scorer: Scorer) -> None:
    empty = scorer.score(np.empty((0, len(NAMES))), np.empty((0, len(CONTEXT_NAMES))))
    assert empty.shape == (0, len(SCORE_SPECS))


def test_later_features_do_not_matter(scorer: Scorer, matrix: np.ndarray, context: np.ndarray) -> None:
    wider = np.column_stack([matrix, np.ones(len(matrix))])
    np.testing.assert_array_equal(scorer.score(matrix, context), scorer.score(wider, context))


def test_a_narrow_matrix_is_refused(scorer: Scorer, matrix: np.ndarray, context: np.ndarray) -> None:
    with pytest.raises(BundleError, match="needs a matrix of"):
        scorer.score(matrix[:, :5], context)


def test_what_is_missing_everywhere_changes_nothing_else(scorer: Scorer) -> None:
    """Surveys carry different contexts: a row of nothing is judged, by what is assumed of all."""
    scores = scorer.score(np.full((1, len(NAMES)), np.nan), np.full((1, len(CONTEXT_NAMES)), np.nan))
    assert np.nansum(scores[:, : len(LEAVES)]) == pytest.approx(1.0)


def test_the_manifest_tells_the_truth(scorer: Scorer, folder: Path) -> None:
    count = len(scorer.manifest.feature_names)
    assert scorer.feature_set_hash == feature_set_hash(FEATURES[:count])
    assert folder.name == f"{scorer.id}-v{scorer.version}"
    assert (folder / "card.md").stat().st_size > 500
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES


def test_a_longer_catalogue_is_fine(folder: Path) -> None:
    assert load(folder, [*NAMES, "new_feature"]).version


@pytest.mark.parametrize("names", [NAMES[:40], NAMES[::-1], ["n_det", *NAMES[1:]], []])
def test_another_feature_list_is_refused(folder: Path, names: list[str]) -> None:
    with pytest.raises(BundleError, match="its feature"):
        load(folder, names)


@pytest.mark.parametrize("name", ["anomaly.npz", "card.md"])
def test_a_tampered_file_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-9] + b"!" + content[-8:])
    with pytest.raises(BundleError, match=name):
        load(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "anomaly.npz").unlink()
    with pytest.raises(BundleError, match=r"anomaly\.npz"):
        load(copy)


def test_an_extra_file_is_refused(copy: Path) -> None:
    (copy / "model.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.pkl"):
        load(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "files": {}}', "\x00"])
def test_a_broken_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        load(copy)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda stage: stage.update(temperature=0.0),
        lambda stage: stage.update(bias=[0.0]),
        lambda stage: stage.update(quantiles=[]),
        lambda stage: stage.update(inputs=["no_such_feature", *stage["inputs"][1:]]),
        lambda stage: stage.update(classes=["Supernova", *stage["classes"][1:]]),
        lambda stage: stage.update(name="nothing"),
        lambda stage: stage.pop("prior"),
    ],
)
def test_a_sealed_but_wrong_stage_is_refused(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    change(content["stages"][0])
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"bundle|manifest"):
        load(copy)


def test_a_stage_whose_file_is_no_model_is_refused(copy: Path) -> None:
    manifest = load(copy).manifest
    name = manifest.stages[0].name
    for path in copy.glob(f"{name}.*"):
        path.write_bytes(b"tree\n")
    write_manifest(copy, manifest)
    with pytest.raises(BundleError, match="bundle"):
        load(copy)


def test_shares_that_are_not_of_the_family_are_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    content["shares"]["transient"] = {"AGN": 1.0}
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="shares"):
        load(copy)
