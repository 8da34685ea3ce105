"""What every shipped bundle and every kind of score must hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from broker.errors import BundleError
from broker.features.catalog import FEATURES, feature_set_hash
from broker.scores.bundle import MANIFEST, write_manifest
from broker.scores.catalog import BUNDLES, DEFAULT_BUNDLE, SCORE_SPECS, SCORERS, Scorer, load_scorer
from broker.scores.taxonomy import FAMILIES, LEAVES

NAMES = [feature.name for feature in FEATURES]
SHIPPED = sorted(path for path in BUNDLES.iterdir() if path.is_dir())
MAX_BYTES = 10_000_000


@pytest.fixture(params=SHIPPED, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """Each shipped bundle."""
    path: Path = request.param
    return path


@pytest.fixture
def scorer(folder: Path) -> Scorer:
    """Each shipped bundle, loaded."""
    return load_scorer(folder, feature_names=NAMES)


@pytest.fixture
def matrix() -> np.ndarray:
    """Features of all kinds, some missing, some absurd; the last row has none."""
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, 3.0, (64, len(NAMES))) * 10.0 ** rng.integers(-3, 4, len(NAMES))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[0], values[1], values[-1] = 1e300, -np.inf, np.nan
    return values


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the default bundle that a test may damage."""
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle"))


def test_the_default_is_shipped() -> None:
    assert DEFAULT_BUNDLE in SHIPPED
    assert load_scorer(feature_names=NAMES).id == "ztf-30day"


def test_columns_are_the_same_for_every_bundle(scorer: Scorer) -> None:
    names = [spec.name for spec in SCORE_SPECS]
    assert names == [f"prob_{x}" for x in LEAVES] + [f"prob_family_{x}" for x in FAMILIES] + ["anomaly"]
    assert scorer.specs == SCORE_SPECS == [spec for kind in SCORERS for spec in kind.specs]


def test_probabilities_sum_to_one(scorer: Scorer, matrix: np.ndarray) -> None:
    scores = scorer.score(matrix)
    assert scores.shape == (len(matrix), len(SCORE_SPECS))
    leaves, families = scores[:, : len(LEAVES)], scores[:, len(LEAVES) : len(LEAVES) + len(FAMILIES)]
    np.testing.assert_allclose(np.nansum(leaves, axis=1), 1.0)
    np.testing.assert_allclose(np.nansum(families, axis=1), 1.0)


def test_only_what_was_not_trained_is_missing(scorer: Scorer, matrix: np.ndarray) -> None:
    scores = scorer.score(matrix)
    known = [f"prob_{leaf}" for leaf in scorer.manifest.classes]
    known += [
        f"prob_family_{f}" for f, leaves in FAMILIES.items() if set(leaves) & set(scorer.manifest.classes)
    ]
    for index, spec in enumerate(SCORE_SPECS):
        if spec.name in known or spec.name == "anomaly":
            assert np.all((scores[:, index] >= 0.0) & (scores[:, index] <= 1.0)), spec.name
        else:
            assert np.all(np.isnan(scores[:, index])), spec.name


def test_a_batch_is_its_rows_one_by_one(scorer: Scorer, matrix: np.ndarray) -> None:
    alone = np.vstack([scorer.score(row[np.newaxis]) for row in matrix])
    np.testing.assert_array_equal(scorer.score(matrix), alone)


def test_no_rows(scorer: Scorer) -> None:
    assert scorer.score(np.empty((0, len(NAMES)))).shape == (0, len(SCORE_SPECS))


def test_later_features_do_not_matter(scorer: Scorer, matrix: np.ndarray) -> None:
    wider = np.column_stack([matrix, np.ones(len(matrix))])
    np.testing.assert_array_equal(scorer.score(matrix), scorer.score(wider))


def test_a_narrow_matrix_is_refused(scorer: Scorer, matrix: np.ndarray) -> None:
    with pytest.raises(BundleError, match="needs a matrix of"):
        scorer.score(matrix[:, :5])


def test_the_manifest_tells_the_truth(scorer: Scorer, folder: Path) -> None:
    count = len(scorer.manifest.feature_names)
    assert scorer.feature_set_hash == feature_set_hash(FEATURES[:count])
    assert folder.name == f"{scorer.id}-v{scorer.version}"
    assert (folder / "card.md").stat().st_size > 500
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES


def test_a_longer_catalogue_is_fine(folder: Path) -> None:
    assert load_scorer(folder, feature_names=[*NAMES, "new_feature"]).version


@pytest.mark.parametrize("names", [NAMES[:40], NAMES[::-1], ["n_det", *NAMES[1:]], []])
def test_another_feature_list_is_refused(folder: Path, names: list[str]) -> None:
    with pytest.raises(BundleError, match="its feature"):
        load_scorer(folder, feature_names=names)


@pytest.mark.parametrize("name", ["classifier.txt", "calibration.json", "anomaly.npz", "card.md"])
def test_a_tampered_file_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-9] + b"!" + content[-8:])
    with pytest.raises(BundleError, match=name):
        load_scorer(copy, feature_names=NAMES)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "anomaly.npz").unlink()
    with pytest.raises(BundleError, match=r"anomaly\.npz"):
        load_scorer(copy, feature_names=NAMES)


def test_an_extra_file_is_refused(copy: Path) -> None:
    (copy / "model.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.pkl"):
        load_scorer(copy, feature_names=NAMES)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "files": {}}', "\x00"])
def test_a_broken_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        load_scorer(copy, feature_names=NAMES)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        load_scorer(tmp_path / "nowhere", feature_names=NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [("calibration.json", "{}"), ("calibration.json", '{"temperature": 0}'), ("classifier.txt", "tree\n")],
)
def test_a_sealed_but_wrong_part_is_refused(copy: Path, name: str, text: str) -> None:
    manifest = load_scorer(copy, feature_names=NAMES).manifest
    (copy / name).write_text(text)
    write_manifest(copy, manifest)
    with pytest.raises(BundleError, match="bundle"):
        load_scorer(copy, feature_names=NAMES)


def test_a_class_outside_the_taxonomy_is_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    content["classes"] = {"Supernova": ["SNIa"]}
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="taxonomy"):
        load_scorer(copy, feature_names=NAMES)
