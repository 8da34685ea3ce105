"""The trend of g and r together against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from broker.features.rise_and_decline import COLOUR_SPREAD, joint_slope


def columns(time: np.ndarray, mag: np.ndarray, err: np.ndarray, in_g: np.ndarray) -> np.ndarray:
    order = np.concatenate([np.flatnonzero(in_g), np.flatnonzero(~in_g)])
    starts = np.array([0, in_g.sum(), len(time)], dtype=np.int64)
    return joint_slope(time[order], mag[order], err[order], starts)[0]


def test_against_numpy() -> None:
    rng = np.random.default_rng(4)
    time = np.sort(rng.uniform(-20.0, 0.0, 15))
    mag, err = 19.0 + 0.05 * time + rng.normal(0.0, 0.1, 15), rng.uniform(0.02, 0.2, 15)
    slope, nights = columns(time, mag, err, rng.random(15) < 0.5)
    weight = 1.0 / (err**2 + COLOUR_SPREAD**2)
    assert slope == pytest.approx(np.polyfit(time, mag, 1, w=np.sqrt(weight))[0], rel=1e-9)
    first, last = time < time[0] + 0.5, time > time[-1] - 0.5
    change = np.average(mag[last], weights=weight[last]) - np.average(mag[first], weights=weight[first])
    span = np.average(time[last], weights=weight[last]) - np.average(time[first], weights=weight[first])
    assert nights == pytest.approx(change / span, rel=1e-9)


def test_known_where_no_band_has_two_nights() -> None:
    found = columns(np.array([-3.0, 0.0]), np.array([19.0, 18.4]), np.full(2, 0.1), np.array([True, False]))
    assert found.tolist() == pytest.approx([-0.2, -0.2])


@pytest.mark.parametrize("time", [[-0.9, -0.5, 0.0], [0.0, 0.0, 0.0]])
def test_one_night_is_no_trend(time: list[float]) -> None:
    found = columns(
        np.array(time), np.array([19.0, 18.0, 17.0]), np.full(3, 0.1), np.array([True, False, True])
    )
    assert np.isnan(found).all()
