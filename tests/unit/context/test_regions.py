"""Regions: what is inside, next to mocpy, and every form of file."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import astropy.units as u
import cdshealpix
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude
from astropy.io import fits
from mocpy import MOC

from broker.astro.healpix import cells_of
from broker.context.region_files import looks_like_region, read_region
from broker.context.regions import (
    BoundRegion,
    Region,
    map_region,
    merged,
    moc_region,
    pack_region,
    unpack_region,
)
from broker.errors import ListError
from tests.unit.context.test_watchlists import places

SKY_DEG2 = 41252.961


def inside(region: Region, ra: Any, dec: Any, *level: Any) -> list[float]:
    return BoundRegion(region)({}, np.asarray(ra, dtype=float), np.asarray(dec, dtype=float), *level).tolist()


def by_mocpy(moc: MOC, ra: np.ndarray, dec: np.ndarray) -> list[float]:
    found = moc.contains_lonlat(Longitude(ra, u.deg), Latitude(dec, u.deg))
    return np.asarray(found, dtype=float).tolist()


def cone(ra: float, dec: float, radius: float, depth: int = 10) -> MOC:
    return MOC.from_cone(Longitude(ra, u.deg), Latitude(dec, u.deg), radius=radius * u.deg, max_depth=depth)


def multi_order(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of orders 0 to 10 that cover the sky in any order, and a probability for each."""
    rng = np.random.default_rng(seed)
    cells = [(0, cell) for cell in range(12)]
    for _ in range(1500):
        order, cell = cells.pop(rng.integers(len(cells)))
        cells += [(order + 1, 4 * cell + k) for k in range(4)] if order < 10 else [(order, cell)]
    numbers = np.array(cells, dtype=np.int64)[rng.permutation(len(cells))]
    mass = rng.exponential(size=len(cells)) ** 3 * 0.25 ** numbers[:, 0]
    return numbers[:, 1], numbers[:, 0], mass / mass.sum()


def flat(order: int) -> np.ndarray:
    """A map that gives every pixel, nested: a smooth spot with noise."""
    lon, lat = cdshealpix.healpix_to_lonlat(np.arange(12 * 4**order), order)
    rng = np.random.default_rng(order)
    mass = np.exp(9 * np.cos(lat.rad) * np.cos(lon.rad - 1)) * rng.uniform(0.9, 1.1, len(lon))
    return np.asarray(mass / mass.sum())


def table(header: dict[str, Any], **columns: np.ndarray) -> bytes:
    """A FITS file of one table."""
    kinds = {"f": "D", "i": "K", "u": "K"}
    made = [
        fits.Column(name, kinds[values.dtype.kind], array=values.astype(values.dtype.kind + "8"))
        for name, values in columns.items()
    ]
    unit = fits.BinTableHDU.from_columns(made)
    unit.header.update(header)
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(out)
    return out.getvalue()


def uniq(cells: np.ndarray, orders: np.ndarray) -> np.ndarray:
    return np.asarray(cells + 4 * 4**orders)


def test_a_moc_contains_what_mocpy_says() -> None:
    ra, dec = places(np.random.default_rng(1), 10_000)
    spots = [(0.001, 0, 0.005), (10, 89.9999, 0.003), (200, -89.99995, 0.004), (0, 41.81, 30), (123, -45, 70)]
    for spot in spots:
        moc = cone(*spot, depth=18 if spot[2] < 1 else 9)
        found = inside(moc_region(moc.to_depth29_ranges), ra, dec)
        assert found == by_mocpy(moc, ra, dec)
        assert sum(found) > 100
    rest = cone(30, 10, 60, 7).complement()
    assert inside(moc_region(rest.to_depth29_ranges), ra, dec, 0.0) == by_mocpy(rest, ra, dec)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 0.999])
def test_credible_regions_are_those_of_mocpy(level: float) -> None:
    ra, dec = places(np.random.default_rng(2), 10_000)
    pixels = flat(5)
    maps = [multi_order(1), (np.arange(len(pixels)), np.full(len(pixels), 5), pixels)]
    for cells, orders, mass in maps:
        moc = MOC.from_valued_healpix_cells(uniq(cells, orders).astype(np.uint64), mass, 10, cumul_to=level)
        region = map_region(cells, orders, mass)
        assert inside(region, ra, dec, level) == by_mocpy(moc, ra, dec)
        assert region.area_deg2(level) == pytest.approx(moc.sky_fraction * SKY_DEG2, rel=1e-6)


def test_levels_are_cumulative_from_the_densest_cell_on() -> None:
    region = map_region(np.array([0, 4, 2]), np.array([0, 1, 0]), np.array([0.2, 0.3, 0.5]))
    assert region.levels.tolist() == [1.0, 0.3, 0.8]
    assert region.areas().keys() == {"0.5", "0.9"}


