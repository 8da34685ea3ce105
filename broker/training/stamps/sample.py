"""What the network learns from and is judged on: injections, and alerts as the survey itself judged them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from broker.scores.stamps import IMAGE_SIDE, SIDE, prepare
from broker.training.stamps import inject
from broker.training.stamps.packets import Cutouts

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.str_]

WEAK_REAL, WEAK_BOGUS = "drb over 0.9", "drb or rb under 0.3"
"""Kinds of alerts that are as the packet has them; their labels are the survey's own opinion."""
REAL_DRB, BOGUS_SCORE = 0.9, 0.3
OFF_CENTRE, MISREGISTERED = "off centre", "misregistered template"
PARTS = ("train", "validation", "test")
_SHARES = (0.6, 0.2, 0.2)
REAL_EACH, BOGUS_EACH = 20, 17
"""Injections of point sources and of artefacts for each alert's images; two more bogus ones are cut from the
images themselves."""
WEAK_SHARE = 0.05
"""Of the weight of the sample: few alerts are called bogus, and only the survey says so."""


@dataclass(frozen=True)
class StampSample:
    """n labelled images.

    images : (n, 3, SIDE, SIDE) as `prepare` gives them;  real : (n,) 1 or 0;  kind : (n,) what it is
    field : (n,) patch of sky whose pixels it is made of;  weight : (n,) real and bogus count the same, and
    alerts as they are have WEAK_SHARE of all
    """

    images: F32
    real: F64
    kind: Strings
    field: I64
    weight: F64

    def __len__(self) -> int:
        return len(self.real)

    def take(self, rows: npt.NDArray[np.generic]) -> StampSample:
        """Some of the rows.  rows : indices or mask."""
        return StampSample(*(getattr(self, item.name)[rows] for item in fields(self)))

    @property
    def weak(self) -> Mask:
        """(n,) whether the label is the survey's opinion."""
        return np.isin(self.kind, (WEAK_REAL, WEAK_BOGUS))


def parts(cutouts: Cutouts, seed: int) -> Strings:
    """(n,) the part of each alert: those of one field are in one part.

    Fields where the survey's older score calls an alert bogus (rb < 0.3) are all in the test part: they are
    too few to share, and that score does not define the labels of training.
    """
    rng = np.random.default_rng(seed)
    names = np.unique(cutouts.field)
    kept = np.isin(names, cutouts.field[cutouts.rb < BOGUS_SCORE])
    disputed = np.isin(names, cutouts.field[weak_labels(cutouts) == 0.0])
    of_field = np.full(len(names), PARTS[-1], dtype="<U16")
    for rows in (np.flatnonzero(~kept & disputed), np.flatnonzero(~kept & ~disputed)):
        edges = np.rint(np.cumsum(_SHARES) * len(rows)).astype(np.int64)
        place = np.searchsorted(edges, np.arange(len(rows)), side="right")
        of_field[rng.permutation(rows)] = np.array(PARTS)[place]
    return of_field[np.searchsorted(names, cutouts.field)]


def weak_labels(cutouts: Cutouts) -> F64:
    """(n,) 1 where drb is over 0.9, 0 where drb or rb is under 0.3, NaN elsewhere."""
    bogus = (cutouts.drb < BOGUS_SCORE) | (cutouts.rb < BOGUS_SCORE)
    return np.where(bogus, 0.0, np.where(cutouts.drb > REAL_DRB, 1.0, np.nan))


def make_sample(cutouts: Cutouts, shapes: F64, seed: int) -> StampSample:
    """Injections into every alert's images, and the alerts that the survey is sure about.

    shapes : of point sources, taken from the same part of the data
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[F32, str, float, int]] = []
    for row in range(len(cutouts)):
        own = [(image, kind, real) for image, kind, real in _injected(cutouts, row, shapes, rng)]
        found += [(image, kind, real, int(cutouts.field[row])) for image, kind, real in own]
    label = weak_labels(cutouts)
    names = {1.0: WEAK_REAL, 0.0: WEAK_BOGUS}
    whole = centre(cutouts)
    for row in np.flatnonzero(~np.isnan(label)).tolist():
        found.append((whole[row], names[label[row]], label[row], int(cutouts.field[row])))
    images, good = prepare(np.stack([item[0] for item in found]))
    kind, real, field = (np.array([item[place] for item in found])[good] for place in (1, 2, 3))
    weak = np.isin(kind, list(names.values()))
    return StampSample(images[good], real.astype(np.float64), kind, field, weights(real, weak))


def centre(cutouts: Cutouts) -> F32:
    """(n, 3, SIDE, SIDE) the images as a served alert's are cut."""
    first = (IMAGE_SIDE - SIDE) // 2
    return cutouts.images[:, :, first : first + SIDE, first : first + SIDE]


def _injected(
    cutouts: Cutouts, row: int, shapes: F64, rng: np.random.Generator
) -> list[tuple[F32, str, float]]:
    """(image, kind, 1 real or 0 bogus) of what is made from one alert's images."""
    made: list[tuple[F32, str, float]] = []
    for crop in inject.crops(cutouts, row, REAL_EACH + BOGUS_EACH, rng):
        real = len(made) < REAL_EACH
        what = _drawn(inject.REAL if real else inject.BOGUS, rng)
        if inject.noise_of(crop[2]) > 0.0:
            image = what(crop, shapes[rng.integers(len(shapes))], rng)
            made.append((image, what.__name__.replace("_", " "), float(real)))
    made.append((inject.beside(cutouts, row, rng), OFF_CENTRE, 0.0))
    moved = inject.misregistered(cutouts, row, rng)
    return made if moved is None else [*made, (moved, MISREGISTERED, 0.0)]


def _drawn(table: Mapping[inject.Injection, float], rng: np.random.Generator) -> inject.Injection:
    return list(table)[rng.choice(len(table), p=list(table.values()))]


def weights(real: F64, weak: Mask) -> F64:
    """(n,) weights with mean 1 that give each label and each origin its share."""
    weight = np.zeros(len(real))
    shares = (WEAK_SHARE, 1.0 - WEAK_SHARE) if weak.any() else (0.0, 1.0)
    for origin, share in zip((weak, ~weak), shares, strict=True):
        for label in (0.0, 1.0):
            rows = origin & (real == label)
            if rows.any():
                weight[rows] = share / 2.0 / rows.sum()
    return np.asarray(weight / weight.mean())
