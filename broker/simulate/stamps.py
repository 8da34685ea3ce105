"""Small images around an alert: science, template and their difference, as FITS files."""

from __future__ import annotations

import math
import zlib
from functools import cache

import numpy as np
import numpy.typing as npt

from broker.simulate.observe import Detection

F32 = npt.NDArray[np.float32]
Spot = tuple[float, float, float, float]
"""Offset from the centre in x and y [pixel], Gaussian width [pixel], flux [counts]."""

FITS_BLOCK = 2880
STEPS_PER_COUNT = np.float32(8.0)
"""Pixels are rounded to 1/8 count, far below the noise: such images compress in half the time."""
NOISE_SIDE = 512
NEIGHBOURS = 3
ARTEFACT_DIPOLE, ARTEFACT_COSMIC_RAY = 0, 1


def triplet(detection: Detection, side: int, pixel_arcsec: float, counts: float) -> tuple[F32, F32, F32]:
    """Science, template and difference image of one detection; difference = science - template, exactly.

    side : pixels;  counts : counts for 1 nJy.  The detection is at the centre.
    Returns three (side, side) [counts].
    """
    now, sky_object = detection.now, detection.sky_object
    width = now.exposure.seeing_arcsec / 2.355 / pixel_arcsec
    pixel_noise = now.flux_err * counts / (math.sqrt(4.0 * math.pi) * width)
    still = _scene(detection, side, pixel_arcsec, counts, width)
    template = _round(still + 0.4 * pixel_noise * _noise(side, sky_object.serial * 7919))
    number = detection.object_number * 104729 + now.exposure.number * 1299709
    if sky_object.is_artefact:
        change = _artefact(int(sky_object.p["form"]), now.flux * counts, side, width)
    else:
        change = _spots(side, [(0.0, 0.0, width, now.flux * counts)])
    science = _round(still + change + pixel_noise * _noise(side, number))
    return science, template, science - template


def gzipped_fits(image: F32) -> bytes:
    """A FITS file of one image, gzipped at the setting that is fastest on noise."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 8, zlib.Z_RLE)
    return packer.compress(fits(image)) + packer.flush()


def fits(image: F32, unit: str = "DN") -> bytes:
    """A FITS file of one image: a fixed header, big-endian float32, padded to whole blocks."""
    data = image.astype(">f4").tobytes()
    return _fits_header(image.shape[0], unit) + data + bytes(-len(data) % FITS_BLOCK)


@cache
def _fits_header(side: int, unit: str) -> bytes:
    numbers = (
        ("SIMPLE", "T"),
        ("BITPIX", "-32"),
        ("NAXIS", "2"),
        ("NAXIS1", str(side)),
        ("NAXIS2", str(side)),
    )
    cards = [f"{key:<8}= {value:>20}" for key, value in numbers] + [f"BUNIT   = '{unit:<8}'", "END"]
    return "".join(f"{card:<80}" for card in cards).ljust(FITS_BLOCK).encode("ascii")


def _scene(detection: Detection, side: int, pixel_arcsec: float, counts: float, width: float) -> F32:
    """What does not change: sky level, host or star, some neighbours."""
    sky_object, band = detection.sky_object, detection.now.exposure.band
    looks, p = sky_object.looks.tolist(), sky_object.p
    separation, angle = p.get("host_sep", 0.05) / pixel_arcsec, math.pi * looks[1]
    extent = width * (1.0 if p["star_score"] > 0.5 else 1.7)
    reference = sky_object.reference_flux(band) * counts
    spots = [(separation * math.cos(angle), separation * math.sin(angle), extent, reference)]
    for k in range(NEIGHBOURS):
        far, angle = (0.25 + 0.25 * abs(math.sin(looks[2 + k]))) * side, 3.0 * looks[8 + k]
        flux = 10.0 ** (3.2 + 0.5 * looks[5 + k])
        spots.append((far * math.cos(angle), far * math.sin(angle), width, flux))
    return _spots(side, spots) + np.float32(200.0 + 30.0 * abs(looks[0]))


def _spots(side: int, spots: list[Spot]) -> F32:
    """The sum of round Gaussians.  Returns (side, side) [counts]."""
    dx, dy, width, counts = np.array(spots, dtype=np.float32).T[:, :, None]
    axis = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2.0)
    along_x = np.exp(-0.5 * ((axis - dx) / width) ** 2) / (2.0 * math.pi * width**2)
    along_y = np.exp(-0.5 * ((axis - dy) / width) ** 2) * counts
    return np.asarray(along_y.T @ along_x, dtype=np.float32)


def _artefact(form: int, flux: float, side: int, width: float) -> F32:
    """A badly subtracted star, a cosmic ray or a bad column.  flux : [counts]."""
    if form == ARTEFACT_DIPOLE:
        shift = 0.8 * width
        return _spots(side, [(shift, 0.0, width, 3.0 * flux), (-shift, 0.0, width, -2.1 * flux)])
    image, middle = np.zeros((side, side), dtype=np.float32), side // 2
    if form == ARTEFACT_COSMIC_RAY:
        steps = np.arange(4)
        image[middle + steps // 2, middle + steps - 1] = 0.25 * flux
    else:
        image[:, middle] = 0.1 * flux
    return image


@cache
def _noise_bank() -> F32:
    return np.random.default_rng(20260101).standard_normal((NOISE_SIDE, NOISE_SIDE), dtype=np.float32)


def _noise(side: int, number: int) -> F32:
    """A window of a fixed field of noise, picked by a number: far cheaper than fresh noise each time."""
    room = NOISE_SIDE - side
    row, column = number * 31 % room, number * 17 // 3 % room
    return _noise_bank()[row : row + side, column : column + side]


def _round(image: F32) -> F32:
    return np.asarray(np.round(image * STEPS_PER_COUNT) / STEPS_PER_COUNT, dtype=np.float32)
