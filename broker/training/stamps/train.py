"""The whole run: real cutouts in; a sealed bundle and its report out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from broker.errors import BrokerError
from broker.scores.calibration import Calibration
from broker.scores.models import both_classes, onnx_session
from broker.scores.stamps import SIDE, StampManifest, prepare, save_stamps
from broker.training.calibrate import calibrate
from broker.training.stamps import inject, moments, network
from broker.training.stamps.judge import Candidate, Judgement, Row, area, kinds, rank, whole
from broker.training.stamps.packets import Cutouts, load_cutouts
from broker.training.stamps.report import card, write_report
from broker.training.stamps.sample import (
    BOGUS_SCORE,
    PARTS,
    REAL_DRB,
    StampSample,
    centre,
    make_sample,
    parts,
    weak_labels,
    weights,
)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Answer = Callable[[F32], F64]
"""Raw answers (n,), positive = real, to images (n, 3, SIDE, SIDE)."""
Progress = Callable[[float, str], None]

NAME, VERSION = "stamps", "1"
WIDTHS = ((8, 16, 32), (16, 32, 64))
"""Sizes of the network that are tried."""
RATE = 2e-3
MOST_DIFFERENT = 1e-5
"""Between the probabilities of the trained and of the exported network."""
NETWORK, INJECTIONS, TREES = "**the network**", "taught by injections alone", "LightGBM on 10 moments"


@dataclass(frozen=True)
class StampReport:
    """What a run leaves: the bundle's folder, the report's page, and what was measured."""

    bundle: Path
    page: Path
    judgement: Judgement


@dataclass(frozen=True)
class Learnt:
    """What validation chose, and its calibration."""

    parameters: network.Parameters
    candidates: Sequence[Candidate]
    chosen: Candidate
    calibration: Calibration


def run(alerts: Path, folder: Path, seed: int, epochs: int, tell: Progress) -> StampReport:
    """See `train_stamps`."""
    bundle = folder / f"{NAME}-v{VERSION}"
    if bundle.exists() and any(bundle.iterdir()):
        raise BrokerError(f"{bundle} is not empty; a bundle is never written over: give another folder")
    network.on_one_thread()
    tell(0.0, "stamps: reading cutouts")
    cutouts = load_cutouts(alerts)
    part = parts(cutouts, seed)
    tell(0.02, "stamps: injecting")
    samples = {name: _sample(cutouts.take(part == name), seed) for name in PARTS}
    learnt = choose(samples["train"], samples["validation"], seed, epochs, tell)
    content = network.to_onnx(learnt.parameters)
    check_export(content, lambda images: network.answers(learnt.parameters, images), samples["validation"])
    answers = _answers(learnt, samples["train"], seed, epochs, tell)
    tell(0.9, "stamps: evaluating on the test part")
    judgement = judge(cutouts, part, samples, learnt, answers, seed)
    tell(0.97, "stamps: writing the report")
    page = write_report(folder / "stamps-report", judgement)
    _write_bundle(bundle, judgement, learnt.calibration, content, cutouts)
    tell(1.0, "stamps: done")
    return StampReport(bundle, page, judgement)


def _sample(cutouts: Cutouts, seed: int) -> StampSample:
    """Injections of the part's own stars into the part's own images."""
    return make_sample(cutouts, inject.stars(cutouts.images[:, 0]), seed)


def choose(train: StampSample, validation: StampSample, seed: int, epochs: int, tell: Progress) -> Learnt:
    """The size with the least log-loss on validation, and the calibration there."""
    truth = validation.real.astype(np.int64)
    models, candidates, raws = [], [], []
    for number, widths in enumerate(WIDTHS):
        settings = network.Settings(widths, RATE, epochs)

        def step(done: float, number: int = number) -> None:
            tell(0.1 + 0.25 * (number + done), f"stamps: network {number + 1} of {len(WIDTHS)}")

        models.append(network.train(train, settings, seed, step))
        raws.append(network.answers(models[-1], validation.images))
        loss = np.average(np.logaddexp(0.0, raws[-1]) - truth * raws[-1], weights=validation.weight)
        auc = roc_auc_score(truth, raws[-1], sample_weight=validation.weight)
        candidates.append(Candidate(widths, float(loss), float(auc)))
    best = int(np.argmin([candidate.log_loss for candidate in candidates]))
    both = both_classes(raws[best][:, np.newaxis])
    calibration = calibrate(both, truth, validation.weight, validation.field.astype(np.str_))
    return Learnt(models[best], candidates, candidates[best], calibration)


def _answers(
    learnt: Learnt, train: StampSample, seed: int, epochs: int, tell: Progress
) -> Mapping[str, Answer]:
    """What is compared: the network, the same without the survey's opinion, and the baseline."""
    injected = train.take(~train.weak)
    injected = replace(injected, weight=weights(injected.real, injected.weak))
    alone = network.train(
        injected,
        network.Settings(learnt.chosen.widths, RATE, epochs),
        seed,
        lambda done: tell(0.6 + 0.28 * done, "stamps: a network without the survey's opinion"),
    )
    trees = moments.fit(train, seed)
    return {
        NETWORK: lambda images: network.answers(learnt.parameters, images),
        INJECTIONS: lambda images: network.answers(alone, images),
        TREES: lambda images: moments.answers(trees, images),
    }


