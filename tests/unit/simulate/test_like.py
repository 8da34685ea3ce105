"""Observing like real histories: what is read off them is what was put in."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from broker.astro.photometry import njy_err_to_limit
from broker.errors import BrokerError
from broker.simulate.cadence import ZTF
from broker.simulate.like import Like, detected, found_share, read_like, repeatability
from broker.simulate.stream import simulate_ztf, write_folder
from tests.unit.simulate.histories import FOUND, HONESTY, HOUR, LIMIT, NIGHTS, write_histories


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> Like:
    return read_like(write_histories(tmp_path_factory.mktemp("histories")))


def test_depth_and_rhythm_are_those_of_the_histories(like: Like) -> None:
    assert njy_err_to_limit(like.sky_err) == pytest.approx(LIMIT)
    assert np.diff(like.starts).tolist() == [2 * NIGHTS] * 40
    # the times are mid-exposure in TAI: about a minute later than the starts in UTC
    assert like.day % 2.0 == pytest.approx(np.where(like.band == 0, HOUR, HOUR + 0.02), abs=2e-3)


def test_errors_scatter_and_losses_are_those_of_the_histories(like: Like) -> None:
    assert [relation.honesty for relation in like.noise] == pytest.approx([HONESTY] * 2, rel=0.2)
    assert like.found == pytest.approx(FOUND, abs=0.05)
    flux = np.full(4000, 20.0 * like.sky_err[0])
    rng = np.random.default_rng(1)
    measured, err = like.measure(flux, np.zeros(4000, dtype=int), np.full(4000, like.sky_err[0]), 0.0, rng)
    assert np.median(err) == pytest.approx(2.0 * like.sky_err[0], rel=0.02)
    assert np.std(measured) == pytest.approx(like.noise[0].honesty * np.median(err), rel=0.05)


def test_a_place_has_errors_of_its_own(like: Like) -> None:
    relation = like.noise[0]
    spread = type(relation)(relation.flux, relation.err, 0.2, 0.0, relation.honesty)
    flux, sky = np.full(3, 1e4), np.full(3, 100.0)
    dark, bright = (spread.draw(flux, sky, place, np.random.default_rng(1)) for place in (0.0, 1.0))
    assert bright / dark == pytest.approx(10.0**0.2)


def test_a_schedule_strings_histories_together_in_order_of_time(like: Like) -> None:
    day, band, sky_err = like.schedule(200.0, np.random.default_rng(2))
    assert (np.diff(day) > 0).all()
    assert day[0] >= 0.0
    assert day[-1] < 200.0
    assert len(day) == len(band) == len(sky_err) > 150
    # all at the one hour of the night that there is
    assert np.ptp((day - day[0] + 0.5) % 1.0) < 0.05


def test_histories_before_a_time_are_kept_alone(like: Like) -> None:
    later = Like(
        like.day, like.band, like.sky_err, like.starts, np.arange(40.0), like.noise, like.found
    )  # fmt: skip
    early = later.before(10.0)
    assert early.began.tolist() == list(range(10))
    assert len(early.day) == early.starts[-1] == 20 * NIGHTS


def test_too_few_histories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="holds 3 histories of source"):
        read_like(write_histories(tmp_path, objects=3))


def test_few_detections_say_nothing_of_errors_and_losses() -> None:
    few = np.arange(5.0)
    assert repeatability(np.zeros(5, dtype=int), few, few, few + 1.0) == 1.0
    assert found_share(np.zeros(5, dtype=int), few, few, few + 1.0) == 1.0


def test_an_alert_is_beyond_five_sigma_of_the_sky_of_either_sign() -> None:
    assert detected(np.array([5.1, -5.1, 4.9]), np.ones(3)).tolist() == [True, True, False]


def test_packets_come_with_the_cadence_and_depth_of_the_histories(like: Like) -> None:
    alerts = list(islice(simulate_ztf(60, 3, like=like), 60))
    again = list(islice(simulate_ztf(60, 3, like=like), 60))
    assert [a.value for a in alerts] == [a.value for a in again]
    hours = {round(alert.midpoint_mjd_tai % 1.0, 1) for alert in alerts}
    assert hours == {0.3}
    assert ZTF.like is None


def test_forced_points_reach_less_far_back_than_detections(like: Like) -> None:
    fastavro = pytest.importorskip("fastavro")
    import io  # noqa: PLC0415

    records = [next(fastavro.reader(io.BytesIO(a.value))) for a in simulate_ztf(40, 4, like=like)]
    now = [record["candidate"]["jd"] for record in records]
    oldest = [min(p["jd"] for p in record["prv_candidates"]) for record in records]
    forced = [min(p["jd"] for p in record["fp_hists"]) for record in records]
    assert max(t - f for t, f in zip(now, forced, strict=True)) <= 18.0
    assert max(t - o for t, o in zip(now, oldest, strict=True)) > 20.0


def test_only_ztf_can_be_observed_like_real_histories(like: Like, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="ztf only"):
        write_folder(tmp_path / "new", 5, 1, survey="lsst", like=like)
