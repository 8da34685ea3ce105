"""The baseline: ten numbers that one would measure on the images, and boosted trees."""

from __future__ import annotations

import lightgbm
import numpy as np
import numpy.typing as npt

from broker.training.stamps.sample import StampSample

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MOMENTS = (
    "peak", "deepest_to_peak", "peak_offset", "concentration", "negative_share", "width", "sharpness",
    "science_peak", "template_peak", "masked_share",
)  # fmt: skip
_TREES = 100
_SETTINGS = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.1, "verbosity": -1, "num_threads": 1}


def moments(images: F32) -> F64:
    """(n, 10) what MOMENTS names, within 3 pixels of the centre unless said otherwise; finite.

    images : (n, 3, h, w) of `prepare`. Brightest pixel [sigma]; darkest over brightest; distance of the
    brightest of the whole difference [pixel]; share of the absolute flux within 1 pixel; share of pixels
    below 0; root of the second moment of the positive flux [pixel]; brightest over the mean of its
    neighbours; brightest pixel of science and template [sigma]; share of masked pixels of all.
    """
    science, template, difference = np.moveaxis(np.sinh(images.astype(np.float64)), 1, 0)
    middle = images.shape[-1] // 2
    near = slice(middle - 3, middle + 4)
    core = difference[:, near, near]
    flat = core.reshape(len(core), -1)
    peak, deepest = flat.max(axis=1), flat.min(axis=1)
    positive = np.maximum(core, 0.0)
    radius2 = np.add.outer(np.arange(-3, 4) ** 2, np.arange(-3, 4) ** 2)
    y, x = np.divmod(difference.reshape(len(core), -1).argmax(axis=1), images.shape[-1])
    around = difference[:, middle - 1 : middle + 2, middle - 1 : middle + 2]
    total = np.maximum(np.abs(flat).sum(axis=1), 1e-9)
    light = np.maximum(positive.sum(axis=(1, 2)), 1e-9)
    return np.column_stack([
        peak,
        deepest / np.maximum(peak, 1e-9),
        np.hypot(y - middle, x - middle),
        np.abs(around).sum(axis=(1, 2)) / total,
        (flat < 0.0).mean(axis=1),
        np.sqrt((positive * radius2).sum(axis=(1, 2)) / light),
        peak / np.maximum(np.abs(flat).mean(axis=1), 1e-9),
        science[:, near, near].max(axis=(1, 2)),
        template[:, near, near].max(axis=(1, 2)),
        (images == 0.0).mean(axis=(1, 2, 3)),
    ])  # fmt: skip


def fit(sample: StampSample, seed: int) -> lightgbm.Booster:
    """Boosted trees on the moments of a sample."""
    data = lightgbm.Dataset(moments(sample.images), sample.real, weight=sample.weight)
    return lightgbm.train({**_SETTINGS, "seed": seed, "deterministic": True}, data, _TREES)


def answers(booster: lightgbm.Booster, images: F32) -> F64:
    """(n,) raw answers, positive = real."""
    return np.asarray(booster.predict(moments(images), raw_score=True, num_threads=1), dtype=np.float64)
