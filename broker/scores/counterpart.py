"""What the nearest catalogued source is (star, galaxy or quasar) and how far, from its colours alone.

Learnt on objects with SDSS magnitudes and spectra, asked with Pan-STARRS 1 magnitudes: these are first
brought into SDSS's system. No brightness and no shape is looked at: how bright the sample's stars and quasars
are is its own choice, and a point-source magnitude of a galaxy is not its magnitude. Colours are as observed:
dust makes stars look like galaxies, so near the galactic plane, where the sample has nothing, no answer is
given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError
from broker.scores.bundle import Manifest
from broker.scores.calibration import Calibration, reweighted
from broker.scores.models import Model, load_model
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CLASSES = ("star", "galaxy", "qso")
STAR, GALAXY, QSO = range(3)
DISTANT = ("galaxy", "qso")
"""The classes that have a redshift."""
BANDS = "griz"
MAGNITUDES = tuple(f"counterpart_mag_{band}" for band in BANDS)
LATITUDE = "abs_gal_b"
"""Context columns that are looked at."""
LEAST_LATITUDE_DEG = 20.0
"""Nearer to the galactic plane there is no answer: of the sample 99 % lie beyond 24 degrees."""
COLOURS = ("counterpart_gr", "counterpart_ri", "counterpart_iz")
"""Inputs of every model, in order."""
QUANTILES = (0.1, 0.5, 0.9)
FILE, NAME = "counterpart.json", "counterpart"

COUNTERPART_SPECS: tuple[ColumnSpec, ...] = (
    *(
        ColumnSpec(
            f"prob_counterpart_{name}",
            "",
            f"probability that the nearest catalogued source is a {name}, by colours; equal shares assumed",
        )
        for name in CLASSES
    ),
    ColumnSpec("counterpart_photoz", "", "its photometric redshift; null where it is surely a star"),
    ColumnSpec("counterpart_photoz_low", "", "80 % interval of that redshift: lower end"),
    ColumnSpec("counterpart_photoz_high", "", "80 % interval of that redshift: upper end"),
)

_TO_SDSS = np.array(
    [[0.013, 0.145, 0.019], [-0.001, 0.004, 0.007], [-0.005, 0.011, 0.010], [0.013, -0.039, -0.012]]
)
"""SDSS minus Pan-STARRS 1 magnitude in griz as a polynomial of the Pan-STARRS g - r, of stars (Tonry et al.
2012, ApJ 750, 99, table 6)."""
_USUAL_COLOUR = 0.6
"""g - r that stands for an unknown one: it then shifts r - i and i - z by less than 0.04 mag."""
_BLUEST, _REDDEST = -1.0, 2.5
"""Beyond these the polynomial is not followed any further."""
_SURELY = 0.95
"""A source that is a star with this probability has no redshift."""


@dataclass(frozen=True)
class Redshift:
    """Quantiles of ln(1 + z) of one class, and how much the outer two are widened to hold their share.

    models : of the QUANTILES;  margins : (2,) added outwards at the lower and the upper end
    """

    models: tuple[Model, ...]
    margins: tuple[float, float]

    def estimate(self, colours: F64) -> F64:
        """(n, 3) redshift, lower and upper end.  colours : (n, 3), NaN = unknown."""
        low, middle, high = (_value(model, colours) for model in self.models)
        low, high = low - self.margins[0], high + self.margins[1]
        ordered = np.stack([middle, np.minimum(low, middle), np.maximum(high, middle)], axis=1)
        return np.asarray(np.maximum(np.expm1(ordered), 0.0))


@dataclass(frozen=True)
class Counterpart:
    """Class and redshift by colours.

    magnitudes, latitude : columns of the bundle's matrix
    shares     : (3,) of the classes in the training sample: they decide which redshift is given
    """

    magnitudes: list[int]
    latitude: int
    classifier: Model
    calibration: Calibration
    shares: F64
    redshifts: Mapping[str, Redshift]

    def score(self, matrix: F64) -> F64:
        """Columns of COUNTERPART_SPECS for each row; NaN where no colour is known or dust may be in the way.

        matrix : (n, k) of the bundle's columns, with Pan-STARRS 1 magnitudes
        """
        colour = colours(to_sdss(matrix[:, self.magnitudes]))
        clear = matrix[:, self.latitude] >= LEAST_LATITUDE_DEG
        return self.judge(np.where(clear[:, np.newaxis], colour, np.nan))

    def judge(self, colour: F64) -> F64:
        """Columns of COUNTERPART_SPECS.  colour : (n, 3) of SDSS magnitudes, NaN = unknown."""
        found = np.full((len(colour), len(COUNTERPART_SPECS)), np.nan)
        known = np.flatnonzero(np.isfinite(colour).any(axis=1))
        if not len(known):
            return found
        probabilities = self.calibration.probabilities(self.classifier.raw(colour[known]))
        found[known, : len(CLASSES)] = probabilities
        for name, rows in self._branches(probabilities).items():
            if rows.any():
                found[known[rows], len(CLASSES) :] = self.redshifts[name].estimate(colour[known[rows]])
        return found

    def _branches(self, probabilities: F64) -> dict[str, Mask]:
        """Rows whose redshift is estimated as that of a galaxy and of a quasar."""
        usual = reweighted(probabilities, self.calibration.prior, self.shares)
        quasar = usual[:, QSO] > usual[:, GALAXY]
        distant = probabilities[:, STAR] < _SURELY
        return {"galaxy": distant & ~quasar, "qso": distant & quasar}


@dataclass(frozen=True)
class NoCounterpart:
    """What stands in where a bundle has no such models: every column is NaN."""

    def score(self, matrix: F64) -> F64:
        """(n, len(COUNTERPART_SPECS)) NaN."""
        return np.full((len(matrix), len(COUNTERPART_SPECS)), np.nan)


def _value(model: Model, colours: F64) -> F64:
    """(n,) what a model with one output says: `raw` gives each of two classes half of it, with signs."""
    raw = model.raw(colours)
    return np.asarray(raw[:, 1] - raw[:, 0])


def to_sdss(mags: F64) -> F64:
    """SDSS magnitudes of Pan-STARRS 1 ones.  mags : (n, 4) griz, NaN = unknown;  returns (n, 4).

    >>> to_sdss(np.array([[17.0, 16.5, 16.25, 16.0]])).round(3)
    array([[17.09 , 16.503, 16.253, 15.99 ]])
    """
    x = mags[:, 0] - mags[:, 1]
    x = np.clip(np.where(np.isnan(x), _USUAL_COLOUR, x), _BLUEST, _REDDEST)
    return np.asarray(mags + np.stack([np.ones_like(x), x, x * x], axis=1) @ _TO_SDSS.T)


def colours(mags: F64) -> F64:
    """(n, 3) g - r, r - i and i - z.  mags : (n, 4) griz."""
    return np.asarray(mags[:, :-1] - mags[:, 1:])


def load_counterpart(folder: Path, manifest: Manifest) -> Counterpart | NoCounterpart:
    """The models of a bundle whose files have been checked, if it has any; BundleError if they disagree."""
    if not (folder / FILE).exists():
        return NoCounterpart()
    names = [*manifest.feature_names, *manifest.context_names]
    missing = [name for name in (*MAGNITUDES, LATITUDE) if name not in names]
    if missing:
        raise BundleError(f"bundle {folder}: counterpart needs the columns {missing}; train it again")
    return read_counterpart(folder, [names.index(name) for name in MAGNITUDES], names.index(LATITUDE))


def read_counterpart(folder: Path, magnitudes: Sequence[int] = (), latitude: int = 0) -> Counterpart:
    """The models in a folder.

    magnitudes, latitude : columns of the matrix that `score` will be given; `judge` needs none
    """
    content = json.loads((folder / FILE).read_text())
    calibration = Calibration(
        float(content["temperature"]),
        *(np.array(content[name], dtype=np.float64) for name in ("bias", "prior", "quantiles")),
    )
    redshifts = {
        name: Redshift(
            tuple(load_model(folder, redshift_name(name, quantile)) for quantile in QUANTILES),
            (float(content["margins"][name][0]), float(content["margins"][name][1])),
        )
        for name in DISTANT
    }
    classifier = load_model(folder, NAME)
    answers = classifier.raw(np.full((1, len(COLOURS)), np.nan)).shape[1]
    if answers != len(CLASSES) or len(calibration.bias) != len(CLASSES):
        raise BundleError(f"bundle {folder}: counterpart has {answers} classes, not {len(CLASSES)}")
    shares = np.array(content["shares"], dtype=np.float64)
    return Counterpart(list(magnitudes), latitude, classifier, calibration, shares, redshifts)


def redshift_name(name: str, quantile: float) -> str:
    """Name of a model's file, without its ending, such as counterpart_galaxy_50."""
    return f"{NAME}_{name}_{round(100 * quantile)}"
