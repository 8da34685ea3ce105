"""Stars and nuclei that are always there, as difference imaging sees them: above or below their template.

Regular variables, dwarf novae and flare stars are those of `broker.simulate.objects`. Magnitudes and colours
only need to spread as widely as real ones do: no rate is claimed for any of these kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.astro.photometry import mag_to_njy
from broker.simulate.like import BAND_NAMES, Like
from broker.simulate.objects import KINDS, Draw, Params, Shape
from broker.simulate.watched import FIRST_DAY, Watched, joined_seasons, observe

F64 = npt.NDArray[np.float64]

REGULAR = "regular"
"""RR Lyrae stars, Cepheids, eclipsing binaries and long-period variables together."""
_OF_OBJECTS = {
    "RRLyrae": REGULAR, "CEP": REGULAR, "EB": REGULAR, "LPV": REGULAR,
    "CV": "CV", "MDwarfFlare": "MDwarfFlare",
}  # fmt: skip
_WAVES = 48
WATCHED_DAYS = 60.0
"""A place is watched so long: an alert packet tells of the last 30 days of it."""


@dataclass(frozen=True)
class Lasting:
    """A kind of object that the template holds.  label : the class;  draw, shape : as of `objects.Kind`."""

    label: str
    draw: Draw
    shape: Shape


def damped_walk(mjd: F64, tau_days: float, sigma_mag: float, seed: int) -> F64:
    """Magnitudes of a damped random walk: correlated over tau, forgetful beyond.

    mjd : (n,) [day];  sigma_mag : standard deviation over all times [mag];  seed : names the realisation
    Returns (n,) [mag]. Sum of waves with random phases and the walk's spectrum 1 / (1 + (2 pi f tau)^2)
    (Kelly et al. 2009, ApJ 698, 895).
    """
    rng = np.random.default_rng(seed)
    edges = np.geomspace(1.0 / (40.0 * tau_days), 5.0, _WAVES + 1)
    frequency = np.sqrt(edges[1:] * edges[:-1])
    power = np.arctan(2.0 * np.pi * tau_days * edges)
    amplitude = sigma_mag * np.sqrt(2.0 * np.diff(power) / (power[-1] - power[0]))
    phase = rng.random(_WAVES)
    waves = np.sin(2.0 * np.pi * (np.asarray(mjd)[:, np.newaxis] * frequency + phase))
    return np.asarray(waves @ amplitude)


def nucleus(mjd: F64, band: str, p: Params) -> F64:
    """Active nucleus: a damped random walk, a quarter stronger in g (MacLeod et al. 2010, ApJ 721, 1014)."""
    swing = damped_walk(mjd, p["tau"], p["sigma"] * (1.25 if band == "g" else 1.0), int(p["seed"]))
    return np.asarray(10.0 ** (-0.4 * swing))


def draw_nucleus(rng: np.random.Generator) -> dict[str, float]:
    """Walk of an AGN: times and strengths near those of MacLeod et al. 2010; blazars swing far more."""
    sigma = 0.2 * 10.0 ** rng.normal(0.0, 0.25)
    return _star(rng, rng.uniform(16.0, 20.0), gr=rng.normal(0.3, 0.25)) | {
        "tau": 10.0 ** rng.normal(2.2, 0.4),
        "sigma": min(sigma, 1.2),
    }


def young_star(mjd: F64, band: str, p: Params) -> F64:
    """Young star: hours to weeks of irregular change, dips where dust passes.

    Kinds of change: Cody & Hillenbrand 2018, AJ 156, 71.
    """
    grey = 1.25 if band == "g" else 1.0
    flicker = damped_walk(mjd, p["tau"], p["sigma"] * grey, int(p["seed"]))
    slow = damped_walk(mjd, p["tau_slow"], p["sigma_slow"] * grey, int(p["seed"]) + 1)
    phase = np.modf(np.asarray(mjd) / p["dip_every"] + p["phase_0"])[0]
    dip = p["dip"] * grey * np.exp(-0.5 * ((phase - 0.5) / p["dip_width"]) ** 2)
    return np.asarray(10.0 ** (-0.4 * (flicker + slow + dip)))


def draw_young_star(rng: np.random.Generator) -> dict[str, float]:
    """Walks and dips of a young star: reddened, most of a few tenths of a magnitude, some of two."""
    return _star(rng, rng.uniform(14.5, 19.5), gr=rng.normal(1.3, 0.3)) | {
        "tau": 10.0 ** rng.uniform(0.0, 1.2),
        "sigma": 0.12 * 10.0 ** rng.normal(0.0, 0.25),
        "tau_slow": 10.0 ** rng.uniform(1.5, 3.0),
        "sigma_slow": min(0.25 * 10.0 ** rng.normal(0.0, 0.3), 1.5),
        "dip": rng.uniform(0.2, 1.5) if rng.random() < 0.3 else 0.0,
        "dip_every": rng.uniform(5.0, 60.0),
        "dip_width": rng.uniform(0.03, 0.12),
    }


def lensed_star(mjd: F64, band: str, p: Params) -> F64:
    """Microlensing: a symmetric rise and fall without colour, of the share of the light that is lensed.

    A = (u^2 + 2) / (u sqrt(u^2 + 4)), u^2 = u0^2 + ((t - t0) / tE)^2 (Paczynski 1986, ApJ 304, 1).
    """
    u = np.sqrt(p["u0"] ** 2 + ((np.asarray(mjd) - p["t0"]) / p["t_e"]) ** 2)
    magnified = (u**2 + 2.0) / (u * np.sqrt(u**2 + 4.0))
    return np.asarray(1.0 + p[f"share_{band}"] * (magnified - 1.0))


def draw_lensed_star(rng: np.random.Generator) -> dict[str, float]:
    """An event during the season: durations of Mroz et al. 2019 (ApJS 244, 29), about 25 days."""
    share = rng.uniform(0.3, 1.0)
    return _star(rng, rng.uniform(16.0, 20.5), gr=rng.normal(0.9, 0.3)) | {
        "u0": rng.uniform(0.01, 0.8),
        "t_e": 25.0 * 10.0 ** rng.normal(0.0, 0.3),
        "t0": FIRST_DAY + rng.uniform(0.0, WATCHED_DAYS),
        "share_g": min(share * 10.0 ** rng.normal(0.0, 0.05), 1.0),
        "share_r": share,
    }


def _star(rng: np.random.Generator, mag_r: float, gr: float) -> dict[str, float]:
    seed = float(rng.integers(2**31))
    return {"mag_r": mag_r, "gr": gr, "seed": seed, "phase_0": rng.random(), "salt": rng.uniform(0.0, 50.0)}


LASTING: tuple[Lasting, ...] = (
    Lasting("AGN", draw_nucleus, nucleus),
    Lasting("YSO", draw_young_star, young_star),
    Lasting("Microlensing", draw_lensed_star, lensed_star),
    *(Lasting(_OF_OBJECTS[k.label], k.draw, k.shape) for k in KINDS if k.label in _OF_OBJECTS),
)
"""Every kind; a label that several kinds share is dealt out evenly among them."""


def watch_lasting(like: Like, counts: Mapping[str, int], seed: int) -> Watched:
    """Objects as a real survey's difference imaging sees them, about `counts` of each label.

    Only those with a detection, so that all classes are what an alert stream holds; twenty times as many are
    tried at most.
    """
    parts, truth = [], []
    for number, kind in enumerate(LASTING):
        shared = sum(other.label == kind.label for other in LASTING)
        wanted, rng = -(-counts.get(kind.label, 0) // shared), np.random.default_rng([seed, 100 + number])
        tries = 0
        while wanted and tries < 20 * counts[kind.label]:
            tries += 1
            p = kind.draw(rng)
            seen = _watched_place(like, kind, p, rng)
            if len(seen[0]):
                parts.append(seen)
                truth.append((kind.label, np.nan, p["mag_r"], np.nan))
                wanted -= 1
    return joined_seasons(parts, truth)


def _watched_place(
    like: Like, kind: Lasting, p: Params, rng: np.random.Generator
) -> tuple[F64, F64, F64, npt.NDArray[np.int64]]:
    """Detections of one object in its season; the template is an older image of the same object."""
    day, band, sky_err = like.schedule(WATCHED_DAYS, rng)
    before = FIRST_DAY - rng.uniform(300.0, 1500.0)
    difference = np.empty(len(day))
    for number, name in enumerate(BAND_NAMES):
        own = band == number
        level = float(mag_to_njy(p["mag_r"] + (p["gr"] if name == "g" else 0.0)))
        # made of several nights, so that an outburst is not in it
        template = float(np.median(kind.shape(before + 17.0 * np.arange(8.0), name, p)))
        difference[own] = level * (kind.shape(FIRST_DAY + day[own], name, p) - template)
    return observe(FIRST_DAY + day, difference, band, sky_err, like, rng)
