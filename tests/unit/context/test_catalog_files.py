"""Every format that catalogues come in leads to the same folder; what cannot be read says what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from mocpy import MOC

from broker.astro.healpix import cells_of
from broker.context.catalog_build import build, choose
from broker.context.catalog_files import find_position, open_table, plain
from broker.context.catalogs import Catalog, open_catalog
from broker.context.footprint import read_footprint
from broker.errors import CatalogError

ROWS = 5
BIG = 2**60 + 7
VALUES: dict[str, list[Any]] = {
    "ra": [350.0, 10.0, 10.00001, 200.5, 0.0],
    "dec": [-89.99, 0.5, 0.5, 45.0, 90.0],
    "mag": [18.5, None, 17.25, 19.0, 20.0],
    "objid": [1, BIG, None, -4, 0],
    "kind": ["star", "galaxy", None, "QSO", "star"],
    "good": [True, False, None, True, True],
}


def arrow(**metadata: dict[bytes, bytes]) -> pa.Table:
    table = pa.table(VALUES)
    fields = [field.with_metadata(metadata.get(field.name)) for field in table.schema]
    return table.cast(pa.schema(fields))


def added(folder: Path, *paths: Path, **options: Any) -> Catalog:
    """The paths as a catalogue in a folder."""
    folder.mkdir(exist_ok=True)
    _, sha256 = build(choose([open_table(path) for path in paths], **options), folder)
    catalog = open_catalog(folder, sha256)
    catalog.check()
    return catalog


def content(catalog: Catalog, *names: str) -> list[tuple[Any, ...]]:
    """The rows with their position, sorted."""
    rows = np.arange(len(catalog.index))
    columns = []
    for name in ("ra", "dec", *names):
        taken = catalog.take(name, rows)
        values = taken.values.tolist()
        if taken.kind == "string":
            values = [taken.categories[code] for code in values]
        columns.append(
            [None if null else value for value, null in zip(values, taken.null.tolist(), strict=True)]
        )
    return sorted(zip(*columns, strict=True), key=lambda row: row[:2])


EXPECTED = sorted(zip(*VALUES.values(), strict=True), key=lambda row: row[:2])


def write_csv(path: Path, separator: str = ",") -> None:
    lines = [separator.join(VALUES)]
    lines += [
        separator.join("" if it is None else str(it) for it in row)
        for row in zip(*VALUES.values(), strict=True)
    ]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fits(path: Path) -> None:
    objid = [-99 if it is None else it for it in VALUES["objid"]]
    fits.BinTableHDU.from_columns([
        fits.Column("ra", "D", "deg", array=VALUES["ra"]),
        fits.Column("dec", "D", "deg", array=VALUES["dec"]),
        fits.Column("mag", "E", "mag", array=[np.nan if it is None else it for it in VALUES["mag"]]),
        fits.Column("objid", "K", null=-99, array=objid),
        fits.Column("kind", "8A", array=[it or "" for it in VALUES["kind"]]),
        fits.Column("image", "4E", array=np.zeros((ROWS, 4))),
    ]).writeto(path)  # fmt: skip


def write_hats(folder: Path) -> None:
    """As hats-import lays a catalogue out: Parquet files by HEALPix pixel under dataset/."""
    pixels = cells_of(0, np.array(VALUES["ra"]), np.array(VALUES["dec"]))
    table = arrow().append_column("_healpix_29", pa.array([0] * ROWS))
    for pixel in np.unique(pixels).tolist():
        part = folder / "dataset" / "Norder=0" / "Dir=0"
        part.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array(pixels == pixel)), part / f"Npix={pixel}.parquet")
    (folder / "dataset" / "_metadata").write_bytes(b"not read")
    (folder / "hats.properties").write_text(
        "#HATS catalog\nobs_collection=made\ndataproduct_type=object\nhats_col_ra=ra\nhats_col_dec=dec\n"
    )


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.tsv", "t.fits", "hats", "collection"])
def test_every_format_keeps_positions_and_columns(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(arrow(), path)
    elif name == "t.fits":
        write_fits(path)
    elif name == "hats":
        write_hats(path)
    elif name == "collection":
        write_hats(path / "inside")
        (path / "collection.properties").write_text("obs_collection=c\nhats_primary_table_url=inside\n")
    else:
        write_csv(path, "\t" if name.endswith(".tsv") else ",")
    names = ["mag", "objid", "kind"] + ["good"] * (name != "t.fits")
    catalog = added(tmp_path / "out", path)
    assert [it.spec.name for it in catalog.manifest.columns] == names
    expected = EXPECTED if "good" in names else [row[:-1] for row in EXPECTED]
    assert content(catalog, *names) == expected
    assert (np.diff(catalog.index.cells) >= 0).all()
    nothing = catalog.take("kind", np.array([-1, -1]))
    assert nothing.null.all()


def test_units_and_descriptions_come_along(tmp_path: Path) -> None:
    pq.write_table(arrow(mag={b"unit": b"mag", b"description": b"AB"}), tmp_path / "t.parquet")
    write_fits(tmp_path / "t.fits")
    for name, doc in (("t.parquet", "AB"), ("t.fits", "")):
        mag = next(column for column in open_table(tmp_path / name).columns if column.name == "mag")
        assert (mag.unit, mag.doc) == ("mag", doc)
    votable = b"""<VOTABLE xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
    <FIELD name="mag" datatype="double" unit="mag"><DESCRIPTION>PSF
    magnitude</DESCRIPTION></FIELD></TABLE></RESOURCE></VOTABLE>"""
    schema = arrow().schema.with_metadata({b"IVOA.VOTable-Parquet.content": votable})
    pq.write_table(arrow().cast(schema), tmp_path / "vo.parquet")
    mag = open_table(tmp_path / "vo.parquet").columns[2]
    assert (mag.unit, mag.doc) == ("mag", "PSF magnitude")


VIZIER = """#
#Column\t_RAJ2000\t(F10.6)\tRight ascension \t[ucd=pos.eq.ra]
#Column\tB-V\t(F5.2)\t? Colour of the star\t[ucd=x]

