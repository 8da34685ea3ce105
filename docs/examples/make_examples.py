"""Makes the example catalogues of this folder: well-known sources in the formats of three surveys.

Positions (ICRS) and redshifts are those of the literature, radio fluxes near 0.9 GHz are rounded to about a
tenth; ids are row numbers and errors are made up. For trying things out, not for science: the real
catalogues have these columns and many more.

    python docs/examples/make_examples.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

FOLDER = Path(__file__).parent

SPECTRA = [
    ("3C 273", 187.277915, 2.052388, "QSO", "BROADLINE", 0.158339),
    ("OJ 287", 133.703645, 20.108511, "QSO", "", 0.3056),
    ("Mrk 421", 166.113808, 38.208833, "QSO", "", 0.0300),
    ("Mrk 501", 253.467569, 39.760169, "QSO", "", 0.03366),
    ("3C 345", 250.745042, 39.810276, "QSO", "BROADLINE", 0.5928),
    ("3C 286", 202.784533, 30.509155, "QSO", "", 0.849),
    ("3C 196", 123.400138, 48.217378, "QSO", "", 0.871),
    ("Mrk 231", 194.059308, 56.873677, "QSO", "BROADLINE", 0.04217),
    ("NGC 4151", 182.635745, 39.405730, "GALAXY", "AGN BROADLINE", 0.003262),
    ("NGC 5548", 214.498059, 25.136790, "GALAXY", "AGN BROADLINE", 0.01717),
    ("M87", 187.705931, 12.391123, "GALAXY", "", 0.00428),
    ("NGC 4889", 195.033750, 27.977000, "GALAXY", "", 0.021665),
    ("NGC 4874", 194.898800, 27.959270, "GALAXY", "", 0.023937),
    ("M51", 202.469575, 47.195258, "GALAXY", "STARFORMING", 0.001544),
    ("M82", 148.968458, 69.679703, "GALAXY", "STARBURST", 0.000677),
    ("M101", 210.802429, 54.348750, "GALAXY", "STARFORMING", 0.000804),
    ("GD 153", 194.259700, 22.031300, "STAR", "WD", 0.0),
    ("HZ 44", 200.895800, 36.133100, "STAR", "O", 0.0),
    ("Feige 34", 159.903300, 43.102500, "STAR", "O", 0.0),
    ("BD+28 4211", 327.795900, 28.863900, "STAR", "O", 0.0),
]
"""Name, right ascension, declination [deg], class and subclass in the words of SDSS, redshift."""

RADIO = [
    ("PKS 1934-638", 294.854275, -63.712674, 14000.0),
    ("Centaurus A", 201.365063, -43.019113, 200000.0),
    ("Hydra A", 139.523600, -12.095500, 60000.0),
    ("Hercules A", 252.783900, 4.992600, 65000.0),
    ("M87", 187.705931, 12.391123, 300000.0),
    ("3C 273", 187.277915, 2.052388, 60000.0),
    ("3C 279", 194.046527, -5.789312, 11000.0),
    ("OJ 287", 133.703645, 20.108511, 1500.0),
    ("3C 454.3", 343.490616, 16.148211, 13000.0),
    ("CTA 102", 338.151700, 11.730800, 7000.0),
    ("PKS 1510-089", 228.210600, -9.100000, 3000.0),
    ("PKS 2155-304", 329.716938, -30.225588, 500.0),
    ("3C 120", 68.296200, 5.354300, 4000.0),
    ("AO 0235+164", 39.662200, 16.616500, 2000.0),
]
"""Name, right ascension, declination [deg], total flux [mJy]."""


def sdss(path: Path) -> None:
    """CSV as SkyServer gives a query of SpecObj."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ra", "dec", "z", "zWarning", "class", "subClass"])
        writer.writerows([ra, dec, z, 0, kind, sub] for _, ra, dec, kind, sub, z in SPECTRA)


def desi(path: Path) -> None:
    """FITS table as DESI's redshift catalogues, zcatalog or zpix."""
    names, ra, dec, kinds, _, z = zip(*SPECTRA, strict=True)
    columns = [
        fits.Column("TARGETID", "K", array=np.arange(1, len(names) + 1)),
        fits.Column("TARGET_RA", "D", unit="deg", array=ra),
        fits.Column("TARGET_DEC", "D", unit="deg", array=dec),
        fits.Column("Z", "D", array=z),
        fits.Column("ZERR", "D", array=np.full(len(z), 1e-5)),
        fits.Column("ZWARN", "K", array=np.where(np.array(names) == "Mrk 421", 4, 0)),
        fits.Column("SPECTYPE", "6A", array=kinds),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="ZCATALOG")
    table.header.comments["TTYPE4"] = "Redshift by Redrock"
    table.header.comments["TTYPE6"] = "0 if nothing is wrong with the redshift"
    table.header.comments["TTYPE7"] = "GALAXY, QSO or STAR"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)


def radio(path: Path) -> None:
    """Parquet of RACS's source catalogue, units in the metadata of the columns."""
    names, ra, dec, flux = zip(*RADIO, strict=True)
    fields = [
        ("source_id", pa.string(), "", "Name of the source"),
        ("ra", pa.float64(), "deg", "Right ascension"),
        ("dec", pa.float64(), "deg", "Declination"),
        ("total_flux_source", pa.float64(), "mJy", "Total flux"),
        ("e_total_flux_source", pa.float64(), "mJy", "Its error"),
    ]
    schema = pa.schema(
        [
            pa.field(name, kind, metadata={"unit": unit, "description": doc})
            for name, kind, unit, doc in fields
        ]
    )
    values = [names, ra, dec, flux, [0.1 * value for value in flux]]
    pq.write_table(pa.Table.from_arrays([pa.array(it) for it in values], schema=schema), path)


if __name__ == "__main__":
    sdss(FOLDER / "sdss.csv")
    desi(FOLDER / "desi.fits")
    radio(FOLDER / "racs.parquet")
