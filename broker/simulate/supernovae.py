"""Explosions and disruptions with the spread that real ones have: light curves in g and r, and luminosity.

A shape gives magnitudes below the peak of each band as a function of days in the object's own frame. The peak
r magnitude is absolute [AB, H0 = 70 km/s/Mpc]; `gr` is g - r at peak. Parameters come as columns, one value
an object, so that a volume can be filled and cut by brightness at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Params = Mapping[str, float]
Columns = dict[str, F64]
Draw = Callable[[np.random.Generator, int], Columns]
Fading = Callable[[F64, str, Params], F64]
"""(days since the peak in the object's frame (n,), band g or r, parameters) to magnitudes below it (n,)."""

NOT_YET = 15.0
"""Magnitudes below the peak of what has not begun."""

_IA_DAYS = np.array(
    [-19, -18, -17, -16, -15, -14, -12, -10, -8, -6, -4, -2, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20,
     22, 24, 26, 28, 30, 34, 40, 46, 52, 58, 64, 70, 76, 82, 88, 94, 100],
    dtype=np.float64,
)  # fmt: skip
_IA_G = np.array(
    [15, 5.2, 3.9, 3.0, 2.4, 1.9, 1.33, 0.94, 0.59, 0.31, 0.16, 0.06, 0, 0.05, 0.13, 0.24, 0.39, 0.56, 0.7,
     0.9, 1.1, 1.32, 1.52, 1.7, 1.89, 2.06, 2.19, 2.33, 2.53, 2.76, 2.91, 3.0, 3.08, 3.15, 3.23, 3.31, 3.4,
     3.48, 3.55, 3.65]
)  # fmt: skip
_IA_R = np.array(
    [15, 5.0, 3.7, 2.85, 2.25, 1.8, 1.28, 0.91, 0.57, 0.3, 0.16, 0.07, 0, 0.03, 0.09, 0.18, 0.3, 0.42, 0.54,
     0.65, 0.7, 0.75, 0.8, 0.84, 0.89, 0.95, 1.04, 1.17, 1.43, 1.75, 1.98, 2.18, 2.37, 2.55, 2.72, 2.92,
     3.1, 3.28, 3.42, 3.6]
)  # fmt: skip
_IA_BUMP_MAG = 0.18
"""How much brighter an average second maximum makes r at 27 days; the table holds it once."""


def fading_ia(days: F64, band: str, p: Params) -> F64:
    """Thermonuclear supernova: the mean course in g and r, stretched, with a second bump in r.

    The course from 14 days before the peak on is the smoothed median of the Bright Transient Survey's SNe Ia
    that peak brighter than 17.9 mag, about peaks published elsewhere; before that, where few are seen, a
    fireball's. Its width follows `stretch` (Goldhaber et al. 2001, ApJ 558, 359), the rise on its own
    (Firth et al. 2015, MNRAS 446, 3895), the second maximum `bump` (weaker in narrow ones).
    """
    stretched = days / np.where(days < 0.0, p["stretch"] * p["rise"], p["stretch"])
    table = _IA_G if band == "g" else _IA_R
    tail = np.maximum(stretched - _IA_DAYS[-1], 0.0) * 0.015
    mag = np.interp(stretched, _IA_DAYS, table) + tail
    if band == "g":
        return np.asarray(mag + p["tilt"] * np.clip(days, 0.0, 25.0) / 15.0)
    return np.asarray(mag - _IA_BUMP_MAG * p["bump"] * np.exp(-0.5 * ((stretched - 27.0) / 7.0) ** 2))


def draw_ia(rng: np.random.Generator, n: int) -> Columns:
    """SNe Ia: brighter if slower and bluer.

    Width x1 and colour c have skewed spreads near those of Scolnic & Kessler 2016 (ApJ 822, L35); peak
    M_B = -19.25 - 0.14 x1 + 3.1 c with 0.1 mag of scatter (Betoule et al. 2014, A&A 568, A22), of which r,
    where dust dims less, has 2.2 c; stretch = 1 + 0.09 x1 (near Guy et al. 2007, A&A 466, 11).
    """
    x1 = _skewed(rng, n, 0.6, 1.4, 0.5)
    c = _skewed(rng, n, -0.07, 0.05, 0.2)
    stretch = np.clip(1.0 + 0.09 * x1, 0.65, 1.35)
    return {
        "abs_mag": -19.15 - 0.14 * x1 + 2.2 * c + rng.normal(0.0, 0.1, n),
        "gr": 1.1 * c + rng.normal(0.0, 0.06, n),
        "stretch": stretch,
        "rise": np.clip(rng.normal(0.93, 0.06, n), 0.75, 1.15),
        "tilt": rng.normal(0.0, 0.05, n),
        "bump": 1.6 * (stretch - 0.98) + rng.normal(0.0, 0.35, n),
        "redder": np.full(n, -0.5),
    }


def fading_ii(days: F64, band: str, p: Params) -> F64:
    """Core collapse with hydrogen: fast up, a decline or plateau, a drop, the slow radioactive tail.

    Blue light fades sooner, by `cool` more. Rise and decline: Anderson et al. 2014, ApJ 786, 67; Gonzalez-
    Gaitan et al. 2015, MNRAS 451, 2212. The tail's 0.0098 mag a day is the decay of 56Co.
    """
    since = days + p["rise"]
    rising = np.where(days < 0.0, 2.5 * np.abs(days / p["rise"]) ** 2.0, 0.0)
    late = np.clip(days, 0.0, None)
    until = np.minimum(late, p["plateau"])
    # the photosphere cools most in the first month
    cooling = p["cool"] * (until + np.minimum(until, 30.0)) / 2.0 if band == "g" else 0.0
    course = p["decline"] * until + cooling
    drop = p["drop"] / (1.0 + np.exp(np.clip(-(late - p["plateau"]) / 4.0, -40.0, 40.0)))
    tail = 0.0098 * np.clip(late - p["plateau"], 0.0, None)
    return np.asarray(np.where(since < -0.5 * p["rise"], NOT_YET, rising + course + drop + tail))


def draw_ii(rng: np.random.Generator, n: int) -> Columns:
    """SNe II (P and L): luminosity of Li et al. 2011 in a full volume, courses of Anderson et al. 2014."""
    return {
        "abs_mag": rng.normal(-16.05, 1.37, n),
        "gr": rng.normal(0.0, 0.1, n) + rng.exponential(0.1, n),
        "rise": rng.lognormal(np.log(9.0), 0.35, n),
        "decline": np.clip(rng.normal(0.010, 0.009, n), -0.004, 0.05),
        "cool": np.clip(rng.normal(0.022, 0.008, n), 0.006, 0.05),
        "plateau": np.clip(rng.normal(84.0, 15.0, n), 45.0, 130.0),
        "drop": rng.uniform(1.0, 2.5, n),
        "redder": np.full(n, 0.5),
    }


def fading_pulse(days: F64, band: str, p: Params) -> F64:
    """Rise and exponential decline of Bazin et al. 2009 (A&A 499, 653), in g faster than in r by `blue`."""
    rise = p["tau_rise"]
    fall = max(p["tau_fall"] * (p["blue"] if band == "g" else 1.0), 2.05 * rise)
    shift = rise * np.log(fall / rise - 1.0)
    at = np.clip(days + shift, -60.0 * rise, None)
    flux = np.exp(-at / fall) / (1.0 + np.exp(-at / rise))
    norm = np.exp(-shift / fall) / (1.0 + np.exp(-shift / rise))
    return np.asarray(np.minimum(-2.5 * np.log10(np.maximum(flux / norm, 1e-9)), NOT_YET))


def draw_ibc(rng: np.random.Generator, n: int) -> Columns:
    """Stripped-envelope SNe (Ib, Ic, IIb): luminosity of Li et al. 2011; widths of Taddia et al. 2018."""
    width = rng.lognormal(0.0, 0.25, n)
    return {
        "abs_mag": rng.normal(-16.09, 1.24, n),
        "gr": rng.normal(0.3, 0.15, n) + rng.exponential(0.15, n),
        "tau_rise": 4.2 * width,
        "tau_fall": np.clip(rng.normal(24.0, 5.0, n), 10.0, 45.0) * width,
        "blue": rng.uniform(0.5, 0.75, n),
        "redder": np.full(n, 0.8),
    }


def draw_iin(rng: np.random.Generator, n: int) -> Columns:
    """Interacting SNe: luminosity of Li et al. 2011; diverse as Nyholm et al. 2020, A&A 637, A73."""
    rise = rng.lognormal(np.log(7.0), 0.45, n)
    return {
        "abs_mag": rng.normal(-16.86, 1.61, n),
        "gr": rng.normal(0.05, 0.12, n) + rng.exponential(0.06, n),
        "tau_rise": rise,
        "tau_fall": np.maximum(rng.lognormal(np.log(55.0), 0.5, n), 3.0 * rise),
        "blue": rng.uniform(0.6, 1.0, n),
        "redder": np.full(n, 0.3),
    }


def draw_slsn(rng: np.random.Generator, n: int) -> Columns:
    """Superluminous SNe I: luminosity, rise and decline near Gomez et al. 2024 (MNRAS 535, 471)."""
    rise = rng.lognormal(np.log(10.0), 0.35, n)
    return {
        "abs_mag": rng.normal(-21.2, 0.7, n),
        "gr": rng.normal(-0.15, 0.15, n),
        "tau_rise": rise,
        "tau_fall": np.maximum(rng.lognormal(np.log(45.0), 0.4, n), 2.5 * rise),
        "blue": rng.uniform(0.65, 0.95, n),
        "redder": np.full(n, 1.0),
    }


def fading_tde(days: F64, _band: str, p: Params) -> F64:
    """Tidal disruption: a Gaussian rise and a power law down, at one colour (van Velzen et al. 2021)."""
    rising = 0.5 * (np.minimum(days, 0.0) / p["sigma_rise"]) ** 2 * 2.5 / np.log(10.0)
    falling = 2.5 * (5.0 / 3.0) * np.log10(1.0 + np.maximum(days, 0.0) / p["fall"])
    return np.asarray(np.minimum(rising + falling, NOT_YET))


def draw_tde(rng: np.random.Generator, n: int) -> Columns:
    """Tidal disruptions: luminosity dN/dlogL ~ L^-1.6 above nu L_nu(g) = 10^42.5 erg/s (van Velzen 2018).

    10^43 erg/s is M_g = -18.9. Times near those of van Velzen et al. 2021, ApJ 908, 4.
    """
    gr = rng.normal(-0.2, 0.1, n)
    log_l = 42.5 - np.log10(1.0 - rng.random(n)) / 1.6
    return {
        "abs_mag": -18.9 - 2.5 * (np.minimum(log_l, 45.0) - 43.0) - gr,
        "gr": gr,
        "sigma_rise": rng.lognormal(np.log(11.0), 0.4, n),
        "fall": rng.lognormal(np.log(70.0), 0.5, n),
        "redder": np.full(n, 0.3),
    }


def _skewed(rng: np.random.Generator, n: int, mode: float, low: float, high: float) -> F64:
    """(n,) of two half Gaussians that meet at the mode."""
    below = rng.random(n) < low / (low + high)
    size = np.abs(rng.standard_normal(n))
    return mode + np.where(below, -low * size, high * size)