def judge(
    cutouts: Cutouts,
    part: npt.NDArray[np.str_],
    samples: Mapping[str, StampSample],
    learnt: Learnt,
    answers: Mapping[str, Answer],
    seed: int,
) -> Judgement:
    """Everything that is measured on the test part, in the one look at it."""
    rng = np.random.default_rng(seed)
    test = samples["test"]
    injected = test.take(~test.weak)
    of_injected = {name: answer(injected.images) for name, answer in answers.items()}
    own = cutouts.take(part == "test")
    of_alerts, survey = _on_alerts(own, answers), {"the survey's drb": own.drb, "the survey's rb": own.rb}
    both = {**of_alerts, **survey}
    raw = both_classes(answers[NETWORK](test.images)[:, np.newaxis])
    probability = learnt.calibration.probabilities(raw)[:, 1]
    balanced, loss, score, calibration = whole(probability, test, rng)
    return Judgement(
        name=f"{NAME}-v{VERSION}",
        seed=seed,
        packets={name: _counts(cutouts.take(part == name)) for name in PARTS},
        images={name: (int(s.real.sum()), int((s.real == 0.0).sum())) for name, s in samples.items()},
        candidates=learnt.candidates,
        chosen=learnt.chosen,
        temperature=learnt.calibration.temperature,
        injected=[area(n, z, injected.real, injected.field, rng) for n, z in of_injected.items()],
        by_rb=_against(both, _by_rb(own), own, rng),
        by_either=_against(both, weak_labels(own), own, rng),
        drb_rank=rank(of_alerts[NETWORK], own.drb),
        kinds=kinds(probability, test, rng),
        balanced_accuracy=balanced,
        log_loss=loss,
        brier=score,
        calibration=calibration,
        curves={name: _curve(injected.real, z) for name, z in of_injected.items()},
    )


def _on_alerts(cutouts: Cutouts, answers: Mapping[str, Answer]) -> dict[str, F64]:
    """Raw answers to alerts as they are, NaN where their images say too little."""
    images, good = prepare(centre(cutouts))
    found = {name: np.full(len(images), np.nan) for name in answers}
    for name, answer in answers.items():
        found[name][good] = answer(images[good])
    return found


def _by_rb(cutouts: Cutouts) -> F64:
    """(n,) 0 where rb is under 0.3, 1 where drb is over 0.9, NaN elsewhere."""
    return np.where(cutouts.rb < BOGUS_SCORE, 0.0, np.where(cutouts.drb > REAL_DRB, 1.0, np.nan))


def _against(scores: Mapping[str, F64], label: F64, cutouts: Cutouts, rng: np.random.Generator) -> list[Row]:
    """Each score against the survey's opinion.  label : (n,) 1, 0 or NaN"""
    rows = np.isfinite(label)
    return [area(name, z[rows], label[rows], cutouts.field[rows], rng) for name, z in scores.items()]


def _curve(real: F64, score: F64) -> tuple[F64, F64]:
    false, true, _ = roc_curve(real, score)
    return false, true


def _counts(cutouts: Cutouts) -> tuple[int, int]:
    return len(cutouts), len(np.unique(cutouts.field))


def check_export(content: bytes, trained: Answer, test: StampSample) -> float:
    """The largest difference of the raw answers of the trained and of the exported network, over their scale.

    BrokerError if it is over MOST_DIFFERENT.
    """
    (raw,) = onnx_session(content).run(["raw"], {"inputs": test.images})
    ours = trained(test.images)
    largest = float(np.max(np.abs(raw[:, 0] - ours) / np.maximum(1.0, np.abs(ours))))
    if largest > MOST_DIFFERENT:
        raise BrokerError(f"the exported network answers otherwise than the trained one, by {largest:.1e}")
    return largest


def _write_bundle(
    folder: Path, judgement: Judgement, calibration: Calibration, content: bytes, cutouts: Cutouts
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.md").write_text(card(judgement))
    training = {
        "seed": judgement.seed,
        "data": {"packets": len(cutouts), "sha256": _sha256(cutouts)},
        "libraries": {name: version(name) for name in ("jax", "lightgbm", "scikit-learn")},
        "widths": list(judgement.chosen.widths),
        "packets": judgement.packets,
        "test": {
            "auc_injected": asdict(judgement.injected[0].auc),
            "auc_rb_under_0.3": asdict(judgement.by_rb[0].auc),
            "balanced_accuracy": asdict(judgement.balanced_accuracy),
            "ece": judgement.calibration.ece,
        },
    }
    manifest = StampManifest(
        id=NAME,
        version=VERSION,
        created=datetime.now(UTC).strftime("%Y-%m-%d"),
        survey="ztf",
        side=SIDE,
        temperature=calibration.temperature,
        bias=float(calibration.bias[1] - calibration.bias[0]),
        training=training,
    )
    save_stamps(folder, manifest, content)


def _sha256(cutouts: Cutouts) -> str:
    """Of the alerts' ids and images: what the network was taught from."""
    return hashlib.sha256(cutouts.candid.tobytes() + cutouts.images.tobytes()).hexdigest()
