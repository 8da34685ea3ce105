"""What labelled light curves hold too few of to learn from: learnt from simulation, judged on real objects.

Among all that varies where the template already has light: active nuclei, dwarf novae, young stars, flares,
microlensing, and the regular variables as one class. The simulation borrows cadence, depth and errors from
the real histories of the folder; every figure is of real objects, by their published labels. It is judged in
the report only: a stage that splits the family of stars needs its regular ones told apart, and they are not.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from broker.simulate.lasting import REGULAR
from broker.simulate.like import SOURCE as REAL
from broker.simulate.like import read_like
from broker.training.explosions import Explosions, after, last_of_all, load
from broker.training.sample import Sample, relabelled
from broker.training.simulated import simulated_lasting, taught_states
from broker.training.task import Task

NAME = "rare"
CLASSES = ("AGN", "CV", "YSO", "MDwarfFlare", "Microlensing", REGULAR)
LABELS = {
    "AGN": "AGN",
    "CV/Nova": "CV",
    "YSO": "YSO",
    **dict.fromkeys(("RRLyrae", "CEP", "DSCT", "EB", "LPV", "RotV"), REGULAR),
}
"""Published label to the class it is judged as. No real flare or microlensing event is labelled."""
INPUTS = (
    "age_days", "frac_negative", "slope", "last_to_peak", "amplitude", "reduced_chi2",
    "skew_g", "skew_r", "von_neumann_g", "von_neumann_r", "stetson_k_g", "stetson_k_r",
    "color_gr", "color_gr_first", "color_gr_rate", "rise_rate_g", "rise_rate_r", "fade_rate_g", "fade_rate_r",
)  # fmt: skip
PARAMETRIC = ("fit_days_since_peak", "fit_rise_days", "fit_fall_days", "fit_gain")
LEAST_DETECTIONS = 3
EARLY = (1, 2, 3, 5, 10, 20)
TAUGHT_EARLY = (3, 5)
MADE = 300
SEED = 11
CAVEATS = (
    "learnt from simulation alone.",
    "no flare and no microlensing event is among the real labelled objects: these two are not tested.",
    "on real objects regular variables are told from the rest no better than by chance: no scores served.",
)


def samples(data: Path) -> Sample:
    """Simulated objects of every class, in random 30-day windows and after 3 and 5 detections."""
    made = simulated_lasting(read_like(data), dict.fromkeys(CLASSES, MADE), SEED)
    return taught_states(made, LEAST_DETECTIONS, TAUGHT_EARLY, SEED)


def last_states(data: Path) -> Sample:
    """Every real object of the alert histories as it was last seen."""
    return relabelled(last_of_all(_real(data)), LABELS)


def early_states(data: Path) -> Sample:
    """Every real object after its first 1, 2, 3, 5, 10, 20 detections."""
    return relabelled(after(_real(data), EARLY), LABELS)


@lru_cache(maxsize=1)
def _real(data: Path) -> Explosions:
    return load(data, (REAL,))


def judged(data: Path) -> Sample:
    """The last states of the real objects of CLASSES with LEAST_DETECTIONS."""
    sample = last_states(data)
    return sample.take((sample.truth(CLASSES) >= 0) & (sample.n_detections >= LEAST_DETECTIONS))


TASK = Task(
    NAME, "periodic", CLASSES, INPUTS, PARAMETRIC, (REAL,), LEAST_DETECTIONS,
    samples, last_states, early_states, CAVEATS,
)  # fmt: skip
