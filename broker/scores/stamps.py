"""Real or bogus by an alert's images: a small network on the science, template and difference cutouts.

Off unless a setting asks for it: reading the images takes many times as long as reading the rest of an alert.
No other score looks at this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.cutouts import centres
from broker.errors import BundleError
from broker.scores.bundle import MANIFEST, Manifest, read_sealed, seal
from broker.scores.models import onnx_session
from broker.table import ColumnSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

STAMP_SPECS = (
    ColumnSpec(
        "stamp_score",
        "",
        "1 real .. 0 bogus by the alert's images (ZTF), where these are equally frequent; null unless "
        "run.stamps is set",
    ),
)
KIND = "stamps"
"""What the manifest of such a bundle calls itself."""
MODEL = "model.onnx"
SIDE = 27
"""Pixels each way that the network looks at, around the alert."""
IMAGE_SIDE = 63
"""Pixels each way of ZTF's cutouts."""
MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_ABSURD = 1e7
"""Masked pixels are NaN, or a number far beyond any full well: some templates have -3.4e38."""
_LEAST_VALID = 0.5
_AT_ONCE = 128


@dataclass(frozen=True)
class StampManifest:
    """What a bundle of this kind says about itself.

    survey : whose images it was trained on;  side : pixels of an input, each way
    temperature, bias : probability that it is real = 1 / (1 + exp(-(raw / temperature + bias)))
    training : figures of the training, for people
    """

    id: str
    version: str
    created: str
    survey: str
    side: int
    temperature: float
    bias: float
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stamps:
    """A loaded network."""

    manifest: StampManifest
    session: Any

    def score(self, survey: str, records: Sequence[bytes], cutouts: I64) -> F64:
        """(n,) probability that each alert is real, were real and bogus equally frequent.

        records, cutouts : of a batch of `survey`, as AlertBatch has them. NaN for alerts of a survey that the
        network was not trained on, and where an image is missing, unreadable, cut or half masked.
        """
        found = np.full(len(cutouts), np.nan)
        if survey != self.manifest.survey:
            return found
        for first in range(0, len(cutouts), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            found[part] = self.of_images(centres(records[part], cutouts[part], IMAGE_SIDE, SIDE))
        return found

    def of_images(self, images: F32) -> F64:
        """(n,) probabilities; NaN where an image says too little.  images : (n, 3, SIDE, SIDE) [counts]."""
        found = np.full(len(images), np.nan)
        inputs, good = prepare(images)
        if good.any():
            (raw,) = self.session.run(["raw"], {"inputs": inputs[good]})
            logit = np.asarray(raw, dtype=np.float64)[:, 0] / self.manifest.temperature + self.manifest.bias
            found[good] = 1.0 / (1.0 + np.exp(-logit))
        return found


class NotAsked:
    """The column where nobody looks at images: NaN for each row."""

    def score(self, matrix: F64) -> F64:
        """(n, 1) of NaN.  matrix : (n, k)."""
        return np.full((len(matrix), 1), np.nan)


def not_asked(folder: Path, manifest: Manifest) -> NotAsked:
    """The column of any bundle of light-curve models: `Pipeline` fills it if the setting is on."""
    return NotAsked()


def prepare(images: F32) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Images in units of the noise of the difference, without their sky, compressed.

    images : (n, 3, h, w) science, template, difference [counts], NaN or absurd where masked
    Returns (n, 3, h, w): arcsinh((x - median) / sigma), each image's own median, sigma = 1.4826 times the
    median absolute deviation of the difference; 0 where masked; and (n,) whether half or more of each of the
    three is valid and the noise is not 0.
    """
    valid = np.abs(images) < _ABSURD  # False for NaN
    clean = np.where(valid, images, np.float32(np.nan))
    centred = clean - _median(clean)[..., np.newaxis, np.newaxis]
    noise = np.float32(MAD_TO_SIGMA) * _median(np.abs(centred[:, 2]))
    good = (valid.mean(axis=(2, 3)) >= _LEAST_VALID).all(axis=1) & (noise > 0.0)
    scale = np.where(good, noise, np.float32(1.0))[:, np.newaxis, np.newaxis, np.newaxis]
    return np.nan_to_num(np.arcsinh(centred / scale), nan=0.0), good


def _median(images: F32) -> F32:
    """(...) median over the last two axes, of an even number the upper one, NaN left out; NaN if none is
    left.

    images : (..., h, w). numpy's nanmedian goes row by row in Python for as many as these.
    """
    flat = images.reshape(*images.shape[:-2], -1)
    middle = np.count_nonzero(~np.isnan(flat), axis=-1, keepdims=True) // 2
    return np.asarray(np.take_along_axis(np.sort(flat, axis=-1), middle, axis=-1)[..., 0])  # NaN sort last


def load_stamps(folder: Path) -> Stamps:
    """The network of a folder, every file of it checked.  Raises BundleError for anything else."""
    content = read_sealed(folder)
    try:
        if content.pop("kind", None) != KIND:
            raise BundleError(f"bundle {folder} is not one for images; broker train --stamps makes one")
        manifest = StampManifest(**content)
        if not (manifest.side == SIDE and manifest.temperature > 0.0 and np.isfinite(manifest.bias)):
            raise BundleError(f"bundle {folder}: {MANIFEST} does not fit this version; train it again")
        stamps = Stamps(manifest, onnx_session((folder / MODEL).read_bytes()))
        trial = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
        if not np.isfinite(stamps.of_images(trial)).all():
            raise BundleError(f"bundle {folder}: {MODEL} gives no number; train it again")
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise BundleError(f"bundle {folder}: {error!r}; get it anew, or make it with broker train") from error
    return stamps


def save_stamps(folder: Path, manifest: StampManifest, model: bytes) -> None:
    """Write a network into a folder, beside what is there, and seal it."""
    (folder / MODEL).write_bytes(model)
    seal(folder, {"kind": KIND, **asdict(manifest)})
