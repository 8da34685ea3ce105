"""Does simulation teach? The same trees learnt from simulated objects, from real ones, and from both.

Judged on real objects always, each by models that did not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broker.scores.calibration import softmax
from broker.simulate.lasting import REGULAR
from broker.simulate.like import Like
from broker.simulate.watched import FAINTEST
from broker.training.evaluate import Figure, balanced_accuracy
from broker.training.explosions import ZTF_SOURCES, load, random_windows
from broker.training.kinds import KINDS, Fitted
from broker.training.realism import area
from broker.training.sample import F64, Sample, joined, relabelled
from broker.training.selection import FOLDS, folds
from broker.training.simulated import simulated_lasting, simulated_like, taught_states
from broker.training.tasks import family, rare, transient

SETTINGS = {
    "trees": 120, "learning_rate": 0.06, "num_leaves": 8, "min_data_in_leaf": 20, "feature_fraction": 0.6,
}  # fmt: skip
TEACHERS = ("simulation only", "real only", "both")
MADE = 250
"""Simulated objects of each class."""
TDE = "TDE"
COARSE = {
    "SNIa": "SNIa", "SNII": "other SN", "SNIIn": "other SN", "SNIbc": "other SN", "SLSN": "SLSN", TDE: TDE,
}  # fmt: skip
"""Four classes of explosions that differ most."""
WINDOW_DAYS = 30.0
MOST_OF_SOURCE = 300
"""Objects of one class and source that are judged: SNe Ia would be nearly all."""


@dataclass(frozen=True)
class Compared:
    """One task on one set of real objects.

    objects : judged, by class;  balanced : balanced accuracy of each of TEACHERS
    areas   : for each of TEACHERS the AUC of each class against the others
    """

    task: str
    judged_on: str
    objects: dict[str, int]
    balanced: dict[str, Figure]
    areas: dict[str, dict[str, Figure]]


def compare(
    task: str,
    judged_on: str,
    made: Sample,
    real: Sample,
    judged: Sample,
    classes: Sequence[str],
    inputs: Sequence[str],
    seed: int,
) -> Compared:
    """Teach `classes` in each of three ways and judge `judged`, real rows with any labels of `classes`.

    Each fifth of the judged objects is judged by models that saw no row of these objects. Classes without a
    judged object are taught all the same.
    """
    judged = judged.take(judged.truth(classes) >= 0)
    fold = folds(judged.group, judged.label, seed)
    answers = {name: np.empty((len(judged), len(classes))) for name in TEACHERS}
    alone = _fitted([made], classes, inputs, seed).raw(judged.columns(inputs))
    answers[TEACHERS[0]] = softmax(alone)
    for held in range(FOLDS):
        rows = fold == held
        if not rows.any():
            continue
        known = real.take(~np.isin(real.group, judged.group[rows]))
        x = judged.columns(inputs)[rows]
        for name, parts in ((TEACHERS[1], [known]), (TEACHERS[2], [made, known])):
            answers[name][rows] = softmax(_fitted(parts, classes, inputs, seed).raw(x))
    truth = judged.truth(classes)
    present = [k for k in range(len(classes)) if (truth == k).any()]
    return Compared(
        task, judged_on,
        {classes[k]: len(np.unique(judged.group[truth == k])) for k in present},
        {
            name: balanced_accuracy(p, truth, judged, np.random.default_rng(seed))
            for name, p in answers.items()
        },
        {
            name: {
                classes[k]: area(
                    p[:, k], (truth == k).astype(np.int64), judged.group, np.random.default_rng(seed)
                )
                for k in present
            }
            for name, p in answers.items()
        },
    )  # fmt: skip


def supernovae(data: Path, like: Like, seed: int) -> list[Compared]:
    """The stage of supernova types: on the catalogue that teaches it, and on ZTF's objects."""
    classes, inputs = transient.CLASSES, transient.INPUTS
    made = taught_supernovae(like, (*classes, TDE), seed)
    real = transient.samples(data)
    stream = _of_ztf(data, seed)
    shown = {
        "osc_supernovae, 5-fold": real,
        "alert histories, taught by osc_supernovae": stream.take(stream.source == ZTF_SOURCES[0]),
        "all ZTF sources, taught by osc_supernovae": stream,
    }
    found = [
        compare("supernova type", name, made, real, judged, classes, inputs, seed)
        for name, judged in shown.items()
    ]
    made, stream = relabelled(made, COARSE), relabelled(stream, COARSE)
    judged_on = "all ZTF sources, 5-fold: each list holds one class, so that real ones teach the lists"
    coarse = tuple(dict.fromkeys(COARSE.values()))
    return [*found, compare("four classes", judged_on, made, stream, stream, coarse, inputs, seed)]


