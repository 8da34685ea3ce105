"""Counterparts by colour: on a made-up catalogue, and (where it is) on the real one's counts and units."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data import shared_data

from broker.errors import BrokerError
from broker.scores import counterpart as served
from broker.training.tasks import counterpart

COUNTS = {"STAR": 260, "GALAXY": 320, "QSO": 120}
CENTRE = {"STAR": (0.5, 0.15, 0.05), "GALAXY": (0.9, 0.45, 0.35), "QSO": (0.1, 0.1, -0.1)}


def made_table(seed: int = 1) -> pa.Table:
    """Three clouds in colour; a galaxy's g - r grows with its redshift."""
    rng = np.random.default_rng(seed)
    label = np.repeat(list(COUNTS), list(COUNTS.values()))
    colour = np.array([CENTRE[name] for name in label]) + 0.06 * rng.normal(size=(len(label), 3))
    redshift = np.where(label == "STAR", 0.0, np.where(label == "QSO", 1.5, 0.1))
    galaxy = label == "GALAXY"
    redshift[galaxy] += 0.5 * (colour[galaxy, 0] - 0.9) + 0.01 * rng.normal(size=galaxy.sum())
    r = rng.uniform(14.0, 20.0, len(label))
    mags = {"g": r + colour[:, 0], "r": r, "i": r - colour[:, 1], "z": r - colour[:, 1] - colour[:, 2]}
    places = {"ra": rng.uniform(0.0, 360.0, len(label)), "dec": rng.uniform(-10.0, 60.0, len(label))}
    columns = {f"{band}_mag": values for band, values in mags.items()}
    return pa.table({**places, **columns, "redshift": redshift, "label": label})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    path = root / counterpart.TABLE
    path.parent.mkdir()
    pq.write_table(made_table(), path)
    return root


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[counterpart.Report, Path]:
    out = tmp_path_factory.mktemp("models")
    return counterpart.train(folder, out, seed=2, budget=1), out


def test_it_learns_what_can_be_learnt(trained: tuple[counterpart.Report, Path]) -> None:
    report, _ = trained
    assert report.objects == {"star": 52, "galaxy": 64, "qso": 24}
    assert report.balanced["promoted"].value > 0.93 > report.balanced["majority"].value
    assert report.redshift["promoted"]["galaxy"].scatter.value < 0.02
    assert (
        report.redshift["promoted"]["galaxy"].scatter.value
        < report.redshift["median"]["galaxy"].scatter.value
    )
    assert 0.6 < report.redshift["promoted"]["all"].coverage.value <= 1.0
    assert {candidate.kind.name for candidate in report.candidates} == {"lightgbm", "tree"}


