"""A whole training run on light curves made here, and what must hold for its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import write_folder

from broker.errors import BrokerError
from broker.features.catalog import FEATURES
from broker.scores.catalog import SCORE_SPECS, load_scorer
from broker.training.classifier import CLASSIFIER_INPUTS, Settings, equal_weights, fit_temperature, recall
from broker.training.controls import folds, source_alone
from broker.training.dataset import LABELS, MIN_GROUPS, WINDOW_DAYS, Windows, load_detections, windows
from broker.training.evaluate import brier, calibration_error, confusion, reliability
from broker.training.split import PARTS, Split, check_disjoint, split_groups
from broker.training.train import Report, train

GRID = (Settings(num_leaves=4, learning_rate=0.2, min_data_in_leaf=5, trees=10),)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("labelled"), {"SNIa": 60, "AGN": 45, "SNII": 5})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return train(data, tmp_path_factory.mktemp("out"), seed=3, grid=GRID)


def test_the_bundle_can_be_served(run: Report) -> None:
    scorer = load_scorer(run.bundle, feature_names=[feature.name for feature in FEATURES])
    assert set(scorer.manifest.classes) == {"SNIa", "Other"}
    scores = scorer.score(run.results.parts["test"].features)
    names = [spec.name for spec in SCORE_SPECS]
    own = run.results.fitted.probabilities(run.results.parts["test"])
    ours = scores[:, [names.index(f"prob_{leaf}") for leaf in run.results.leaves]]
    np.testing.assert_allclose(ours, own, rtol=1e-9)


def test_two_different_kinds_are_told_apart(run: Report) -> None:
    assert run.test.balanced_accuracy.low > 0.7


def test_no_object_is_in_two_parts(run: Report) -> None:
    groups = [set(run.results.parts[part].group.tolist()) for part in PARTS]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 105


def test_the_same_seed_gives_the_same_files(run: Report, data: Path, tmp_path: Path) -> None:
    told: list[float] = []
    again = train(data, tmp_path, seed=3, grid=GRID, progress=lambda fraction, text: told.append(fraction))
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    for path in (*run.bundle.iterdir(), *run.page.parent.iterdir()):
        twin = (again.bundle if path.parent == run.bundle else again.page.parent) / path.name
        assert twin.read_bytes() == path.read_bytes(), path.name


def test_the_report_says_what_is_not_known(run: Report) -> None:
    page, card = run.page.read_text(), (run.bundle / "card.md").read_text()
    assert "| SNII | 5 |" in page
    assert "SNII" in card
    assert "a guess" in page
    assert all((run.page.parent / name).exists() for name in ("confusion.png", "reliability.png"))


def test_detections_are_clean(data: Path) -> None:
    found = load_detections(data)
    assert np.all(np.diff(found.starts) == 16)  # neither the limit nor the faint point
    assert np.all(found.flux > 5.0 * found.err)
    assert np.all(found.time[1:][np.diff(found.time) < 0] < 59_020)  # ordered within each object
    assert set(found.leaf.tolist()) == {"SNIa", "SNII", "Other"}


def test_windows_see_neither_the_future_nor_the_distant_past(data: Path) -> None:
    found = load_detections(data)
    seen = windows(found, np.arange(20), 4, np.random.default_rng(1))
    assert len(seen) == 80
    age = seen.features[:, [feature.name for feature in FEATURES].index("age_days")]
    assert np.all((age >= 0.0) & (age <= WINDOW_DAYS))
    assert seen.detections.max() <= 16


def test_sources_that_disagree_are_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"SNIa": 8, "AGN": 4})
    labels = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    labels[0]["label"] = "TDE"  # SNIa0, whose group also holds SNIa0b
    pq.write_table(pa.Table.from_pylist(labels), tmp_path / "labels.parquet")
    found = load_detections(tmp_path)
    assert set(found.leaf[found.group == "group SNIa0"].tolist()) == {""}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: (d / "labels.parquet").unlink(), "cannot read"),
        (lambda d: (d / "labels.parquet").write_bytes(b"PAR1"), "cannot read"),
        (lambda d: pq.write_table(pa.table({"source": ["x"]}), d / "labels.parquet"), "labels"),
    ],
)
def test_a_wrong_folder_is_refused(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    write_folder(tmp_path, {"SNIa": 4})
    damage(tmp_path)
    with pytest.raises(BrokerError, match=words):
        train(tmp_path, tmp_path / "out")


def test_too_few_objects_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"SNIa": 60, "AGN": MIN_GROUPS - 1})
    with pytest.raises(BrokerError, match="only 1 classes"):
        train(tmp_path, tmp_path / "out")


def test_a_bundle_is_never_written_over(run: Report, data: Path) -> None:
    with pytest.raises(BrokerError, match="not empty"):
        train(data, run.bundle.parent)


def test_split_is_stratified() -> None:
    leaf = np.array(["a"] * 50 + ["b"] * 10)
    group = np.array([f"g{i}" for i in range(60)])
    split = split_groups(group, leaf, np.random.default_rng(0))
    counts = [[int((split.mask(part, group) & (leaf == name)).sum()) for part in PARTS] for name in "ab"]
    assert counts == [[30, 10, 10], [6, 2, 2]]


def test_a_leak_is_found() -> None:
    with pytest.raises(BrokerError, match="two parts"):
        check_disjoint(Split(frozenset({"x"}), frozenset({"y"}), frozenset({"x"})))


def test_equal_weights() -> None:
    weight = equal_weights(np.array(["a", "a", "a", "b"]), np.array(["1", "1", "2", "3"]))
    assert weight.tolist() == [0.125, 0.125, 0.25, 0.5]


def test_no_input_names_the_source() -> None:
    telling = (
        "n_det",
        "n_nights",
        "n_forced",
        "last_limit",
        "forced",
        "peak_mag",
        "last_mag",
        "flux",
        "snr",
        "frac_negative",
        "gap",
    )
    assert not [name for name in CLASSIFIER_INPUTS if any(word in name for word in telling)]


def test_labels_are_of_the_taxonomy() -> None:
    from broker.scores.taxonomy import LEAVES  # noqa: PLC0415

    assert set(LABELS.values()) <= set(LEAVES)


def test_temperature_of_an_overconfident_model() -> None:
    rng = np.random.default_rng(2)
    raw = rng.normal(size=(4000, 3))
    p = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(3, p=row) for row in p])
    assert fit_temperature(raw * 2.5, truth, np.ones(4000)) == pytest.approx(2.5, rel=0.1)


def test_figures_of_a_perfect_and_a_useless_model() -> None:
    truth, weight = np.array([0, 1, 1, 0]), np.full(4, 0.25)
    perfect, useless = np.eye(2)[truth], np.full((4, 2), 0.5)
    assert recall(perfect, truth, weight).tolist() == [1.0, 1.0]
    assert np.isnan(recall(perfect[[0]], truth[[0]], weight[[0]])[1])
    assert confusion(perfect, truth, weight).tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert (brier(perfect, truth, weight), brier(useless, truth, weight)) == (0.0, 0.5)
    assert calibration_error(reliability(perfect, truth, weight)) == 0.0


def test_source_alone_gives_all_away_when_each_class_has_its_own() -> None:
    names = np.array(["a", "a", "b", "b"])
    group = np.array(["1", "2", "3", "4"])
    told = Windows(np.zeros((4, 1)), names, group, names, names, np.ones(4, dtype=np.int64))
    mixed = Windows(np.zeros((4, 1)), np.full(4, "s"), group, names, names, np.ones(4, dtype=np.int64))
    assert source_alone(told, ("a", "b")) == pytest.approx(1.0)
    assert source_alone(mixed, ("a", "b")) == pytest.approx(0.5)


def test_folds_keep_objects_together() -> None:
    group = np.repeat([f"g{i}" for i in range(20)], 3)
    fold = folds(group, np.random.default_rng(0)).reshape(20, 3)
    assert np.all(fold == fold[:, :1])


def test_real_light_curves_are_read(real_alerts: Path | None, data: Path) -> None:
    """The labelled folder beside the checkout, or the made one where there is none."""
    found = load_detections(real_alerts / "labelled" if real_alerts else data)
    assert np.all(np.isfinite(found.flux) & (found.err > 0))
    assert (found.leaf == "SNIa").sum() >= 60
