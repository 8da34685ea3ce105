"""Watchlists: what is read of a file, and what matches, next to astropy."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, search_around_sky

from broker.context.positions import (
    MAX_NAME_BYTES,
    MAX_POSITIONS,
    Names,
    Positions,
    pack_positions,
    read_csv,
    unpack_positions,
)
from broker.context.watchlists import DEFAULT_RADIUS_ARCSEC, BoundWatchlist
from broker.errors import ListError

ARCSEC = 1.0 / 3600.0


def read(*lines: str) -> Positions:
    return read_csv("\n".join(lines)).positions


def bound(*lines: str, radius_arcsec: float | None = None) -> BoundWatchlist:
    return BoundWatchlist.of(read(*lines), radius_arcsec)


def places(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions all over the sky, crowded at the poles and at right ascension 0."""
    ra = rng.uniform(0, 360, count)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    third = count // 3
    dec[:third] = rng.choice([-90.0, 90.0], third) * (1 - rng.exponential(2e-5, third))
    ra[third : 2 * third] = rng.normal(0, 0.005, third) % 360
    dec[third : 2 * third] = rng.normal(0, 0.005, third)
    return ra, dec


def matching(watch: BoundWatchlist, ra: Any, dec: Any, *radius: Any) -> list[float]:
    return watch({}, np.asarray(ra, dtype=float), np.asarray(dec, dtype=float), *radius).tolist()


def test_a_match_is_what_astropy_calls_one() -> None:
    rng = np.random.default_rng(3)
    ra, dec = places(rng, 3000)
    at_ra, at_dec = places(rng, 10_000)
    own = np.where(rng.random(3000) < 0.5, np.nan, rng.uniform(0, 60, 3000))
    lengths = np.zeros(3001, dtype=np.int64)
    watch = BoundWatchlist.of(Positions(ra, dec, own, Names(b"", lengths)), 20.0)
    wanted, there = SkyCoord(at_ra, at_dec, unit="deg"), SkyCoord(ra, dec, unit="deg")
    alert, entry, separation, _ = search_around_sky(wanted, there, 61 * u.arcsec)
    assert len(alert) > 1000
    for given in (None, 5.0, 30.0, 60.0):
        limit = np.where(np.isnan(own), 20.0 if given is None else given, own)
        limit = limit if given is None else np.minimum(limit, given)
        match = separation.arcsec <= limit[entry]
        truth = np.zeros(10_000)
        truth[alert[match]] = 1
        assert truth.sum() > 100
        assert matching(watch, at_ra, at_dec, *([] if given is None else [given * ARCSEC])) == truth.tolist()


def test_the_call_gives_the_most_and_an_entrys_own_radius_holds_below_it() -> None:
    watch = bound("ra,dec,radius_arcsec", "10,0,1", "20,0,", radius_arcsec=3)
    at = [10 + 0.5 * ARCSEC, 10 + 2 * ARCSEC, 20 + 2 * ARCSEC, 20 + 4 * ARCSEC]
    assert matching(watch, at, [0.0] * 4) == [1, 0, 1, 0]
    assert matching(watch, at, [0.0] * 4, 5 * ARCSEC) == [1, 0, 1, 1]
    assert matching(watch, at, [0.0] * 4, 0.4 * ARCSEC) == [0, 0, 0, 0]
    assert matching(watch, at, [0.0] * 4, np.array([1, 5, 1, 5]) * ARCSEC) == [1, 0, 0, 1]
    assert DEFAULT_RADIUS_ARCSEC == 2
    assert matching(bound("ra,dec", "20,0"), at[2:], [0.0] * 2) == [1, 0]


def test_what_is_not_known_is_null() -> None:
    watch = bound("ra,dec", "10,0")
    found = matching(watch, [10, np.nan, 10, 10], [0, 0, np.nan, 0], np.array([1, 1, 1, np.nan]))
    assert np.isnan(found).tolist() == [False, True, True, True]


def test_the_nearest_entry_that_matches_is_named() -> None:
    watch = bound(
        "name,ra,dec,radius_arcsec", "near but small,10,0,1", "wide,10.001,0,9", ",30,0,", "Öpik,40,0,"
    )
    at = np.array([10 + 1.5 * ARCSEC, 10, 30, 40, 50, np.nan])
    codes, names = watch.entries({}, at, np.zeros(6), 9 * ARCSEC)
    assert [names[code] if code >= 0 else None for code in codes] == [
        "wide", "near but small", None, "Öpik", None, None
    ]  # fmt: skip


def test_what_was_found_is_kept_for_the_batch() -> None:
    watch, memo = bound("ra,dec", "10,0"), dict[Any, Any]()
    at, dec = np.array([10.0]), np.array([0.0])
    watch(memo, at, dec, 1.0)
    watch.entries(memo, at, dec, 1.0)
    assert len(memo) == 1
    watch(memo, at, dec, 2.0)
    assert len(memo) == 2


