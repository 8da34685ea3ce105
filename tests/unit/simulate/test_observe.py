"""Cadence, noise and who is detected."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from broker.astro.photometry import LIMIT_SIGMA
from broker.astro.times import jd_utc_start_to_mjd_tai
from broker.simulate.cadence import LSST, ZTF, Exposure, Survey, exposures
from broker.simulate.observe import Detection, detections, measure

START = 61000.0


def first_exposures(survey: Survey, n: int) -> list[Exposure]:
    return list(itertools.islice(exposures(survey, START, np.random.default_rng(3)), n))


@pytest.fixture(scope="module")
def found() -> list[Detection]:
    return list(detections(ZTF, 1000, 11, START))


@pytest.mark.parametrize("survey", [ZTF, LSST], ids=lambda survey: survey.name)
def test_exposures_are_in_order_and_in_pairs(survey: Survey) -> None:
    seen = first_exposures(survey, 200)
    times = [e.midpoint_mjd_tai for e in seen]
    assert times == sorted(times)
    assert times[0] >= START
    assert [e.number for e in seen] == list(range(200))
    gaps = np.diff(times)
    assert 2.0 < np.mean(gaps[gaps > 0.5]) < 4.5
    assert gaps.max() > 3.5  # bad weather
    for e in seen:
        expected = jd_utc_start_to_mjd_tai(np.asarray(e.jd_utc_start), e.exposure_time_s)
        assert e.midpoint_mjd_tai == float(expected)


def test_ztf_depths_are_ztf_like() -> None:
    seen = first_exposures(ZTF, 400)
    limits = np.array([e.limit_mag for e in seen])
    assert 19.0 < limits.min() < 19.8
    assert 20.8 < limits.max() < 21.5
    assert 19.5 < np.median(limits) < 20.9
    assert {e.band for e in seen} == {"g", "r"}


def test_lsst_uses_all_bands() -> None:
    assert {e.band for e in first_exposures(LSST, 40)} == set("ugrizy")


def test_noise_is_what_the_error_says(found: list[Detection]) -> None:
    """Residuals of many fresh measurements, in units of their error, are standard normal."""
    rng, residuals = np.random.default_rng(5), []
    for detection in found[:300]:
        again = measure(detection.sky_object, detection.now.exposure, ZTF, rng)
        if again is not None:
            exposure = again.exposure
            truth = detection.sky_object.difference_flux(exposure.midpoint_mjd_tai, exposure.band)
            residuals.append((again.flux - float(truth)) / again.flux_err)
    assert np.mean(residuals) == pytest.approx(0.0, abs=0.2)
    assert np.std(residuals) == pytest.approx(1.0, abs=0.15)


def test_only_five_sigma_makes_an_alert(found: list[Detection]) -> None:
    for detection in found:
        assert abs(detection.now.flux) > LIMIT_SIGMA * detection.now.flux_err
        for m in detection.past:
            assert not m.detected or abs(m.flux) > LIMIT_SIGMA * m.flux_err


def test_past_is_earlier_in_order_and_within_the_window(found: list[Detection]) -> None:
    for detection in found:
        now = detection.now.exposure.midpoint_mjd_tai
        times = [m.exposure.midpoint_mjd_tai for m in detection.past]
        assert times == sorted(times)
        assert all(now - ZTF.history_days <= t < now for t in times)
    assert np.mean([len(d.past) for d in found]) > 8


def test_positions_scatter_by_tenths_of_an_arcsecond(found: list[Detection]) -> None:
    offsets = []
    for detection in found:
        if not detection.sky_object.is_artefact:
            ra, dec = detection.sky_object.position(detection.now.exposure.midpoint_mjd_tai)
            shrink = math.cos(math.radians(dec))
            offsets.append(3600.0 * math.hypot((detection.now.ra - ra) * shrink, detection.now.dec - dec))
    assert 0.03 < np.median(offsets) < 0.3
    assert max(offsets) < 2.0


def test_an_object_keeps_its_number_and_an_asteroid_does_not(found: list[Detection]) -> None:
    numbers: dict[int, set[int]] = {}
    for detection in found:
        numbers.setdefault(detection.sky_object.serial, set()).add(detection.object_number)
    moving = {d.sky_object.serial for d in found if d.sky_object.moves}
    assert all(len(own) == 1 for serial, own in numbers.items() if serial not in moving)
    assert any(len(numbers[serial]) > 1 for serial in moving)


def test_objects_that_end_are_replaced() -> None:
    many = list(detections(ZTF, 3000, 2, START))
    one_offs = {d.sky_object.serial for d in many if d.sky_object.is_artefact}
    assert len(one_offs) > 200


@pytest.mark.parametrize(("n", "seed"), [(-1, 0), (1, -1)])
def test_negative_arguments_are_refused(n: int, seed: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        next(detections(ZTF, n, seed, START))
