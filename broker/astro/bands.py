"""Passbands by their short alias; a band is an index into BANDS everywhere in the code."""

from __future__ import annotations

BANDS = ("u", "g", "r", "i", "z", "y")
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
