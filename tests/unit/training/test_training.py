"""A whole training run on made tasks, and what must hold for its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import write_folder
from made_task import FAMILY, NAMES, TRANSIENT, made_task

from broker.context import CONTEXT_NAMES
from broker.errors import BrokerError
from broker.features.catalog import FEATURES
from broker.scores.catalog import SCORE_SPECS, load_scorer
from broker.training.dataset import LABELS, WINDOW_DAYS, load_detections, windows
from broker.training.predict import evaluate_folder
from broker.training.train import Report, train

TASKS = [FAMILY, TRANSIENT]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("labelled"), {"SNIa": 20, "AGN": 12})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return train(data, tmp_path_factory.mktemp("out"), TASKS, seed=3, budget=1)


def test_the_bundle_can_be_served(run: Report) -> None:
    names = [feature.name for feature in FEATURES]
    scorer = load_scorer(run.bundle, feature_names=names, context_names=CONTEXT_NAMES)
    family, transient = run.results.stages
    features = family.test.features
    scores = scorer.score(features[:, : len(names)], features[:, len(names) :])
    column = {spec.name: place for place, spec in enumerate(SCORE_SPECS)}
    own = family.chosen.probabilities(family.test)
    for place, name in enumerate(family.chosen.classes):
        np.testing.assert_allclose(scores[:, column[f"prob_family_{name}"]], own[:, place], rtol=1e-5)
    within = (
        transient.chosen.probabilities(family.test)[:, 0] * own[:, family.chosen.classes.index("transient")]
    )
    np.testing.assert_allclose(scores[:, column["prob_SNIa"]], within, rtol=1e-5)
    assert np.isnan(scores[:, column["prob_KN"]]).all()


def test_classes_are_told_apart_and_no_object_is_in_two_parts(run: Report) -> None:
    for stage in run.results.stages:
        assert stage.figures.balanced_accuracy.low > 0.6
        assert stage.baselines[0].balanced_accuracy.value == 0.5
        groups = [set(part.group.tolist()) for part in (stage.learnt, stage.test)]
        assert len(set.union(*groups)) == sum(map(len, groups)) == 120


def test_the_same_seed_gives_the_same_files(run: Report, data: Path, tmp_path: Path) -> None:
    told: list[float] = []
    again = train(data, tmp_path, TASKS, seed=3, budget=1, progress=lambda done, text: told.append(done))
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    for path in (*run.bundle.iterdir(), *run.page.parent.iterdir()):
        twin = (again.bundle if path.parent == run.bundle else again.page.parent) / path.name
        assert twin.read_bytes() == path.read_bytes(), path.name


def test_the_report_says_what_is_not_known(run: Report) -> None:
    page, card = run.page.read_text(), (run.bundle / "card.md").read_text()
    assert "KN (4)" in page
    assert "KN (4)" in card
    assert "a guess" in page
    assert run.results.stages[0].importances[0].name == "color_gr"
    assert "| `color_gr` |" in page
    assert "lsst: no light curve" in run.unfit["lsst"]
    figures = {
        f"{stage.task.name}-{what}.png" for stage in run.results.stages for what in ("confusion", "nights")
    }
    assert figures <= {path.name for path in run.page.parent.iterdir()}


def test_a_stage_without_enough_objects_is_left_out_or_an_error(data: Path, tmp_path: Path) -> None:
    thin = made_task("thin", "periodic", {"CEP": 60, "EB": 3}, "skew_g")
    done = train(data, tmp_path / "some", [FAMILY, thin], seed=1, budget=1)
    assert "only 1 classes" in done.unfit["thin"]
    assert [stage.task.name for stage in done.results.stages] == ["family"]
    (tmp_path / "rubin").mkdir()
    whole = write_folder(tmp_path / "rubin", {"SNIa": 1}, rubin={"AGN": 1})
    with pytest.raises(BrokerError, match="thin: only 1 classes"):
        train(whole, tmp_path / "all", [thin], seed=1, budget=1, every=True)
    with pytest.raises(BrokerError, match="thin: only 1 classes"):
        train(data, tmp_path / "none", [thin], seed=1, budget=1)


def test_answers_about_a_folder(run: Report, data: Path, tmp_path: Path) -> None:
    done = evaluate_folder(data, tmp_path, TASKS, run.bundle)
    table = pq.read_table(done.predictions)
    assert table.num_rows == done.rows == 240
    leaves = [name for name in table.column_names if name.startswith("prob_") and "family" not in name]
    total = np.nansum([table[name].to_numpy(zero_copy_only=False) for name in leaves], axis=0)
    np.testing.assert_allclose(total, 1.0)
    known = {"SNIa", "TDE", "AGN", "YSO", "Other"}
    assert all(row and set(row) <= known for row in table["class_set"].to_pylist())
    assert np.isfinite(table["anomaly"].to_numpy()).all()
    assert pq.read_table(done.early).column_names == table.column_names
    assert "transient 30" in done.report.read_text()


def test_a_folder_of_unknown_sources_is_refused(run: Report, data: Path, tmp_path: Path) -> None:
    empty = made_task("family", "", {"transient": 0, "stochastic": 0}, "color_gr")
    with pytest.raises(BrokerError, match="no light curve of a known source"):
        evaluate_folder(data, tmp_path, [empty], run.bundle)


def test_detections_are_clean(data: Path) -> None:
    found = load_detections(data)
    assert np.all(np.diff(found.starts) == 16)  # neither the limit nor the faint point
    assert np.all(found.flux > 5.0 * found.err)
    assert np.all(found.time[1:][np.diff(found.time) < 0] < 59_020)  # ordered within each object


def test_windows_see_neither_the_future_nor_the_distant_past(data: Path) -> None:
    found = load_detections(data)
    seen = windows(found, np.arange(20), 4, np.random.default_rng(1))
    assert len(seen) == 80
    age = seen.features[:, [feature.name for feature in FEATURES].index("age_days")]
    assert np.all((age >= 0.0) & (age <= WINDOW_DAYS))
    assert seen.detections.max() <= 16


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
        load_detections(tmp_path)


def test_a_bundle_is_never_written_over(run: Report, data: Path) -> None:
    with pytest.raises(BrokerError, match="not empty"):
        train(data, run.bundle.parent, TASKS)


def test_labels_are_of_the_taxonomy() -> None:
    from broker.scores.taxonomy import LEAVES  # noqa: PLC0415

    assert set(LABELS.values()) <= set(LEAVES)
    assert len(NAMES) == len(FEATURES) + len(CONTEXT_NAMES)


def test_real_light_curves_are_read(real_alerts: Path | None, data: Path) -> None:
    """The labelled folder beside the checkout, or the made one where there is none."""
    found = load_detections(real_alerts / "labelled" if real_alerts else data)
    assert np.all(np.isfinite(found.flux) & (found.err > 0))
    assert len(np.unique(found.object)) >= 20
