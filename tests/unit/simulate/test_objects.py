"""Light curves of the kinds: finite, of the right sign, and doing what the class does."""

from __future__ import annotations

import numpy as np
import pytest

from broker.simulate import objects
from broker.simulate.objects import BLUE_BANDS, COLOUR_STEP, KINDS, Kind, make_object

FOOTPRINT = (100.0, 30.0, 7.0)
KIND_BY_LABEL = {kind.label: kind for kind in KINDS}


def some(kind: Kind, n: int = 30) -> list[objects.SkyObject]:
    rng = np.random.default_rng(7)
    return [make_object(rng, kind, k, 61000.0, FOOTPRINT) for k in range(n)]


def test_shares_are_whole() -> None:
    assert sum(kind.per_mille for kind in KINDS) == 1000
    assert len(KIND_BY_LABEL) == 13


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_light_is_finite_at_any_time_in_any_band(kind: Kind) -> None:
    mjd = np.concatenate([np.linspace(60000.0, 62000.0, 4001), [0.0, 1e6]])
    for one in some(kind, 5):
        for band in COLOUR_STEP:
            flux = one.difference_flux(mjd, band)
            assert flux.shape == mjd.shape
            assert np.isfinite(flux).all()
            if not one.is_artefact:
                assert (one.reference_flux(band) + flux >= 0.0).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_one_time_and_many_times_agree(kind: Kind) -> None:
    mjd = np.linspace(61000.0, 61050.0, 23)
    for one in some(kind, 3):
        together = one.difference_flux(mjd, "g")
        single = [float(one.difference_flux(float(t), "g")) for t in mjd]
        assert together == pytest.approx(single, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("label", ["SNIa", "SNII", "SLSN", "TDE"])
def test_transients_rise_peak_and_fade(label: str) -> None:
    for one in some(KIND_BY_LABEL[label]):
        mjd = np.linspace(one.begins, one.ends, 2000)
        flux = one.difference_flux(mjd, "r") / one.level["r"]
        assert (flux >= 0.0).all()
        assert 0.75 < flux.max() < 1.05
        assert flux[0] < 0.06
        assert flux[-1] < 0.75
        assert one.difference_flux(one.begins - 200.0, "r") < 0.01 * one.level["r"]


def test_pulse_has_its_peak_of_one_at_zero() -> None:
    days = np.linspace(-60.0, 200.0, 260001)
    flux = objects.pulse(days, 3.6, 17.0)
    assert flux.max() == pytest.approx(1.0, abs=1e-9)
    assert days[flux.argmax()] == pytest.approx(0.0, abs=2e-3)


def test_sn_ia_redder_bands_fade_later() -> None:
    p = {"t0": 0.0, "stretch": 1.0}
    assert objects.sn_ia(np.array([25.0]), "r", p) > 1.3 * objects.sn_ia(np.array([25.0]), "g", p)


@pytest.mark.parametrize("label", ["RRLyrae", "CEP", "EB"])
def test_periodic_stars_repeat(label: str) -> None:
    for one in some(KIND_BY_LABEL[label], 10):
        mjd = np.linspace(61000.0, 61001.0, 50)
        later = mjd + 7 * one.p["period"]
        assert one.source_flux(later, "g") == pytest.approx(one.source_flux(mjd, "g"), rel=2e-3)


def test_eclipses_only_dim() -> None:
    for one in some(KIND_BY_LABEL["EB"]):
        flux = one.difference_flux(np.linspace(61000.0, 61020.0, 3000), "r")
        assert flux.max() <= 0.0
        assert flux.min() < -0.15 * one.level["r"]


def test_flares_and_outbursts_only_brighten() -> None:
    for label in ("MDwarfFlare", "CV"):
        for one in some(KIND_BY_LABEL[label]):
            flux = one.difference_flux(np.linspace(61000.0, 61100.0, 20001), "g")
            assert flux.min() >= 0.0
            assert flux.max() > one.level["g"]


def test_asteroids_move_and_stars_do_not() -> None:
    mover, star = some(KIND_BY_LABEL["SSO"])[0], some(KIND_BY_LABEL["RRLyrae"])[0]
    assert mover.moves
    assert mover.position(mover.p["t0"]) == (mover.ra, mover.dec)
    step = np.hypot(*(np.subtract(mover.position(mover.p["t0"] + 1.0), (mover.ra, mover.dec))))
    assert 0.03 < step < 0.5
    assert not star.moves
    assert star.position(61000.0) == star.position(62000.0)


def test_artefacts_come_with_either_sign_and_go() -> None:
    mjd = np.arange(61000.0, 61400.0, 0.7)
    flux = np.concatenate([one.difference_flux(mjd, "r") for kind in KINDS[-2:] for one in some(kind)])
    assert 0.2 < np.mean(flux != 0.0) < 0.7
    assert 0.2 < np.mean(flux[flux != 0.0] < 0.0) < 0.5


def test_colour_orders_the_bands() -> None:
    assert set(BLUE_BANDS) < set(COLOUR_STEP)
    red = some(KIND_BY_LABEL["LPV"])[0]
    assert red.level["g"] < red.level["r"] < red.level["i"] < red.level["z"]
