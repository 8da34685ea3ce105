"""How frequent each kind of explosion is, and which of them a magnitude-limited survey gets to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.cosmology import FlatLambdaCDM

from broker.simulate.supernovae import (
    Columns,
    Draw,
    Fading,
    draw_ia,
    draw_ibc,
    draw_ii,
    draw_iin,
    draw_slsn,
    draw_tde,
    fading_ia,
    fading_ii,
    fading_pulse,
    fading_tde,
)

F64 = npt.NDArray[np.float64]

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
CORE_COLLAPSE = 9.1e4
"""Core-collapse SNe per Gpc^3 and year: Frohmaier et al. 2021, MNRAS 500, 5142."""
SHARE_IBC = 0.25
SHARE_IIN = 0.75 * 0.086
"""Shares of core collapses: Li et al. 2011, MNRAS 412, 1441 (Ibc 19 to II 57, and 8.6 % of the SNe II)."""
_STEPS = 400
_CHUNK = 100_000


@dataclass(frozen=True)
class Population:
    """One kind of explosion in the universe.

    label  : the class;  rate : of them per comoving Gpc^3 and year of their own time, here and now
    draw   : parameters at random, `abs_mag` (peak r) among them;  fading : the light curve
    hot    : whether its spectrum is so blue that its flux density hardly changes with frequency (then the
             magnitude gains 2.5 log10(1 + z) by the redshift); for the others that is left out
    farthest : redshift beyond which none is bright enough
    """

    label: str
    rate: float
    draw: Draw
    fading: Fading
    hot: bool
    farthest: float


TDE_RATE = 1e9 * 10**-6.8 * 10**0.8 / (1.6 * np.log(10.0))
"""Disruptions per Gpc^3 and year above nu L_nu(g) = 10^42.5 erg/s: van Velzen 2018, ApJ 852, 72, who finds
10^-6.8 per Mpc^3, year and dex at 10^43 erg/s and a slope of -1.6, integrated."""

POPULATIONS: tuple[Population, ...] = (
    # Perley et al. 2020, ApJ 904, 35
    Population("SNIa", 2.35e4, draw_ia, fading_ia, hot=False, farthest=0.3),
    Population(
        "SNII",
        CORE_COLLAPSE * (1.0 - SHARE_IBC - SHARE_IIN),
        draw_ii,
        fading_ii,
        hot=False,
        farthest=0.2,
    ),
    Population("SNIbc", CORE_COLLAPSE * SHARE_IBC, draw_ibc, fading_pulse, hot=False, farthest=0.2),
    Population("SNIIn", CORE_COLLAPSE * SHARE_IIN, draw_iin, fading_pulse, hot=False, farthest=0.3),
    # Frohmaier et al. 2021, MNRAS 500, 5142 (type I)
    Population("SLSN", 35.0, draw_slsn, fading_pulse, hot=True, farthest=0.8),
    Population("TDE", TDE_RATE, draw_tde, fading_tde, hot=True, farthest=0.6),
)  # fmt: skip


def magnitude_limited(
    population: Population, faintest: float, n: int, rng: np.random.Generator
) -> tuple[Columns, float]:
    """Objects of a population that peak brighter than a magnitude, and how many there are in sky and year.

    faintest : peak r magnitude [AB mag];  n : wanted objects.  Returns (parameters, each (n,), also
    `redshift` and `mag_r`; expected number a year). Redshifts follow the comoving volume and the slowed
    clock, dN/dz ~ dV/dz / (1 + z); rates do not evolve. ValueError if next to none is bright enough.
    """
    edges = np.linspace(1e-4, population.farthest, _STEPS)
    per_z = COSMOLOGY.differential_comoving_volume(edges).value * 4.0 * np.pi / (1.0 + edges)
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (per_z[1:] + per_z[:-1]) * np.diff(edges))])
    modulus = COSMOLOGY.distmod(edges).value
    parts: list[Columns] = []
    drawn = found = 0
    while found < n or drawn < _CHUNK:
        z = np.interp(rng.random(_CHUNK) * cumulative[-1], cumulative, edges)
        p = population.draw(rng, _CHUNK)
        gain = 2.5 * np.log10(1.0 + z) if population.hot else 0.0
        mag = p["abs_mag"] + np.interp(z, edges, modulus) - gain
        # dust of our own galaxy, a little of it everywhere
        ebv = rng.exponential(0.03, _CHUNK)
        mag, colour = mag + 2.3 * ebv, p["gr"] + 1.0 * ebv + p["redder"] * z
        keep = mag < faintest
        kept = {name: values[keep] for name, values in p.items()}
        parts.append(kept | {"redshift": z[keep], "mag_r": mag[keep], "gr": colour[keep]})
        drawn, found = drawn + _CHUNK, found + int(keep.sum())
        if drawn > 10 * _CHUNK and found == 0:
            raise ValueError(f"no {population.label} is brighter than {faintest} mag")
    yearly = population.rate * 1e-9 * cumulative[-1] * found / drawn
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}, yearly


def expected_mix(
    faintest: float, seed: int, populations: Sequence[Population] = POPULATIONS
) -> dict[str, float]:
    """Shares of each kind among all that peak brighter than a magnitude; they sum to 1."""
    yearly = {
        one.label: magnitude_limited(one, faintest, 0, np.random.default_rng([seed, k]))[1]
        for k, one in enumerate(populations)
    }
    return {label: number / sum(yearly.values()) for label, number in yearly.items()}
