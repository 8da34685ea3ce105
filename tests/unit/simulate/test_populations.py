"""Rates, luminosities and light curves of explosions, and what stays for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.simulate.lasting import (
    LASTING,
    REGULAR,
    damped_walk,
    lensed_star,
    watch_lasting,
)
from broker.simulate.like import Like, read_like
from broker.simulate.populations import POPULATIONS, Population, expected_mix, magnitude_limited
from broker.simulate.supernovae import NOT_YET
from broker.simulate.watched import watch
from tests.unit.simulate.histories import write_histories


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> Like:
    return read_like(write_histories(tmp_path_factory.mktemp("histories")))


def one(label: str) -> Population:
    return next(population for population in POPULATIONS if population.label == label)


def test_a_magnitude_limited_sample_grows_as_the_volume_it_reaches() -> None:
    near, far = (magnitude_limited(one("SNIa"), m, 0, np.random.default_rng(1))[1] for m in (16.0, 17.0))
    # 10^0.6 a magnitude in flat space; curvature and the slowed clock take a little
    assert 3.3 < far / near < 4.1


def test_objects_of_a_sample_are_bright_enough_and_as_many_as_asked() -> None:
    p, yearly = magnitude_limited(one("SLSN"), 19.0, 50, np.random.default_rng(2))
    assert {len(values) for values in p.values()} == {50}
    assert (p["mag_r"] < 19.0).all()
    assert (p["redshift"] > 0.0).all()
    assert yearly > 0.0


def test_a_sample_of_the_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="no SNIa is brighter than"):
        magnitude_limited(one("SNIa"), 0.0, 1, np.random.default_rng(1))


def test_the_mix_is_that_of_a_bright_survey() -> None:
    """Fremling et al. 2020 (ApJ 895, 32) find 72 % SN Ia and 1.3 % SLSN among 761 brighter than 19."""
    mix = expected_mix(18.5, 1)
    assert sum(mix.values()) == pytest.approx(1.0)
    assert 0.62 < mix["SNIa"] < 0.78
    assert 0.12 < mix["SNII"] < 0.25
    assert mix["SLSN"] < 0.04
    assert mix["TDE"] < 0.02


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda p: p.label)
def test_a_light_curve_rises_to_its_peak_and_fades(population: Population) -> None:
    columns = population.draw(np.random.default_rng(3), 20)
    days = np.array([-120.0, -3.0, 0.0, 60.0, 300.0])
    for row in range(20):
        p = {name: float(values[row]) for name, values in columns.items()}
        for band in "gr":
            before, rising, peak, late, gone = population.fading(days, band, p)
            assert np.isfinite([before, rising, peak, late, gone]).all()
            assert abs(peak) < 0.3
            assert late > peak - 0.5
            assert gone > 1.0
            assert before > 1.0
            assert before <= 10.0 * NOT_YET
            assert rising > -0.3


def test_a_type_ia_fades_by_about_a_magnitude_in_fifteen_days_in_g() -> None:
    """Phillips' decline rate in B is 1.1 mag on average; g, redder, fades a little less."""
    population = one("SNIa")
    p = {name: float(np.median(v)) for name, v in population.draw(np.random.default_rng(1), 500).items()}
    assert population.fading(np.array([15.0]), "g", p)[0] == pytest.approx(1.0, abs=0.15)


def test_what_is_watched_is_detected_and_the_same_again(like: Like) -> None:
    first, again = (watch(like, {"SNIa": 30, "TDE": 5}, 4) for _ in range(2))
    assert first.time.tolist() == again.time.tolist()
    assert first.label.tolist() == ["SNIa"] * 30 + ["TDE"] * 5
    assert (np.abs(first.flux) > 5.0 * like.sky_err.min()).all()
    assert np.diff(first.starts).min() >= 0
    assert first.starts[-1] == len(first.time)
    for begin, end in zip(first.starts[:-1], first.starts[1:], strict=True):
        assert (np.diff(first.time[begin:end]) > 0).all()


def test_brightest_near_the_true_peak(like: Like) -> None:
    seen = watch(like, {"SNIa": 60}, 6, faintest=18.0)
    away = []
    for k in np.flatnonzero(np.diff(seen.starts) > 20):
        own = slice(seen.starts[k], seen.starts[k + 1])
        if seen.time[own][0] < seen.peak[k] - 8.0 and seen.time[own][-1] > seen.peak[k] + 8.0:
            away.append(seen.time[own][seen.flux[own].argmax()] - seen.peak[k])
    assert len(away) > 10
    assert np.abs(np.median(away)) < 3.0


def test_a_damped_walk_has_the_spread_and_memory_asked_for() -> None:
    time = np.arange(0.0, 4000.0, 2.0)
    walks = np.array([damped_walk(time, 20.0, 0.3, seed) for seed in range(40)])
    assert np.std(walks) == pytest.approx(0.3, rel=0.1)
    lag = np.mean(walks[:, 10:] * walks[:, :-10]) / np.mean(walks**2)
    assert lag == pytest.approx(np.exp(-1.0), abs=0.08)


def test_a_lens_magnifies_the_same_before_and_after_and_blending_dilutes_it() -> None:
    p = {"u0": 0.1, "t0": 100.0, "t_e": 20.0, "share_g": 0.5, "share_r": 1.0}
    before, peak, after = lensed_star(np.array([90.0, 100.0, 110.0]), "r", p)
    assert before == pytest.approx(after)
    assert peak == pytest.approx(10.04, abs=0.01)
    assert lensed_star(np.array([100.0]), "g", p)[0] == pytest.approx(1.0 + 0.5 * (peak - 1.0))


def test_what_lasts_is_seen_above_and_below_its_template(like: Like) -> None:
    seen = watch_lasting(like, {"AGN": 20, REGULAR: 20, "Microlensing": 8}, 5)
    assert {str(label) for label in seen.label} == {"AGN", REGULAR, "Microlensing"}
    assert np.diff(seen.starts).min() >= 1
    assert (seen.flux < 0.0).any()
    assert (seen.flux > 0.0).any()
    assert {kind.label for kind in LASTING} == {"AGN", "YSO", "CV", "MDwarfFlare", "Microlensing", REGULAR}


def test_the_folder_is_read_and_not_written(tmp_path: Path) -> None:
    folder = write_histories(tmp_path)
    read_like(folder)
    assert {path.name for path in folder.iterdir()} == {"photometry.parquet", "labels.parquet"}
