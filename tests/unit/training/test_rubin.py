"""The bundle of Rubin's alerts, and the questions about place, time and labels that were not taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from labelled import write_folder
from made_task import INPUTS, made_sample

from broker.context import CONTEXT_NAMES
from broker.errors import BrokerError
from broker.features.catalog import FEATURES
from broker.scores.catalog import SCORE_SPECS, load_scorer
from broker.training import rubin
from broker.training.contenders import model_of, rivals
from broker.training.controls import by_folds
from broker.training.kinds import KINDS
from broker.training.questions import later_time, one_against_rest, other_sky, sky_cells
from broker.training.sample import Sample
from broker.training.tasks import family
from broker.training.train import Report, train

BOOSTED = model_of("stage", KINDS[0], {"trees": 40, "num_leaves": 4, "min_data_in_leaf": 10}, INPUTS, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    return write_folder(folder, {"SNII": 24, "AGN": 24}, rubin={"AGN": 6, None: 3})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return train(data, tmp_path_factory.mktemp("out"), [family.TASK], seed=3, budget=1)


def test_rubin_has_a_bundle_of_its_own_that_can_be_served(run: Report) -> None:
    assert run.other is not None
    names = [feature.name for feature in FEATURES]
    scorer = load_scorer(run.other.bundle, feature_names=names, context_names=CONTEXT_NAMES)
    assert (scorer.manifest.survey, scorer.id) == ("lsst", "lsst")
    scores = scorer.score(np.full((2, len(names)), np.nan), np.full((2, len(CONTEXT_NAMES)), np.nan))
    column = {spec.name: place for place, spec in enumerate(SCORE_SPECS)}
    assert np.isfinite(
        scores[:, [column[name] for name in ("prob_family_stochastic", "anomaly", "novelty")]]
    ).all()
    assert set(scorer.manifest.stages[0].inputs) == set(rubin.INPUTS)


def test_its_page_and_its_card_make_no_claim(run: Report) -> None:
    assert run.other is not None
    page, card = run.other.page.read_text(), (run.other.bundle / "card.md").read_text()
    assert "lsst: unvalidated" in card
    assert "| 6 | " in page.split("### AGN, and why")[1]
    assert "The anomaly score knows 9 objects of lsst" in card
    assert "| stochastic | 6 |" in page


def test_its_strange_and_usual_are_its_own(data: Path) -> None:
    seen = rubin.windows(data, np.random.default_rng(1))
    assert set(seen.source.tolist()) == {"lsst_real"}
    assert len(seen) == 9 * 6
    assert len(np.unique(seen.group)) == 9


def test_all_wants_rubin_too(data: Path, tmp_path: Path) -> None:
    bare = write_folder(tmp_path, {"SNII": 20, "AGN": 20})
    with pytest.raises(BrokerError, match="lsst: no light curve"):
        train(bare, tmp_path / "out", [family.TASK], seed=3, budget=1, every=True)


def test_the_parts_of_the_sky_are_of_one_size() -> None:
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(-360.0, 360.0, 200_000), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 200_000)))
    cells, counts = np.unique(sky_cells(ra, dec), return_counts=True)
    assert len(cells) == 18 * 36
    assert counts.std() < 1.2 * np.sqrt(counts.mean())
    assert sky_cells(np.array([0.0, 360.0]), np.array([90.0, 90.0])).tolist() == ["17/0", "17/0"]


def test_what_holds_in_one_part_of_the_sky_only_is_found_out(data: Path) -> None:
    """A feature that tells the class, but the other way about in every part of the sky."""
    sample = made_sample({"a": 60, "b": 60}, "color_gr")
    cell = np.repeat(np.arange(6), 2)[np.unique(sample.group, return_inverse=True)[1] % 12]
    turned = sample.features.copy()
    column = sample.names.index("color_gr")
    turned[:, column] = np.where(cell % 2 == 0, turned[:, column], 3.0 - turned[:, column])
    turned[:, sample.names.index("age_days")] = cell
    odd = Sample(sample.names, turned, *(getattr(sample, name) for name in list(vars(sample))[2:]))
    by_object = by_folds("", odd, ["a", "b"], np.arange(len(odd)) // 2 % 5, [BOOSTED], 1)[0]
    by_cell = by_folds("", odd, ["a", "b"], cell, [BOOSTED], 1)[0]
    assert by_object.balanced_accuracy.value > by_cell.balanced_accuracy.value + 0.15


def test_time_and_sky_are_held_out_on_labelled_light_curves(data: Path, tmp_path: Path) -> None:
    points = pq.read_table(data / "photometry.parquet")
    good = pc.less(pc.fill_null(points["magerr"], 0.0), 0.3)  # limits and faint points are all of one night
    points = points.filter(pc.and_(good, pc.invert(points["upperlimit"])))
    pq.write_table(points, tmp_path / "photometry.parquet")
    (tmp_path / "labels.parquet").write_bytes((data / "labels.parquet").read_bytes())
    data, sample = tmp_path, family.samples(tmp_path)
    contenders = [
        model_of("stage", KINDS[0], {"trees": 20, "min_data_in_leaf": 5}, ("amplitude", "slope"), 1)
    ]
    (later, *_) = later_time(sample, data, (family.STREAM_SOURCE,), contenders, 1)
    assert later.question == "a later time"
    assert 20 <= sum(later.answers.values()) <= 24  # half of the objects
    assert later_time(sample, data, (), contenders, 1) == []
    assert other_sky(sample, data, contenders, 1) == []  # no places are known of these


def test_simple_models_answer_the_same_question() -> None:
    sample = made_sample({"a": 60, "b": 60}, "color_gr")
    many = (*INPUTS, "fit_rise_days", "fit_fall_days", "slope_g", "slope_r", "skew_r", "amplitude_r")
    contenders = [BOOSTED, *rivals(many, ("fit_rise_days",), 1)]
    (every, *_) = by_folds("", sample, ["a", "b"], np.arange(len(sample)) // 2 % 5, contenders, 1)
    assert set(every.others) == {"LightGBM on 10 features", "parametric fit"}
    assert every.balanced_accuracy.value > every.others["parametric fit"].value


def test_one_class_against_the_rest() -> None:
    sample = one_against_rest(made_sample({"a": 2, "b": 2, "c": 2}, "color_gr"), "b")
    assert np.unique(sample.label).tolist() == ["b", "rest"]
    assert (sample.label == "b").sum() == 4
