"""Simulated explosions as rows to learn from: the same states and features as of real ones.

Real light curves lend their rhythm, depth and errors (`broker.simulate.like`), published rates and
luminosities the mix (`broker.simulate.populations`). The states are cut by the very functions that cut
the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from broker.astro.bands import BAND_INDEX
from broker.simulate.lasting import watch_lasting
from broker.simulate.like import BAND_NAMES, Like
from broker.simulate.watched import FAINTEST, Watched, watch
from broker.training.explosions import STREAM_SNR, Explosions, after, random_windows
from broker.training.sample import I64, Sample, joined

SOURCE = "simulated"
WINDOWS, WINDOW_DAYS = 3, 30.0
"""Random moments at which an object is shown as an alert packet would show it, and what that holds."""


def simulated_like(
    like: Like, counts: Mapping[str, int], seed: int, faintest: float = FAINTEST
) -> Explosions:
    """Explosions as a real survey would have seen them.

    like : its histories, of `read_like`;  counts : how many of each label are made; the few never detected
    have no points;  faintest : peak r magnitude
    """
    return as_explosions(watch(like, counts, seed, faintest))


def simulated_lasting(like: Like, counts: Mapping[str, int], seed: int) -> Explosions:
    """Stars and nuclei that are always there, in the same form."""
    return as_explosions(watch_lasting(like, counts, seed))


def taught_states(made: Explosions, least: int, early: Sequence[int], seed: int) -> Sample:
    """Simulated objects as a task learns from them: in random 30-day windows, and after few detections.

    least : detections that a window must hold;  early : detections of the further states
    """
    rng = np.random.default_rng(seed)
    windows = random_windows(made, least, WINDOWS, WINDOW_DAYS, rng)
    return joined([windows, after(made, early)]) if early else windows


def as_explosions(watched: Watched) -> Explosions:
    """Detections of STREAM_SNR and more, as the readers of real sources keep them."""
    owner = np.repeat(np.arange(len(watched.label)), np.diff(watched.starts))
    keep = np.abs(watched.flux) >= STREAM_SNR * watched.err
    slot = np.array([BAND_INDEX[name] for name in BAND_NAMES], dtype=np.uint8)
    names = np.array([f"{SOURCE}-{number}" for number in range(len(watched.label))], dtype=np.str_)
    return Explosions(
        time=watched.time[keep],
        flux=watched.flux[keep],
        err=watched.err[keep],
        band=slot[watched.band[keep]],
        starts=_starts(owner[keep], len(names)),
        source=np.full(len(names), SOURCE),
        object=names,
        group=names,
        label=watched.label,
        redshift=watched.redshift,
    )


def _starts(owner: I64, objects: int) -> I64:
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=objects))]).astype(np.int64)
