"""Real and bogus detections put into real cutouts, at places where there was no alert.

Everything is made of the survey's own pixels: point sources have the shape of bright isolated stars of the
science images, the sky, its noise and its stars are as they were. Only the photon noise of what is added is
drawn. A crop is (3, SIDE, SIDE): science, template and difference = science - template [counts].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import center_of_mass, gaussian_filter, maximum_filter, shift

from broker.errors import BrokerError
from broker.scores.stamps import IMAGE_SIDE, MAD_TO_SIGMA, SIDE
from broker.training.stamps.packets import Cutouts

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Random = np.random.Generator
Injection = Callable[[F32, F64, Random], F32]
"""(crop, shape of a point source, chance) -> the crop with one detection at its centre. The difference is
turned over where the source has become fainter, as ZTF does."""

HALF = SIDE // 2
PSF_HALF = 7
PSF_SIDE = 2 * PSF_HALF + 1
STAR_SIGNIFICANCE = 150.0
"""Peak of a star whose shape is taken, in units of the sky noise."""
SATURATED = 30000.0
"""[counts] A star whose peak is brighter may be saturated."""
GAIN = 5.8
"""Electrons a count of ZTF's camera (Bellm et al. 2019, PASP 131, 018002, table 1)."""
SIGNIFICANCE = (5.0, 200.0)
"""Of what is injected, in units of the noise of a point source's flux: from where ZTF alerts to the
bright."""
_TOGETHER = 5
"""One star's own noise would show where a much brighter one is injected."""
_SHARPEST = 4.0
"""[pixel] Noise-equivalent area, 1 / sum of squares, below which it is no star."""
_NEIGHBOUR = 0.08
"""A star is isolated if nothing at 5 to 7 pixels is brighter than this share of its peak."""
_JITTER = 0.4
"""[pixel] A cutout is centred on a whole pixel, so its source is off by less than one."""
_CENTRE = HALF


def stars(images: F32) -> F64:
    """Shapes of point sources, from bright isolated stars: each the mean of some that are equally sharp.

    images : (n, h, w) science images [counts], NaN where masked
    Returns (k, PSF_SIDE, PSF_SIDE), centred, with sum 1, the sharpest first. Sources that are broader than
    most (galaxies, blends) are left out, and such as are sharper than any star (cosmic rays). BrokerError if
    there is none.
    """
    found = [shape for image in images for shape in _stars_of(image)]
    shapes = np.array(found, dtype=np.float64).reshape(-1, PSF_SIDE, PSF_SIDE)
    area = 1.0 / (shapes**2).sum(axis=(1, 2))
    sharp = np.flatnonzero(area > _SHARPEST)
    usual = sharp[area[sharp] < 1.5 * np.median(area[sharp])] if len(sharp) else sharp
    if len(usual) == 0:
        raise BrokerError(
            f"no bright isolated star in {len(images)} science images to take the shape of a point source "
            "from; give more alerts"
        )
    ordered = shapes[usual[np.argsort(area[usual], kind="stable")]]
    return np.asarray(sliding_window_view(ordered, min(_TOGETHER, len(ordered)), axis=0).mean(axis=-1))


def _stars_of(image: F32) -> list[F64]:
    sky, noise = float(np.nanmedian(image)), noise_of(image)
    flat = np.where(np.isnan(image), -np.inf, image)
    top = (maximum_filter(flat, PSF_HALF) == flat) & (flat > sky + STAR_SIGNIFICANCE * noise)
    inner = slice(PSF_HALF, -PSF_HALF)
    places = np.argwhere(top[inner, inner])
    cuts = [image[row : row + PSF_SIDE, column : column + PSF_SIDE] - sky for row, column in places.tolist()]
    return [shape for cut in cuts if (shape := _shape(cut.astype(np.float64))) is not None]


def _shape(cut: F64) -> F64 | None:
    """A star's image as a shape with sum 1; None if masked, saturated or not alone.  cut : sky is 0."""
    peak = cut[PSF_HALF, PSF_HALF]
    ring = (_RADIUS >= 5.0) & (_RADIUS <= PSF_HALF)
    if not np.isfinite(cut).all() or peak > SATURATED or cut[ring].max() > _NEIGHBOUR * peak:
        return None
    core = np.where(_RADIUS <= 3.0, np.maximum(cut, 0.0), 0.0)
    row, column = center_of_mass(core)
    centred = shift(cut, (PSF_HALF - row, PSF_HALF - column), order=3)
    window = np.clip(PSF_HALF + 0.5 - _RADIUS, 0.0, 1.0)
    shape = (centred - np.median(centred[ring])) * window
    return np.asarray(shape / shape.sum()) if shape.sum() > 0.0 else None


_RADIUS: F64 = np.hypot(*np.mgrid[-PSF_HALF : PSF_HALF + 1, -PSF_HALF : PSF_HALF + 1])


