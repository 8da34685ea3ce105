"""Simulated explosions as rows to learn from: the same states and features as of real ones.

Real light curves lend their rhythm, depth and errors (`broker.simulate.like`), published rates and
luminosities the mix (`broker.simulate.populations`). The states are cut by the very functions that cut
the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from broker.astro.bands import BAND_INDEX
from broker.simulate.like import BAND_NAMES, Like, read_like
from broker.simulate.watched import Watched, watch
from broker.training.explosions import STREAM_SNR, Explosions
from broker.training.sample import I64

SOURCE = "simulated"


def simulated(data: Path, counts: Mapping[str, int], seed: int) -> Explosions:
    """Explosions as the ZTF of a labelled folder would have seen them.

    counts : how many of each label are made; the few never detected have no points
    Raises BrokerError for a folder without real histories.
    """
    return as_explosions(watch(read_like(data), counts, seed))


def simulated_like(like: Like, counts: Mapping[str, int], seed: int, faintest: float) -> Explosions:
    """The same with real histories that were read before, down to another peak magnitude."""
    return as_explosions(watch(like, counts, seed, faintest))


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