_RAJ2000|_DEJ2000|RAJ2000|B-V
deg|deg|"h:m:s"|mag
----------|----------|----------|-----
001.291250|+45.229167|00 05 09.9| 0.07
          |          |          |
001.265833| -0.503056|00 05 03.8|
"""


def test_vizier_text_with_units_and_rows_without_a_position(tmp_path: Path) -> None:
    (tmp_path / "bsc.tsv").write_text(VIZIER)
    table = open_table(tmp_path / "bsc.tsv")
    assert [(it.name, it.kind, it.unit) for it in table.columns] == [
        ("_RAJ2000", "float", "deg"), ("_DEJ2000", "float", "deg"), ("RAJ2000", "string", "h:m:s"),
        ("B-V", "float", "mag"),
    ]  # fmt: skip
    assert table.columns[3].doc == "? Colour of the star"
    catalog = added(tmp_path / "out", tmp_path / "bsc.tsv")
    assert catalog.manifest.skipped == 1
    assert content(catalog, "B_V") == [(1.265833, -0.503056, None), (1.29125, 45.229167, 0.07)]


def test_texts_of_hours_and_degrees(tmp_path: Path) -> None:
    lines = ["RA;Dec", "00:08:27.05;+27:43:03.6", "23 59 59.9;-00 00 30", "12:00;-01:30.5", "?;?"]
    (tmp_path / "ngc.csv").write_text("\n".join(lines))
    catalog = added(tmp_path / "out", tmp_path / "ngc.csv")
    found = np.array(content(catalog))
    expected = [
        [(8 + 27.05 / 60) / 4, 27 + 43 / 60 + 3.6 / 3600],
        [180.0, -1 - 30.5 / 60],
        [(23 * 3600 + 59 * 60 + 59.9) / 240, -30 / 3600],
    ]
    np.testing.assert_allclose(found, sorted(expected), rtol=1e-14)
    assert catalog.manifest.skipped == 1


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("RA_ICRS,DE_ICRS,x", ("RA_ICRS", "DE_ICRS")),
        ("RAJ2000,DEJ2000,_RAJ2000,_DEJ2000", ("RAJ2000", "DEJ2000")),
        ("TARGET_RA,TARGET_DEC,z", ("TARGET_RA", "TARGET_DEC")),
        ("s_ra,s_dec,x", ("s_ra", "s_dec")),
        ("RA(J2000),DEC(J2000),x", ("RA(J2000)", "DEC(J2000)")),
        ("RAdeg,DEdeg,x", ("RAdeg", "DEdeg")),
        ("x,Dec,Ra", ("Ra", "Dec")),
    ],
)
def test_the_usual_names_of_positions_are_found(header: str, pair: tuple[str, str], tmp_path: Path) -> None:
    count = header.count(",") + 1
    (tmp_path / "t.csv").write_text(f"{header}\n{','.join(['1.5'] * count)}\n")
    position = find_position(open_table(tmp_path / "t.csv"))
    assert (position.ra.name, position.dec.name) == pair


def test_the_user_may_name_the_columns_and_units_are_followed(tmp_path: Path) -> None:
    table = Table({"lon": [np.pi / 2], "lat": [np.pi / 6], "ra": [1.0], "dec": [2.0]})
    table["lon"].unit = table["lat"].unit = "rad"
    table.write(tmp_path / "t.fits")
    catalog = added(tmp_path / "out", tmp_path / "t.fits", ra="lon", dec="lat")
    np.testing.assert_allclose(content(catalog)[0], (90.0, 30.0), rtol=1e-12)
    assert [it.spec.name for it in catalog.manifest.columns] == ["ra_2", "dec_2"]
    only = added(tmp_path / "only", tmp_path / "t.fits", columns=["lon"])
    assert [it.spec.name for it in only.manifest.columns] == ["lon"]


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(CatalogError) as caught:
        added(path.parent / "out", path, **options)
    return str(caught.value)


def test_what_cannot_be_added_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    assert "Say it by --ra COLUMN --dec COLUMN; it has a, b" in refused(path)
    assert "--ra and --dec go together" in refused(path, ra="a")
    assert "has no column 'c'; it has a, b" in refused(path, ra="a", dec="c")
    path.write_text("ra,dec\nx,y\n")
    assert "'x' is no coordinate; write degrees" in refused(path)
    path.write_text("J0001 0.08504 10.52192 binary,W_Uma\n")
    assert "has no column names" in refused(path)
    path.write_text("ra,dec\n1,2,3\n")
    assert "cannot be read" in refused(path)
    path.write_text("ra,dec\nnan,2\n")
    assert "no row with a position" in refused(path)
    assert "does not exist" in refused(tmp_path / "none.fits")
    other = tmp_path / "t.xlsx"
    other.write_text("x")
    assert "it takes .parquet, .fits, .csv" in refused(other)
    (tmp_path / "t.fits").write_text("no FITS")
    assert "cannot be read" in refused(tmp_path / "t.fits")
    assert "no hats.properties" in refused(tmp_path)
    (tmp_path / "collection.properties").write_text("obs_collection=c\n")
    assert "no hats.properties" in refused(tmp_path)
    write_hats(tmp_path)
    text = (tmp_path / "hats.properties").read_text()
    (tmp_path / "hats.properties").write_text(text.replace("=object", "=margin"))
    assert "is the margin part of a HATS catalogue" in refused(tmp_path)


def test_ids_keep_all_their_digits(tmp_path: Path) -> None:
    ids = ["18446744073709551615", "9223372036854775808"]
    (tmp_path / "t.csv").write_text("ra,dec,id\n" + "".join(f"{k},{k},{id}\n" for k, id in enumerate(ids)))
    assert [row[2] for row in content(added(tmp_path / "out", tmp_path / "t.csv"), "id")] == ids
    table = pa.table({"ra": [1.0], "dec": [2.0], "id": pa.array([2**64 - 1], pa.uint64())})
    pq.write_table(table, tmp_path / "t.parquet")
    assert "name the columns to keep by --columns" in refused(tmp_path / "t.parquet")


def test_files_of_one_table_only(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("ra,dec,z\n1,2,0.5\n")
    second.write_text("ra,dec,z\n3,4,0.7\n")
    (tmp_path / "x").mkdir()
    assert content(added(tmp_path / "x" / "out", first, second), "z") == [(1, 2, 0.5), (3, 4, 0.7)]
    second.write_text("ra,dec,z\n3,4,high\n")
    with pytest.raises(CatalogError, match=r"2.csv: column 'z' is string, in .*1.csv it is float"):
        added(tmp_path / "out", first, second)


def test_names_become_words_that_filters_can_write(tmp_path: Path) -> None:
    assert [plain(name) for name in ("B-V", "_RAJ2000", "2mass id", "é", "z")] == [
        "B_V", "RAJ2000", "c_2mass_id", "column", "z",
    ]  # fmt: skip
    (tmp_path / "t.csv").write_text("ra,dec,B-V,b_v,sep_arcsec\n1,2,3,4,5\n")
    catalog = added(tmp_path / "out", tmp_path / "t.csv")
    assert [it.spec.name for it in catalog.manifest.columns] == ["B_V", "b_v_2", "sep_arcsec_2"]


def test_the_same_files_make_the_same_catalogue(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv")
    added(tmp_path / "a", tmp_path / "t.csv")
    added(tmp_path / "b", tmp_path / "t.csv")
    texts = [(tmp_path / name / "manifest.json").read_text() for name in "ab"]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["rows"] == ROWS
    assert not list((tmp_path / "a").glob("*.raw"))


def test_a_changed_file_is_found_by_its_hash(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv")
    catalog = added(tmp_path / "a", tmp_path / "t.csv")
    data = bytearray((tmp_path / "a" / "column-000.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a" / "column-000.npy").write_bytes(data)
    with pytest.raises(CatalogError, match="is not what was added"):
        catalog.check()


def test_a_footprint_covers_what_its_moc_contains(tmp_path: Path) -> None:
    import astropy.units as u  # noqa: PLC0415

    moc = MOC.from_cone(lon=10 * u.deg, lat=80 * u.deg, radius=8 * u.deg, max_depth=9)
    moc.save(tmp_path / "moc.fits", format="fits")
    write_csv(tmp_path / "t.csv")
    folder = tmp_path / "out"
    folder.mkdir()
    _, sha256 = build(choose([open_table(tmp_path / "t.csv")]), folder, read_footprint(tmp_path / "moc.fits"))
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 10_000), rng.uniform(60, 90, 10_000)
    found = open_catalog(folder, sha256).covers(ra, dec)
    assert (found == moc.contains_lonlat(ra * u.deg, dec * u.deg)).all()
    assert 0.02 < found.mean() < 0.98
    assert not open_catalog(folder, sha256).covers(np.array([np.nan]), np.array([0.0])).any()
    with pytest.raises(CatalogError, match="cannot be read as a MOC"):
        read_footprint(tmp_path / "t.csv")