def test_the_default_level_and_each_rows_own() -> None:
    region = map_region(np.array([0, 1]), np.array([0, 0]), np.array([0.85, 0.15]))
    ra, dec = np.array([45.0, 135.0, 225.0, np.nan, 45.0]), np.array([45.0, 45.0, 45.0, 0.0, np.nan])
    assert np.array_equal(inside(region, ra, dec), [1, 0, 0, np.nan, np.nan], equal_nan=True)
    own = inside(region, ra[:3], dec[:3], np.array([0.8, 1.0, 1.0]))
    assert own == [0, 1, 0]
    assert np.isnan(inside(region, ra[:1], dec[:1], np.nan)).all()


def test_cells_without_probability_are_never_inside() -> None:
    region = map_region(np.arange(12), np.zeros(12, dtype=np.int64), np.eye(12)[3])
    assert (len(region), region.levels.tolist()) == (1, [1.0])
    assert inside(region, [315.0, 45.0], [60.0, 60.0], 1.0) == [1, 0]


def test_cells_alike_are_merged_without_loss() -> None:
    coarse = np.arange(1.0, 49.0)
    coarse[4:8] = 5.0
    cells, orders, mass = merged(np.repeat(coarse / 16, 16), 3)
    assert sorted(zip(orders.tolist(), cells.tolist(), mass.tolist(), strict=True)) == [
        (0, 1, 20.0),
        *((1, cell, coarse[cell]) for cell in range(48) if cell not in range(4, 8)),
    ]
    whole = merged(np.ones(12), 0)
    assert whole[0].tolist() == list(range(12))
    assert len(merged(np.ones(12 * 16), 2)[0]) == 12


def test_the_cells_of_a_batch_are_worked_out_once() -> None:
    memo: dict[Any, Any] = {}
    region = moc_region(cone(10, 10, 5).to_depth29_ranges)
    BoundRegion(region)(memo, np.array([10.0]), np.array([10.0]))
    ((_, kept),) = memo.items()
    assert kept.tolist() == cells_of(29, np.array([10.0]), np.array([10.0])).tolist()
    BoundRegion(region)(memo, np.array([10.0]), np.array([10.0]), 0.5)
    assert len(memo) == 1


def test_regions_are_packed_exactly() -> None:
    region = map_region(*multi_order(2))
    after = unpack_region(pack_region(region))
    for name in ("starts", "ends", "levels"):
        assert np.array_equal(getattr(after, name), getattr(region, name))
    with pytest.raises(ListError, match="no region"):
        unpack_region(pack_region(Region(region.starts, region.ends, region.levels + 1)))
    with pytest.raises(ListError, match="overlap"):
        unpack_region(pack_region(Region(region.starts[::-1], region.ends[::-1], region.levels)))


def test_every_form_of_a_moc_reads_as_the_same(tmp_path: Path) -> None:
    moc = cone(300, -20, 3)
    moc.save(tmp_path / "new.fits", "fits")
    numbers = np.asarray(moc.uniq_hpx, dtype=np.int64)
    old = table({"PIXTYPE": "HEALPIX", "ORDERING": "NUNIQ", "COORDSYS": "C", "MOCORDER": 10}, UNIQ=numbers)
    forms = [
        (tmp_path / "new.fits").read_bytes(), old, gzip.compress(old), moc.to_string("json").encode(),
        moc.to_string("ascii").encode(), json.dumps(moc.serialize("json")).encode(),
    ]  # fmt: skip
    for content in forms:
        found = read_region(content)
        assert (found.form, found.notes) == ("moc", ())
        assert np.array_equal(
            np.column_stack([found.region.starts, found.region.ends]), moc.to_depth29_ranges
        )
    assert [looks_like_region(content) for content in forms] == [True, True, True, True, False, True]
    assert found.region.areas() == {"all": pytest.approx(moc.sky_fraction * SKY_DEG2)}


def test_every_form_of_a_sky_map_reads_as_the_same() -> None:
    pixels = flat(4)
    cells = np.arange(len(pixels))
    orders = np.full(len(pixels), 4)
    want = map_region(cells, orders, pixels)
    ring = pixels[np.asarray(cdshealpix.from_ring(cells.astype(np.uint64), 4), dtype=np.int64)]
    density = pixels / (np.pi / 3 * 0.25**4)
    names = {"PIXTYPE": "HEALPIX", "COORDSYS": "C", "NSIDE": 16}
    forms = [
        table({**names, "ORDERING": "NESTED"}, PROB=pixels, DISTMU=pixels),
        gzip.compress(table({**names, "ORDERING": "RING"}, PROBABILITY=ring)),
        table({**names, "ORDERING": "NUNIQ"}, UNIQ=uniq(cells, orders), PROBDENSITY=density),
    ]
    for content in forms:
        found = read_region(content)
        assert found.form == "sky map"
        assert looks_like_region(content)
        assert np.array_equal(found.region.starts, want.starts)
        assert found.region.levels == pytest.approx(want.levels, abs=1e-12)
    assert read_region(forms[0]).notes == ("distances are not used: DISTMU",)
    assert read_region(forms[1]).notes == ()
    twice = table({**names, "ORDERING": "NESTED"}, PROB=2 * pixels)
    assert read_region(twice).notes == ("the probabilities add up to 2; they were divided by that",)