def taught_supernovae(like: Like, classes: Sequence[str], seed: int) -> Sample:
    """MADE simulated explosions of each class, in the states and features of `transient.samples`."""
    made = simulated_like(like, dict.fromkeys(classes, MADE), seed, FAINTEST)
    return taught_states(made, transient.LEAST_DETECTIONS, (transient.LEAST_DETECTIONS,), seed)


def families(data: Path, like: Like, seed: int) -> list[Compared]:
    """The stage of families, on light curves alone, without moving objects: none is simulated here."""
    classes = (family.TRANSIENT, family.STOCHASTIC, family.PERIODIC)
    known = family.samples(data)
    bare = np.asarray(np.isnan(known.columns(family.CONTEXT)).all(axis=1))
    real = known.take(bare)
    explosions = simulated_like(like, dict.fromkeys((*transient.CLASSES, TDE), MADE // 5), seed, FAINTEST)
    lasting = simulated_lasting(
        like, {"AGN": MADE, REGULAR: MADE // 2, "CV": MADE // 4, "YSO": MADE // 4}, seed
    )
    of_family = family.LABELS | {"CV": family.PERIODIC, REGULAR: family.PERIODIC}
    parts = [taught_states(each, 1, (), seed) for each in (explosions, lasting)]
    made = relabelled(joined(parts), of_family)
    return [compare("family", "alert histories, 5-fold", made, real, real, classes, family.LIGHT_CURVE, seed)]


def rare_classes(data: Path, seed: int) -> list[Compared]:
    """What is rare among labelled light curves, on the few real objects."""
    judged = rare.judged(data)
    made = rare.samples(data)
    return [
        compare(
            "rare classes", "alert histories, 5-fold", made, judged, judged, rare.CLASSES, rare.INPUTS, seed
        )
    ]


def _of_ztf(data: Path, seed: int) -> Sample:
    """Real objects with ZTF photometry in a random 30-day window each, at most MOST_OF_SOURCE of a kind."""
    rng = np.random.default_rng(seed)
    known = random_windows(load(data, ZTF_SOURCES), transient.LEAST_DETECTIONS, 1, WINDOW_DAYS, rng)
    known = known.take(np.isin(known.label, list(COARSE)))
    kept = np.zeros(len(known), dtype=bool)
    for source in np.unique(known.source):
        for label in np.unique(known.label):
            rows = np.flatnonzero((known.source == source) & (known.label == label))
            kept[rng.permutation(rows)[:MOST_OF_SOURCE]] = True
    return known.take(kept)


def _fitted(parts: Sequence[Sample], classes: Sequence[str], inputs: Sequence[str], seed: int) -> Fitted:
    """Boosted trees on the rows of `classes`; every sample, in it every class and object, counts the same."""
    rows = [part.take(part.truth(classes) >= 0) for part in parts]
    x: F64 = np.concatenate([part.columns(inputs) for part in rows])
    y = np.concatenate([part.truth(classes) for part in rows])
    weight = np.concatenate([part.weights() / len(part) for part in rows])
    return KINDS[0].fit(x, y, weight / weight.mean(), len(classes), SETTINGS, seed)