def test_columns_are_found_by_their_names_and_others_told() -> None:
    found = read_csv("\ufeff# mine\nRAJ2000\tDEJ2000\tflux\tID\r\n1\t2\t3\tx\r\n\n#no\n359.5\t-90\t\ty\n")
    assert found.positions.ra.tolist() == [1, 359.5]
    assert found.positions.dec.tolist() == [2, -90]
    assert [found.positions.names[row] for row in (0, 1)] == ["x", "y"]
    assert np.isnan(found.positions.radius).all()
    assert found.notes() == ("columns not read: flux",)


def test_repeats_are_told() -> None:
    found = read_csv("name,ra,dec\na,1,2\nb,1,2\na,3,4\n")
    assert (found.repeated_positions, found.repeated_names, len(found.positions)) == (1, 1, 3)
    assert "line 3 has the position of line 2; line 4 has the name of line 2" in found.notes()[0]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("400,0,", "ra = 400 is outside 0..360"),
        ("nan,0,", "ra = nan is outside"),
        ("1,-90.1,", "dec = -90.1 is outside"),
        ("12:30:01,0,", "'12:30:01' is not a number; sexagesimal positions are not read"),
        (",0,", "ra = '' is not a number"),
        ("1", "it has 1 cells"),
        ("1,2,3601,", "radius_arcsec = 3601 is outside 0..3600"),
        ("1,2,,n" + MAX_NAME_BYTES * "n", "a name of 201 bytes"),
    ],
)
def test_a_faulty_row_is_named_by_its_line(row: str, why: str) -> None:
    with pytest.raises(ListError, match=r"1 rows are faulty, nothing was stored. line 4: ") as caught:
        read("ra,dec,radius_arcsec,name", "1,2,,", "# a comment", row, "3,4,,")
    assert why in str(caught.value)


def test_many_faulty_rows_are_counted() -> None:
    with pytest.raises(ListError, match=r"^25 rows are faulty.*line 11: .*; and 15 more$"):
        read("ra,dec", *["x,1"] * 25)


@pytest.mark.parametrize("text", ["", "1,2\n", "ra;dec\n1;2\n", "# ra,dec\n", "ra\n1\n"])
def test_a_file_must_name_its_columns(text: str) -> None:
    with pytest.raises(ListError, match="the first line must name the columns ra and dec"):
        read_csv(text)


def test_files_that_are_empty_or_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ListError, match="no rows"):
        read("ra,dec")
    assert MAX_POSITIONS == 1_000_000
    monkeypatch.setattr("broker.context.positions.MAX_POSITIONS", 2)
    assert len(read("ra,dec", "1,1", "2,2")) == 2
    with pytest.raises(ListError, match="more than 2 positions"):
        read("ra,dec", "1,1", "2,2", "3,3")


def test_rows_are_told_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.context.positions._TELL_EVERY", 2)
    told: list[int] = []
    read_csv("ra,dec\n" + "1,1\n" * 5, told.append)
    assert told == [2, 2, 1]


def test_positions_are_packed_exactly() -> None:
    rng = np.random.default_rng(1)
    ra, dec = places(rng, 100)
    lines = [
        f"n{k},{a!r},{d!r},{'' if k % 2 else 0.1 * k}" for k, (a, d) in enumerate(zip(ra, dec, strict=True))
    ]
    before = read_csv(
        "name,ra,dec,radius_arcsec\n" + "\n".join(lines).replace("np.float64(", "").replace(")", "")
    )
    after = unpack_positions(pack_positions(before.positions))
    assert after.ra.tolist() == ra.tolist()
    assert after.dec.tolist() == dec.tolist()
    assert np.array_equal(after.radius, before.positions.radius, equal_nan=True)
    assert [after.names[row] for row in range(100)] == [f"n{k}" for k in range(100)]
    assert pack_positions(after) == pack_positions(before.positions)


def test_contents_that_are_no_positions_are_refused() -> None:
    good = read("ra,dec", "1,2")
    bad = [
        Positions(np.array([np.nan]), good.dec, good.radius, good.names),
        Positions(good.ra, np.array([91.0]), good.radius, good.names),
        Positions(good.ra, good.dec, good.radius, Names(b"x", good.names.starts)),
        Positions(np.zeros(2), good.dec, good.radius, good.names),
    ]
    for positions in bad:
        with pytest.raises(ListError, match="no positions"):
            unpack_positions(pack_positions(positions))
    with pytest.raises(ListError, match="cannot be unpacked"):
        unpack_positions(b"something else")