def test_a_pixel_a_row_or_many_are_the_same() -> None:
    pixels = flat(4)
    unit = fits.BinTableHDU.from_columns([fits.Column("PROB", "256D", array=pixels.reshape(-1, 256))])
    unit.header.update({"ORDERING": "NESTED", "NSIDE": 16})
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(out)
    assert read_region(out.getvalue()).region.levels[0] == map_region(*merged(pixels, 4)).levels[0]


def test_tables_of_other_things_do_not_look_like_regions() -> None:
    ones = np.ones(3)
    others = [b"ra,dec\n1,2\n", gzip.compress(b"ra,dec\n1,2\n"), b"PAR1", b"", b"\x1f\x8bnothing"]
    others += [
        table({}, RA=ones, PROB=ones),
        table({"ORDERING": "NESTED"}, PROB_STAR=ones),
        table({}, UNIQ=ones),
    ]
    for content in others:
        assert not looks_like_region(content)
    assert looks_like_region(table({}, UNIQ=ones, PROBDENSITY=ones)[:8000])


NESTED = {"ORDERING": "NESTED"}
SMALL = np.ones(12) / 12


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it has no order"),
        (b"ra,dec\n1,2\n", "it has no order"),
        (b"\xff\xfe", "neither FITS nor text"),
        (b"3/1-", "neither FITS nor a MOC"),
        (b"40/3", "order 40 is not in 0..29"),
        (b"0/12", "not on the sky"),
        (b"{}", "without any cell"),
        (b'{"0": [12]}', "not on the sky"),
        (b'{"3": "a"}', "a MOC as JSON is"),
        (b'{"-1": [1]}', "a MOC as JSON is"),
        (b"{", "neither FITS nor a MOC"),
        (b"\x1f\x8bnothing", "cannot be unpacked"),
        (gzip.compress(b"3/1 " * 100)[:-9], "is cut"),
        (b"SIMPLE  = nothing", "cannot be read"),
        (table({}, ra=SMALL), r"with the columns ra: a MOC has UNIQ or RANGE"),
        (table({}, PROB=SMALL), "needs ORDERING = NESTED or RING"),
        (table(NESTED | {"COORDSYS": "G"}, PROB=SMALL), "in celestial coordinates"),
        (table(NESTED, PROB=np.ones(13)), "a flat sky map of 13 pixels"),
        (table(NESTED | {"NSIDE": 2}, PROB=SMALL), "with NSIDE = 2"),
        (table(NESTED, PROB=-SMALL), "negative or not a number"),
        (table(NESTED, PROB=np.full(12, np.nan)), "negative or not a number"),
        (table(NESTED, PROB=np.zeros(12)), "without any cell"),
        (table({}, UNIQ=np.array([3]), PROBDENSITY=SMALL[:1]), "below 4"),
        (table({}, UNIQ=np.array([4, 4]), PROBDENSITY=SMALL[:2]), "overlap"),
        (table({}, UNIQ=np.array([4, 16]), PROBDENSITY=SMALL[:2]), "overlap"),
        (table({}, UNIQ=np.array([4]), PROBDENSITY=np.array([np.inf])), "negative or not a number"),
    ],
)
def test_what_is_no_region_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ListError, match=why):
        read_region(content)


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    cone(10, 10, 5).save(tmp_path / "moc.fits", "fits")
    whole = (tmp_path / "moc.fits").read_bytes()
    for length in (len(whole) - 2880, 5800, 3000):
        with pytest.raises(ListError, match="FITS file"):
            read_region(whole[:length])


def test_of_too_many_cells_the_densest_are_kept_if_they_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.geomspace(1, 1e-6, 12)
    content = table(NESTED, PROB=pixels / pixels.sum())
    whole = read_region(content)
    assert (len(whole.region), whole.notes) == (12, ())
    monkeypatch.setattr("broker.context.regions.MAX_RANGES", 6)
    dense = read_region(content)
    assert dense.region.levels.tolist() == whole.region.levels[:6].tolist()
    assert dense.notes == ("too many cells: those beyond the credible level 0.999467 were left out",)
    monkeypatch.setattr("broker.context.regions.MAX_RANGES", 5)
    with pytest.raises(ListError, match="a region of 12 ranges or cells; at most 5"):
        read_region(content)


def test_a_region_of_too_many_cells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.context.regions.MAX_RANGES", 3)
    with pytest.raises(ListError, match="at most 3 can be stored: degrade it"):
        read_region(b"5/1 3 5 7")
