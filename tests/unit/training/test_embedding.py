"""Learning without labels, on objects made for it: two kinds apart, one strange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker import embedding_map
from broker.embedding_map import MapPoints, draw_map, flatten
from broker.features.catalog import FEATURES
from broker.scores.embedding import DIMENSIONS, EMBEDDING_FILE
from broker.training import embedding
from broker.training.dataset import Windows
from broker.training.embedding import LEAST_OBJECTS, MAP_FILE, Report, purity, train_embedding
from broker.training.results import Results
from broker.training.train import with_embedding

NAMES = tuple(f"f{number}" for number in range(14))
INPUTS, FOREST = NAMES[:12], NAMES[2:]


@pytest.fixture(autouse=True)
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """UMAP takes longer to import than all else here."""
    monkeypatch.setattr(embedding_map, "find_spec", lambda name: None)


def sky(objects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(matrix, groups, labels), three rows an object: SN Ia and EB lie apart, CV are off the sheet."""
    rng = np.random.default_rng(2)
    kinds = np.array(["SNIa", "EB", "", "CV/Nova"])[np.arange(objects) % 4]
    kinds[objects // 2 :][kinds[objects // 2 :] == "CV/Nova"] = ""
    owner = np.repeat(np.arange(objects), 3)
    hidden = rng.normal(size=(objects, 3))
    hidden[kinds == "EB", 0] += 8.0
    sheet = hidden @ rng.normal(size=(3, len(NAMES)))
    strange = np.where(kinds == "CV/Nova", 3.0, 0.1)[owner, np.newaxis]
    matrix = sheet[owner] + rng.normal(size=(len(owner), len(NAMES))) * strange
    matrix[rng.random(matrix.shape) < 0.05] = np.nan
    matrix[owner % 10 == 9, 5:] = np.nan  # too little known of every tenth object
    return matrix, np.array([f"g{number}" for number in owner]), kinds[owner]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_map, "find_spec", lambda name: None)
        patch.setattr(embedding, "EPOCHS", 60)
        patch.setattr(embedding, "_RESAMPLES", 60)
        matrix, groups, labels = sky(120)
        found = train_embedding(NAMES, matrix, groups, labels, folder, 3, inputs=INPUTS, forest_inputs=FOREST)
    assert found is not None
    return found, folder


def test_objects_with_too_little_known_are_counted(trained: tuple[Report, Path]) -> None:
    report, folder = trained
    assert (report.objects, report.left_out, report.rows) == (108, 12, 324)
    assert (folder / EMBEDDING_FILE).exists()


def test_three_components_explain_what_was_made_of_three(trained: tuple[Report, Path]) -> None:
    explained = trained[0].explained
    assert len(explained) == DIMENSIONS
    assert np.all(np.diff(explained) > 0)
    assert explained[2] > 0.7


def test_what_is_off_the_sheet_is_strange(trained: tuple[Report, Path]) -> None:
    areas = {area.name: area for area in trained[0].areas}
    assert areas["CV/Nova"].error.low > 0.9
    assert areas["CV/Nova"].objects == 12
    assert areas["EB"].error.value < areas["CV/Nova"].error.value


def test_kinds_that_lie_apart_have_their_own_as_neighbours(trained: tuple[Report, Path]) -> None:
    shares = {one.name: one for one in trained[0].purities}
    assert shares["SNIa"].share.low > shares["SNIa"].chance
    assert trained[0].balanced.share.low > trained[0].balanced.chance


def test_labels_given_at_random_are_not_found_again() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice(["a", "b"], 300).astype(np.str_)
    _, balanced = purity(rng.normal(size=(300, DIMENSIONS)), label, rng)
    assert abs(balanced.share.value - balanced.chance) < 0.06


def test_the_section_says_what_was_found(trained: tuple[Report, Path]) -> None:
    report, folder = trained
    text = report.markdown()
    assert f"| CV/Nova | 12 | {report.areas[-1].forest}" in text
    assert str(report.agreement) in text
    assert MAP_FILE in text
    report.draw(folder)
    assert (folder / MAP_FILE).read_bytes().startswith(b"\x89PNG")


def test_a_second_run_is_the_same_and_labels_do_not_enter(
    trained: tuple[Report, Path], tmp_path: Path
) -> None:
    matrix, groups, labels = sky(120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "EPOCHS", 60)
        patch.setattr(embedding, "_RESAMPLES", 60)
        other = np.full_like(labels, "")
        found = train_embedding(
            NAMES, matrix, groups, other, tmp_path, 3, inputs=INPUTS, forest_inputs=FOREST
        )
    assert found is not None
    assert (found.areas, found.purities) == ([], [])
    with np.load(tmp_path / EMBEDDING_FILE) as again, np.load(trained[1] / EMBEDDING_FILE) as before:
        np.testing.assert_array_equal(again["components"], before["components"])
        np.testing.assert_array_equal(again["weight_0"], before["weight_0"])


def test_too_few_objects_teach_nothing(tmp_path: Path) -> None:
    matrix, groups, labels = sky(LEAST_OBJECTS)
    assert (
        train_embedding(NAMES, matrix, groups, labels, tmp_path, 3, inputs=INPUTS, forest_inputs=FOREST)
        is None
    )
    assert not (tmp_path / EMBEDDING_FILE).exists()


def test_without_umap_the_map_is_the_first_two_components(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(30, DIMENSIONS))
    found = flatten(points, np.array(["a", ""] * 15))
    np.testing.assert_array_equal(found.place, points[:, :2])
    assert "components" in found.method
    for name in ("one.png", "two.png"):
        draw_map(tmp_path / name, MapPoints(found.place, found.label, found.method), "a test")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_run_takes_it_into_bundle_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "EPOCHS", 5)
    monkeypatch.setattr(embedding, "_RESAMPLES", 20)
    count = LEAST_OBJECTS + 10
    words = np.array([f"g{number}" for number in range(count)])
    features = np.random.default_rng(0).normal(size=(count, len(FEATURES)))
    stream = Windows(features, words, words, np.full(count, ""), words, np.ones(count, dtype=np.int64))
    bare = Results("ztf", "9", 1, [], {}, None, [], 0, (), ("before",))
    found = with_embedding(bare, stream, tmp_path / "bundle", tmp_path / "report")
    assert found.sections[0] == "before"
    assert f"{count} objects of the stream" in found.sections[1]
    assert (tmp_path / "bundle" / EMBEDDING_FILE).exists()
    assert (tmp_path / "report" / MAP_FILE).exists()
    few = stream.take(np.arange(LEAST_OBJECTS - 1))
    assert with_embedding(bare, few, tmp_path / "other", tmp_path / "none").sections == ("before",)
    assert not (tmp_path / "other").exists()
