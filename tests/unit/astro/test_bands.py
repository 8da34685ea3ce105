"""Bands by their aliases."""

from __future__ import annotations

import pytest

from broker.astro.bands import BANDS, NO_BAND, PASSBANDS, ZTF_FID_BAND, band_index


def test_an_index_never_changes() -> None:
    """Stored light curves hold it: what is here may only be added to."""
    stored = ("u", "g", "r", "i", "z", "y", "J", "H", "c", "o")
    assert BANDS[: len(stored)] == stored
    assert len(BANDS) < NO_BAND


def test_each_band_is_its_own_index() -> None:
    assert [band_index(name) for name in BANDS] == list(range(len(BANDS)))


def test_bands_lie_in_order_of_wavelength() -> None:
    names = [passband.name for passband in sorted(PASSBANDS, key=lambda one: one.wavelength_nm)]
    assert names == ["u", "g", "c", "r", "o", "i", "z", "y", "J", "H"]


@pytest.mark.parametrize(
    ("name", "index"),
    [("Y", 5), ("G", 1), (None, NO_BAND), ("", NO_BAND), ("J", 6), ("j", NO_BAND), ("w", NO_BAND)],
)
def test_other_spellings_and_unknown_ones(name: str | None, index: int) -> None:
    assert band_index(name) == index


def test_ztf_filters() -> None:
    assert [band_index(ZTF_FID_BAND[fid]) for fid in (1, 2, 3)] == [1, 2, 3]