def test_training_again_writes_the_same_models(
    trained: tuple[counterpart.Report, Path], folder: Path, tmp_path: Path
) -> None:
    counterpart.train(folder, tmp_path, seed=2, budget=1)
    for path in sorted(trained[1].iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_is_served_takes_pan_starrs_magnitudes(trained: tuple[counterpart.Report, Path]) -> None:
    """A row's answer depends on its own colours only, not on its brightness or its neighbours."""
    models = served.read_counterpart(trained[1], [1, 2, 3, 4], latitude=0)
    galaxy = [17.9 - 0.13, 17.0, 16.55, 16.2]
    faint = [mag + 3.0 for mag in galaxy]
    rows = np.array(
        [[50.0, *galaxy], [50.0, *faint], [50.0, *[np.nan] * 4], [50.0, 17.0, np.nan, 16.5, np.nan]]
    )
    found = models.score(rows)
    assert found.shape == (4, len(served.COUNTERPART_SPECS))
    np.testing.assert_allclose(found[0], found[1])
    assert np.argmax(found[0, :3]) == served.GALAXY
    assert found[0, :3].sum() == pytest.approx(1.0)
    assert found[0, 4] <= found[0, 3] <= found[0, 5]
    assert np.isnan(found[2:]).all(), "no colour of neighbouring bands is known"
    np.testing.assert_array_equal(models.score(rows[:1])[0], found[0])


def test_a_missing_band_leaves_an_answer(trained: tuple[counterpart.Report, Path]) -> None:
    models = served.read_counterpart(trained[1], [0, 1, 2, 3], latitude=4)
    found = models.score(np.array([[np.nan, 17.0, 16.55, 16.2, 60.0]]))
    assert np.isfinite(found[0, :3]).all()


def test_no_answer_behind_dust(trained: tuple[counterpart.Report, Path]) -> None:
    models = served.read_counterpart(trained[1], [0, 1, 2, 3], latitude=4)
    found = models.score(np.array([[17.9, 17.0, 16.55, 16.2, latitude] for latitude in (19.9, 20.0, np.nan)]))
    assert np.isfinite(found[:, 0]).tolist() == [False, True, False]


def test_a_sure_star_has_no_redshift(trained: tuple[counterpart.Report, Path]) -> None:
    models = served.read_counterpart(trained[1])
    (found,) = models.judge(np.array([CENTRE["STAR"]]))
    assert found[served.STAR] > 0.95
    assert np.isnan(found[3:]).all()


def test_to_sdss_is_nothing_to_a_missing_colour_but_the_usual_shift() -> None:
    shifted = served.to_sdss(np.array([[np.nan, 17.0, 16.5, 16.0], [17.6, 17.0, 16.5, 16.0]]))
    np.testing.assert_allclose(shifted[0, 1:], shifted[1, 1:])
    assert np.isnan(shifted[0, 0])
    far = served.to_sdss(np.array([[27.0, 17.0, 16.5, 16.0]]))
    assert abs(far[0, 0] - 27.0) < 0.6, "the polynomial is not followed beyond the stars it was fitted to"


def test_predictions_of_a_folder_without_labels(
    trained: tuple[counterpart.Report, Path], folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / counterpart.TABLE
    path.parent.mkdir()
    pq.write_table(made_table(seed=5).drop_columns(["label", "redshift"]), path)
    table = counterpart.predictions(tmp_path, served.read_counterpart(trained[1]))
    truth = made_table(seed=5)["label"].to_pylist()
    right = [said == label for said, label in zip(table["label_predicted"].to_pylist(), truth, strict=True)]
    assert table["row"].to_pylist() == list(range(len(truth)))
    assert np.mean(right) > 0.9


def test_gaps_take_one_band_away(folder: Path) -> None:
    sample = counterpart.samples(folder)
    more = counterpart.with_gaps(sample, seed=1)
    extra = more.features[len(sample) :]
    assert 0.25 < len(extra) / len(sample) < 0.45
    assert set(np.isnan(extra).sum(axis=1).tolist()) == {1, 2}
    np.testing.assert_array_equal(more.features[: len(sample)], sample.features)


def test_table_by_magnitude() -> None:
    r = np.array([14.0, 14.5, 16.5, 16.6, 16.7])
    truth, said = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1])
    first, _, third, *_ = counterpart.magnitude_table(r, truth, said)
    assert first.objects == {"star": 2, "galaxy": 0, "qso": 0}
    assert first.completeness["star"] == 0.5
    assert first.contamination["galaxy"] == 1.0
    assert np.isnan(first.completeness["qso"])
    assert third.contamination["galaxy"] == pytest.approx(1 / 3)


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="give the folder"):
        counterpart.load(tmp_path)


def test_models_are_text_and_json(trained: tuple[counterpart.Report, Path]) -> None:
    names = {path.name for path in trained[1].iterdir()}
    assert {path.rsplit(".", 1)[1] for path in names} <= {"txt", "json", "onnx", "npz"}
    content = json.loads((trained[1] / served.FILE).read_text())
    assert sum(content["shares"]) == pytest.approx(1.0)


def test_the_table_against_an_independent_reading(folder: Path) -> None:
    """The real table where it is, else the made one."""
    shared = shared_data()
    root = folder if shared is None else shared / "labelled"
    rows = pq.read_table(root / counterpart.TABLE).to_pylist()
    sample = counterpart.samples(root)
    for name in served.CLASSES:
        assert (sample.label == name).sum() == sum(row["label"].lower() == name for row in rows)
    one = rows[17]
    expected = [one["g_mag"] - one["r_mag"], one["r_mag"] - one["i_mag"], one["i_mag"] - one["z_mag"]]
    np.testing.assert_allclose(sample.features[17], expected)
    assert sample.object[17] == str(one.get("__index_level_0__", 17))
