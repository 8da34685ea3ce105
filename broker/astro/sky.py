"""Directions on the sky (ICRS, degrees)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

ARCSEC_PER_DEGREE = 3600.0
_GALACTIC_POLE_RA_DEG = 192.85948
_GALACTIC_POLE_DEC_DEG = 27.12825
"""North galactic pole in ICRS: Perryman et al. 1997, Hipparcos Catalogue vol. 1, eq. 1.5.10."""
_OBLIQUITY_DEG = 23.43929111
"""Mean obliquity of the ecliptic at J2000: IAU 1976."""


def separation_deg(ra1: F64 | float, dec1: F64 | float, ra2: F64 | float, dec2: F64 | float) -> F64:
    """Angular distance between directions, exact at small and large angles (haversine).

    ra, dec : (n,) or scalar [deg];  returns (n,) [deg, 0..180]; NaN in, NaN out.
    """
    lon1, lat1, lon2, lat2 = (np.radians(np.asarray(x, dtype=np.float64)) for x in (ra1, dec1, ra2, dec2))
    half = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return np.asarray(np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))))


def galactic_latitude_deg(ra: F64, dec: F64) -> F64:
    """Galactic latitude b.  ra, dec : (n,) [deg, ICRS];  returns (n,) [deg, -90..90]; NaN in, NaN out."""
    return np.asarray(90.0 - separation_deg(ra, dec, _GALACTIC_POLE_RA_DEG, _GALACTIC_POLE_DEC_DEG))


def ecliptic_latitude_deg(ra: F64, dec: F64) -> F64:
    """Ecliptic latitude of J2000.  ra, dec : (n,) [deg, ICRS];  returns (n,) [deg, -90..90]."""
    return np.asarray(90.0 - separation_deg(ra, dec, 270.0, 90.0 - _OBLIQUITY_DEG))