def source(shape: F64, row: float, column: float) -> F64:
    """A point source of flux 1 in a crop.

    shape : (PSF_SIDE, PSF_SIDE) with sum 1;  row, column : its place [pixel, 0 = centre of the crop]
    Returns (SIDE, SIDE); flux beyond the crop's edge is lost.
    """
    whole, part = int(np.rint(row)), int(np.rint(column))
    moved = shift(shape, (row - whole, column - part), order=3)
    wide = np.zeros((SIDE + 2 * PSF_SIDE, SIDE + 2 * PSF_SIDE))
    first, second = (_CENTRE + PSF_SIDE - PSF_HALF + step for step in (whole, part))
    if 0 <= first <= SIDE + PSF_SIDE and 0 <= second <= SIDE + PSF_SIDE:
        wide[first : first + PSF_SIDE, second : second + PSF_SIDE] = moved
    return wide[PSF_SIDE:-PSF_SIDE, PSF_SIDE:-PSF_SIDE]


def crops(cutouts: Cutouts, row: int, count: int, rng: Random) -> F32:
    """Crops of one alert's images beside the alert: its own source is in none of them.

    Returns (count, 3, SIDE, SIDE), the difference as science - template.
    """
    image = cutouts.images[row].copy()
    image[2] *= cutouts.sign[row]
    room = IMAGE_SIDE // 2 - HALF
    far = rng.integers(HALF + 1, room + 1, count) * rng.choice([-1, 1], count)
    near = rng.integers(-room, room + 1, count)
    steps = np.where(rng.random(count) < 0.5, [far, near], [near, far]).T + room
    return np.stack([image[:, y : y + SIDE, x : x + SIDE] for y, x in steps.tolist()])


def beside(cutouts: Cutouts, row: int, rng: Random) -> F32:
    """(3, SIDE, SIDE) one alert's images as the packet has them, cut with its source 4 to 10 pixels off."""
    angle, far = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(4.0, 10.0)
    y, x = (
        IMAGE_SIDE // 2 - HALF + int(np.rint(step)) for step in (far * np.sin(angle), far * np.cos(angle))
    )
    return np.asarray(cutouts.images[row, :, y : y + SIDE, x : x + SIDE])


def misregistered(cutouts: Cutouts, row: int, rng: Random) -> F32 | None:
    """Bogus: a crop on a star of the template when that is off by 0.5 to 2 pixels and subtracted anew.

    Returns (3, SIDE, SIDE), centred on the strongest lobe that this leaves away from the alert; None where
    the template has no star that would leave one of 5 sigma.
    """
    science, template, difference = cutouts.images[row] * [[[1.0]], [[1.0]], [[cutouts.sign[row]]]]
    angle, far = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.5, 2.0)
    masked = np.isnan(template)
    sky = np.where(masked, np.nanmedian(template), template) if not masked.all() else np.zeros_like(template)
    moved = shift(sky, (far * np.sin(angle), far * np.cos(angle)), order=3, mode="nearest")
    lobe = np.where(masked, 0.0, template - moved)
    strength = np.where(_AWAY, np.abs(lobe), 0.0)
    y, x = np.unravel_index(np.argmax(strength), strength.shape)
    if not strength[y, x] > 5.0 * noise_of(difference):
        return None
    seen = np.stack([science, np.where(masked, np.nan, moved), difference + lobe]).astype(np.float32)
    crop = seen[:, y - HALF : y + HALF + 1, x - HALF : x + HALF + 1]
    return turned(crop) if lobe[y, x] < 0.0 else crop


