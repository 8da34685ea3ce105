"""Which kind of supernova: learnt from the Open Supernova Catalog alone, judged on it and on the ZTF lists.

One source, because each published list holds one class: a model over several of them learns the lists.
Tidal disruption events, which the catalogue lacks, are therefore not learnt. Each object is shown at
several moments of its life, so that the model serves early light curves too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from broker.training.explosions import OSC, ZTF_SOURCES, after, in_one_band, last_of_all, load, random_windows
from broker.training.sample import Sample, joined

NAME = "transient"
PARENT = "transient"
CLASSES = ("SNIa", "SNII", "SNIIn", "SNIbc", "SLSN")
LEAST_DETECTIONS = 5
PARAMETRIC = ("fit_days_since_peak", "fit_rise_days", "fit_fall_days", "fit_gain")
"""Of the fitted transient; its chi2 tells how honest a survey's errors are, its fluxes how deep it is."""
INPUTS = (
    "age_days",
    "days_since_peak", "days_since_peak_g", "days_since_peak_r",
    "rise_rate_g", "rise_rate_r", "fade_rate_g", "fade_rate_r", "slope_g", "slope_r",
    "last_to_peak_g", "last_to_peak_r", "amplitude_g", "amplitude_r",
    "skew_g", "skew_r", "von_neumann_g", "von_neumann_r", "stetson_k_g", "stetson_k_r",
    "color_gr", "color_gr_first", "color_gr_rate",
    "rise_50_days", "rise_75_days", "fall_75_days", "fall_50_days", "fall_25_days",
    "fade_15d", "fade_30d", "width_days",
    *PARAMETRIC,
)  # fmt: skip
CAVEATS = (
    "in the Open Supernova Catalog the bands that are missing tell part of the class.",
    "tidal disruption events are not taught; most come out as SLSN.",
    "after 5 detections of an alert's history it is hardly better than a guess: nearly all is called SNIa.",
)
TAUGHT_BY = (OSC,)
SOURCES = (OSC, *ZTF_SOURCES)
EARLY = (1, 2, 3, 5, 10, 20)
WINDOWS, WINDOW_DAYS = 4, 30.0
"""Moments at which an object is shown as an alert packet would show it, and what that holds."""
LEAST_IN_BOTH = 3
"""Detections in each slot of an object that is also shown with one slot alone."""
SEED = 5
REDSHIFT = "redshift"


def samples(data: Path) -> Sample:
    """Objects of the catalogue as they were last seen, after 5, 10, 20 detections, and in random windows.

    Those well seen in both slots are shown with one of them alone, too: as the catalogue stands, which bands
    an object has nearly tells its class.
    """
    known, rng = load(data, TAUGHT_BY), np.random.default_rng(SEED)
    parts = [
        last_of_all(known),
        after(known, [count for count in EARLY if count >= LEAST_DETECTIONS]),
        random_windows(known, LEAST_DETECTIONS, WINDOWS, WINDOW_DAYS, rng),
    ]
    for band in "gr":
        alone = in_one_band(known, band, LEAST_IN_BOTH)
        parts += [last_of_all(alone), random_windows(alone, LEAST_DETECTIONS, 1, WINDOW_DAYS, rng)]
    return joined(parts)


def with_redshift(data: Path) -> Sample:
    """`samples` of the objects whose redshift is known, with a column `redshift`: for the report alone.

    The stream knows no redshift when it matters: this says what a spectrum of the host would add.
    """
    sample = samples(data)
    known = load(data, TAUGHT_BY)
    redshift = dict(zip(known.object.tolist(), known.redshift.tolist(), strict=True))
    column = np.array([redshift[name] for name in sample.object.tolist()])
    wider = replace(
        sample,
        names=(*sample.names, REDSHIFT),
        features=np.column_stack([sample.features, column]),
    )
    return wider.take(np.isfinite(column))


def last_states(data: Path) -> Sample:
    """Every object of SOURCES as it was last seen."""
    return last_of_all(load(data, SOURCES))


def early_states(data: Path) -> Sample:
    """Every object of SOURCES after its first 1, 2, 3, 5, 10, 20 detections."""
    return after(load(data, SOURCES), EARLY)
