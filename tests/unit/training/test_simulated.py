"""Simulated objects as rows to learn from; whether they look real; whether they teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.simulate.like import Like, read_like
from broker.training import simulation_report
from broker.training.explosions import STREAM_SNR, Explosions
from broker.training.realism import alone, area, realism, same_density, well_observed
from broker.training.sample import Sample
from broker.training.simulated import SOURCE, simulated_lasting, simulated_like, taught_states
from broker.training.simulation_report import observed_mix
from broker.training.tasks import rare, transient
from broker.training.teachers import TEACHERS, compare
from tests.data import shared_data
from tests.unit.simulate.histories import write_histories


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> Like:
    return read_like(write_histories(tmp_path_factory.mktemp("histories")))


@pytest.fixture(scope="module")
def made(like: Like) -> Explosions:
    return simulated_like(like, {"SNIa": 60, "SNII": 20}, 3, 19.0)


def test_simulated_objects_are_as_the_real_ones_are_read(made: Explosions) -> None:
    assert (np.abs(made.flux) >= STREAM_SNR * made.err).all()
    assert set(made.source.tolist()) == {SOURCE}
    assert len(set(made.group.tolist())) == len(made) == 80
    assert made.starts[-1] == len(made.time)


def test_states_to_learn_from_are_windows_of_a_packet(made: Explosions) -> None:
    states = taught_states(made, 5, (5,), 1)
    assert (states.n_detections >= 5).all()
    assert states.age_days[: len(states) // 2].max() <= 30.0
    assert np.isfinite(states.columns(transient.INPUTS)).any(axis=0).sum() > 25


def test_rare_classes_are_all_taught_and_only_labelled_ones_judged(tmp_path: Path) -> None:
    folder = write_histories(tmp_path)
    sample = rare.samples(folder)
    assert {str(label) for label in np.unique(sample.label)} == set(rare.CLASSES)
    assert len(rare.judged(folder)) == 0  # all of the invented objects are supernovae
    assert len(rare.last_states(folder)) == 40
    assert rare.TASK.inputs == rare.INPUTS


def test_what_lasts_comes_in_the_same_form(like: Like) -> None:
    lasting = simulated_lasting(like, {"AGN": 12}, 2)
    assert set(lasting.label.tolist()) == {"AGN"}
    assert np.isnan(lasting.redshift).all()


def test_well_observed_objects_have_a_bright_covered_peak(made: Explosions) -> None:
    kept = well_observed(made)
    assert 0 < len(kept) < len(made)
    cut = replace(made, flux=made.flux * 1e-2)
    assert len(well_observed(cut)) < len(kept)


def test_density_is_matched_object_for_object(made: Explosions) -> None:
    kept = well_observed(made)
    ours, theirs = same_density(made, kept, made, kept, np.random.default_rng(1))
    assert sorted(ours.tolist()) == sorted(theirs.tolist()) == sorted(kept.tolist())


def test_area_under_the_curve_knows_perfect_and_chance() -> None:
    truth = np.repeat([0, 1], 50)
    group = np.arange(100).astype(np.str_)
    rng = np.random.default_rng(1)
    assert area(truth.astype(float), truth, group, rng).low == 1.0
    chance = area(np.tile(np.arange(50.0), 2), truth, group, rng)
    assert chance.low < chance.value < chance.high
    assert chance.value == 0.5
    assert alone(np.where(truth == 1, 1.0, np.nan), truth) == 0.5


def toy(names: str, source: str, shift: float, seed: int) -> Sample:
    """Two classes that one feature tells apart, if `shift` is not 0."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["SNIa", "SNII"], 60)
    x = np.where(label == "SNIa", shift, -shift)[:, np.newaxis] + rng.normal(0.0, 1.0, (120, 1))
    own = np.array([f"{names}{k}" for k in range(120)])
    ones = np.ones(120, dtype=np.int64)
    return Sample(("x",), x, label, np.full(120, source), own, own, ones, ones, ones, ones * 1.0)


def test_each_teacher_is_judged_on_real_objects() -> None:
    """A simulation with the classes swapped misleads; real objects do not."""
    real, wrong = toy("r", "real", 2.0, 1), toy("m", SOURCE, -2.0, 2)
    found = compare("toy", "real", wrong, real, real, ("SNIa", "SNII"), ("x",), 1)
    assert found.objects == {"SNIa": 60, "SNII": 60}
    assert found.balanced[TEACHERS[0]].value < 0.1
    assert found.balanced[TEACHERS[1]].value > 0.9
    assert found.areas[TEACHERS[1]]["SNIa"].low > 0.9


def test_a_model_never_saw_the_object_that_it_judges() -> None:
    """Without a difference between the classes, having seen an object would be all there is to know."""
    real, made = toy("r", "real", 0.0, 3), toy("m", SOURCE, 0.0, 4)
    twice = replace(real, features=np.round(real.features, 9))
    found = compare("toy", "real", made, twice, real, ("SNIa", "SNII"), ("x",), 1)
    assert found.balanced[TEACHERS[1]].value < 0.65


def test_the_observed_mix_counts_each_object_once_and_leaves_the_doubtful_out(tmp_path: Path) -> None:
    rows = [("a", "SN Ia", 18.0), ("a", "SN Ia", 18.0), ("b", "SN II", 17.0), ("c", "SN Ia?", 17.0)]
    rows += [("d", "SN Ic-BL", 18.1), ("e", "SN Ia", 18.9), ("f", "SN Ia-91T", 16.0)]
    table = pa.Table.from_pylist(
        [{"object": o, "label": t, "peakmag": m, "list": "hse_bts_2021"} for o, t, m in rows]
    )
    pq.write_table(table, tmp_path / "lists.parquet")
    ((name, count, mix),) = observed_mix(tmp_path / "lists.parquet")
    assert (name, count) == ("hse_bts_2021", 4)
    assert mix["SNIa"] == 0.5
    assert mix["SNIbc"] == 0.25


@pytest.mark.skipif(shared_data() is None, reason="needs the real light curves")
def test_simulated_supernovae_are_hard_to_tell_from_real_ones_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data()
    assert folder is not None
    data = folder / "labelled"
    against = realism(data, transient.INPUTS, 1)
    assert 0.55 < against.matched.value < 0.78
    assert against.matched.value <= against.unmatched.value
    compared = compare(
        "toy", "real", toy("m", SOURCE, 1.0, 1), toy("r", "real", 1.0, 2), toy("r", "real", 1.0, 2),
        ("SNIa", "SNII"), ("x",), 1,
    )  # fmt: skip
    monkeypatch.setattr(simulation_report, "realism", lambda *_: against)
    for name in ("supernovae", "families"):
        monkeypatch.setattr(simulation_report, name, lambda *_: [compared])
    monkeypatch.setattr(simulation_report, "rare_classes", lambda *_: [])
    text = simulation_report.simulation_report(data, tmp_path, 1)
    assert text == (tmp_path / "simulation.md").read_text()
    assert (tmp_path / "simulation.png").stat().st_size > 10_000
    for guilty in against.guilty[:3]:
        assert f"`{guilty.name}`" in text
    assert str(against.matched) in text