def _away() -> npt.NDArray[np.bool_]:
    """(IMAGE_SIDE, IMAGE_SIDE) the centres of the crops that are whole and do not show the alert itself."""
    step = np.abs(np.arange(IMAGE_SIDE) - IMAGE_SIDE // 2)
    far = np.maximum.outer(step, step)
    return np.asarray((far > HALF) & (far <= IMAGE_SIDE // 2 - HALF))


_AWAY = _away()


def noise_of(difference: npt.NDArray[np.floating[Any]]) -> float:
    """Noise of a pixel of a difference image [counts]: 1.4826 times the median absolute deviation.

    difference : (h, w) [counts], NaN where masked. NaN if all of it is.
    """
    valid = difference[np.isfinite(difference)]
    return MAD_TO_SIGMA * float(np.median(np.abs(valid - np.median(valid)))) if len(valid) else np.nan


def flux_for(crop: F32, shape: F64, rng: Random) -> float:
    """A flux [counts] whose significance is log-uniform in SIGNIFICANCE, for a point source on the sky."""
    significance = np.exp(rng.uniform(*np.log(SIGNIFICANCE)))
    return float(significance * noise_of(crop[2]) / np.sqrt((shape**2).sum()))


def added(crop: F32, science: F64, template: F64, rng: Random) -> F32:
    """A crop with light added to its science and template image, and the photon noise of the former.

    science, template : (SIDE, SIDE) [counts]. The difference changes by science - template.
    """
    photons = rng.normal(size=science.shape) * np.sqrt(np.maximum(science, 0.0) / GAIN)
    change = np.stack([science + photons, template, science + photons - template])
    return np.asarray(crop + change, dtype=np.float32)


def turned(crop: F32) -> F32:
    """A crop with its difference as template - science: how ZTF shows what has become fainter."""
    return np.stack([crop[0], crop[1], -crop[2]])


def new_source(crop: F32, shape: F64, rng: Random) -> F32:
    """Real: a source where there was none, or none that the crop had not already."""
    return added(crop, flux_for(crop, shape, rng) * _spot(shape, rng), np.zeros((SIDE, SIDE)), rng)


def brighter_star(crop: F32, shape: F64, rng: Random) -> F32:
    """Real: a star of the template that is brighter now."""
    spot, flux = _spot(shape, rng), flux_for(crop, shape, rng)
    before = flux * np.exp(rng.uniform(np.log(0.3), np.log(20.0)))
    return added(crop, (before + flux) * spot, before * spot, rng)


def fainter_star(crop: F32, shape: F64, rng: Random) -> F32:
    """Real: a star of the template that is fainter now, or gone."""
    spot, flux = _spot(shape, rng), flux_for(crop, shape, rng)
    before = flux * np.exp(rng.uniform(0.0, np.log(20.0)))
    return turned(added(crop, (before - flux) * spot, before * spot, rng))


def dipole(crop: F32, shape: F64, rng: Random) -> F32:
    """Bogus: a star of which the template is off by 0.3 to 2 pixels; the brighter lobe is the detection."""
    angle, far = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.3, 2.0)
    row, column = rng.normal(0.0, _JITTER, 2)
    now = source(shape, row, column)
    before = source(shape, row + far * np.sin(angle), column + far * np.cos(angle))
    # The lobe, not the star, is as significant as a real source would be.
    flux = flux_for(crop, shape, rng) * now.max() / max((now - before).max(), 0.02 * now.max())
    if rng.random() < 0.5:
        return added(crop, flux * now, flux * before, rng)
    return turned(added(crop, flux * before, flux * now, rng))


def mismatch(crop: F32, shape: F64, rng: Random) -> F32:
    """Bogus: a constant bright star that is sharper or broader than in the template, so a ring is left."""
    now = _spot(shape, rng)
    broad = gaussian_filter(now, rng.uniform(0.5, 1.2))
    first, second = (now, broad) if rng.random() < 0.5 else (broad, now)
    flux = flux_for(crop, shape, rng) * now.max() / np.abs(now - broad).max()
    seen = added(crop, flux * first, flux * second, rng)
    return seen if first is now else turned(seen)


def cosmic_ray(crop: F32, shape: F64, rng: Random) -> F32:
    """Bogus: one hot pixel, or a straight track of pixels, in the science image alone."""
    angle, length = rng.uniform(0.0, np.pi), rng.choice([0.0, 0.0, 1.0, 2.0, 4.0, 7.0])
    along = np.linspace(-length / 2.0, length / 2.0, 2 * int(length) + 1)
    rows, columns = (np.rint(_CENTRE + along * part).astype(int) for part in (np.sin(angle), np.cos(angle)))
    track = np.zeros((SIDE, SIDE))
    track[rows, columns] = flux_for(crop, shape, rng) * shape.max() * rng.uniform(1.0, 3.0)
    return added(crop, track, np.zeros((SIDE, SIDE)), rng)


def bad_column(crop: F32, shape: F64, rng: Random) -> F32:
    """Bogus: one or two columns of the science image that are too bright, or half of it is masked."""
    bad = np.zeros((SIDE, SIDE))
    first = 0 if rng.random() < 0.5 else int(rng.integers(0, _CENTRE))
    width = int(rng.integers(1, 3))
    bad[first:, _CENTRE : _CENTRE + width] = flux_for(crop, shape, rng) * shape.max() * rng.uniform(0.5, 1.5)
    seen = added(crop, bad, np.zeros((SIDE, SIDE)), rng)
    if rng.random() < 0.5:
        seen[[0, 2], :, _CENTRE + width :] = np.nan
    return seen if rng.random() < 0.5 else np.swapaxes(seen, 1, 2)


def nothing(crop: F32, shape: F64, rng: Random) -> F32:
    """Bogus: the sky and its noise, nothing else."""
    return crop if rng.random() < 0.5 else turned(crop)


def hole(crop: F32, shape: F64, rng: Random) -> F32:
    """Bogus: a place that is darker than the sky, without a star in the template that could have faded."""
    flux = flux_for(crop, shape, rng)
    return turned(added(crop, -flux * _spot(shape, rng), np.zeros((SIDE, SIDE)), rng))


def _spot(shape: F64, rng: Random) -> F64:
    """A point source of flux 1 near the centre."""
    row, column = np.clip(rng.normal(0.0, _JITTER, 2), -1.0, 1.0)
    return source(shape, row, column)


REAL: Mapping[Injection, float] = {new_source: 0.5, brighter_star: 0.25, fainter_star: 0.25}
BOGUS: Mapping[Injection, float] = {
    dipole: 0.3,
    mismatch: 0.25,
    cosmic_ray: 0.2,
    bad_column: 0.15,
    nothing: 0.05,
    hole: 0.05,
}
"""What is injected, and how often."""
