"""Bands by their aliases."""

from __future__ import annotations

import pytest

from broker.astro.bands import BANDS, NO_BAND, ZTF_FID_BAND, band_index


def test_each_band_is_its_own_index() -> None:
    assert [band_index(name) for name in BANDS] == list(range(6))


@pytest.mark.parametrize(
    ("name", "index"), [("Y", 5), ("G", 1), (None, NO_BAND), ("", NO_BAND), ("J", NO_BAND)]
)
def test_other_spellings_and_unknown_ones(name: str | None, index: int) -> None:
    assert band_index(name) == index


def test_ztf_filters() -> None:
    assert [band_index(ZTF_FID_BAND[fid]) for fid in (1, 2, 3)] == [1, 2, 3]
