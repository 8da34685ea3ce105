"""Passbands by their short alias; a band is an index into BANDS everywhere in the code."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passband:
    """A passband as its alias names it; two surveys' bands of one alias differ a little.

    wavelength_nm : where it lies, to about 10 nm
    vega_zero_jy  : flux of magnitude 0 where surveys give Vega magnitudes in it; NaN where they give AB
    """

    name: str
    wavelength_nm: float
    vega_zero_jy: float = math.nan


PASSBANDS = (
    Passband("u", 370.0),
    Passband("g", 480.0),
    Passband("r", 620.0),
    Passband("i", 750.0),
    Passband("z", 870.0),
    Passband("y", 970.0),
    Passband("J", 1240.0, 1594.0),
    Passband("H", 1660.0, 1024.0),
    Passband("c", 530.0),
    Passband("o", 680.0),
)
"""Append only: stored light curves hold the index.

J and H as 2MASS has them: Cohen et al. 2003, AJ 126, 1090, table 2; c (cyan, 420-650 nm) and o (orange,
560-820 nm) are ATLAS's: Tonry et al. 2018, PASP 130, 064505.
"""
BANDS = tuple(passband.name for passband in PASSBANDS)
BAND_INDEX = {name: index for index, name in enumerate(BANDS)}
NO_BAND = 255
"""Index of a band that is missing or unknown."""

ZTF_FID_BAND = {1: "g", 2: "r", 3: "i"}
"""ZTF's filter number to band."""


def band_index(name: str | None) -> int:
    """Index of a band's alias ('Y' is Rubin's older spelling of 'y'); NO_BAND if unknown.

    >>> band_index("g"), band_index("Y"), band_index(None)
    (1, 5, 255)
    """
    if name is None:
        return NO_BAND
    return BAND_INDEX.get(name, BAND_INDEX.get(name.lower(), NO_BAND))
