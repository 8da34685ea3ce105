"""Made-up sky maps and lists: `python -m tests.skymaps FOLDER` writes those of docs/examples."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cdshealpix
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from broker.astro.sky import separation_deg

EXAMPLE = (150.0, 10.0, 14.0)
"""Where the spot of the example map is [deg], and its width (one sigma) [deg]."""


def spot(ra: float, dec: float, sigma: float, cells_at_most: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """A round spot as a multi-order map: UNIQ and PROBDENSITY [1/sr] of cells that cover the sky.

    The cell that holds most of the probability is divided, again and again.
    """
    cells = [(float(_mass(0, cell, ra, dec, sigma)), 0, cell) for cell in range(12)]
    while len(cells) + 3 <= cells_at_most:
        cells.sort()
        _, order, cell = cells.pop()
        quarters = range(4 * cell, 4 * cell + 4)
        cells += [
            (float(_mass(order + 1, quarter, ra, dec, sigma)), order + 1, quarter) for quarter in quarters
        ]
    mass = np.array([item[0] for item in cells])
    orders, numbers = np.array([item[1] for item in cells]), np.array([item[2] for item in cells])
    return numbers + 4 * 4**orders, mass / mass.sum() / (np.pi / 3 * 0.25**orders)


def _mass(order: int, cell: int, ra: float, dec: float, sigma: float) -> float:
    """Probability of a cell, from its centre's density."""
    lon, lat = cdshealpix.healpix_to_lonlat([cell], order)
    away = separation_deg(lon.deg, lat.deg, ra, dec)[0]
    return float((np.exp(-0.5 * (away / sigma) ** 2) + 1e-9) * 0.25**order)


def sky_map(ra: float, dec: float, sigma: float) -> bytes:
    """Such a map as a FITS file like those that gravitational-wave alerts bring."""
    uniq, density = spot(ra, dec, sigma)
    unit = fits.BinTableHDU(Table({"UNIQ": uniq, "PROBDENSITY": density}))
    unit.header.update({"PIXTYPE": "HEALPIX", "ORDERING": "NUNIQ", "COORDSYS": "C", "INDXSCHM": "EXPLICIT"})
    unit.header["MOCORDER"] = 29
    unit.header["TUNIT2"] = "sr-1"
    unit.header.update({"OBJECT": "MADE-UP", "DATE-OBS": Time(60000.0, format="mjd").isot})
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(out)
    return out.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1], "skymap.fits").write_bytes(sky_map(*EXAMPLE))
