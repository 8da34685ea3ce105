"""The small images in packets, against astropy; and bytes that are none."""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from broker.cutouts import LARGEST_BYTES, centres, read_image
from broker.simulate.stamps import fits as fits_bytes
from broker.simulate.stamps import gzipped_fits

NAMES = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
IMAGE = np.random.default_rng(1).normal(100.0, 5.0, (63, 63)).astype(np.float32)


def with_astropy(data: bytes) -> np.ndarray:
    content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old ZTF headers are not quite what the standard says
        return np.asarray(fits.getdata(io.BytesIO(content)))


def written(image: np.ndarray, **header: object) -> bytes:
    """A FITS file by astropy."""
    out = io.BytesIO()
    fits.PrimaryHDU(image, fits.Header(list(header.items()))).writeto(out)
    return out.getvalue()


def test_simulated_images() -> None:
    for data in (fits_bytes(IMAGE), gzipped_fits(IMAGE)):
        read = read_image(data)
        assert read is not None
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, with_astropy(data))
        np.testing.assert_array_equal(read, IMAGE)


def test_images_of_astropy_with_long_headers_gaps_and_other_shapes() -> None:
    image = IMAGE[:48].copy()
    image[3, 5] = np.nan
    comments = {f"KEY{number}": f"text = {number} / no" for number in range(80)}
    for header in ({}, comments):
        np.testing.assert_array_equal(read_image(written(image, **header)), image)


def test_every_real_image_is_what_astropy_reads(real_alerts: Path | None) -> None:
    if real_alerts is None:
        pytest.skip("no shared data here: simulated images are read in their place")
    count = 0
    for path in sorted((real_alerts / "ztf").rglob("alerts*/*.avro"))[::8]:
        with path.open("rb") as file:
            (record,) = fastavro.reader(file)
        for data in [record[name]["stampData"] for name in NAMES if record[name]]:
            np.testing.assert_array_equal(read_image(data), with_astropy(data))
            count += 1
    assert count > 150


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SIMPLE",
        b"\x1f\x8b",
        b"\x1f\x8b" + bytes(50),
        gzipped_fits(IMAGE)[:-40],
        fits_bytes(IMAGE)[:9000],
        fits_bytes(IMAGE)[:80],
        fits_bytes(IMAGE).replace(b"END ", b"ENDE"),
        fits_bytes(IMAGE).replace(b"-32", b"-64"),
        fits_bytes(IMAGE).replace(b"63", b"-3"),
        fits_bytes(IMAGE).replace(b"                  63", b"99999999999999999999"),
        fits_bytes(IMAGE).replace(b"63", b" 0"),
        fits_bytes(IMAGE)[80:],
        fits_bytes(IMAGE).replace(b"BUNIT   = 'DN      '", b"BSCALE  =        2.0"),
        written(IMAGE.astype(np.int16)),
        written(np.stack([IMAGE, IMAGE])),
        gzip.compress(bytes(2 * LARGEST_BYTES)),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_what_is_no_such_image_is_none(data: bytes) -> None:
    assert read_image(data) is None


def test_damage_raises_nothing() -> None:
    rng = np.random.default_rng(2)
    good = bytearray(gzipped_fits(IMAGE)), bytearray(fits_bytes(IMAGE))
    for number in range(400):
        data = bytearray(good[number % 2])
        for place in rng.integers(0, min(len(data), 500), 3):
            data[place] = rng.integers(256)
        image = read_image(bytes(data))
        assert image is None or image.dtype == np.float32


def test_the_middle_of_each_image_and_nan_for_what_is_not_there() -> None:
    whole, cut = gzipped_fits(IMAGE), gzipped_fits(IMAGE[:, :50].copy())
    record = whole + b"--" + whole
    second = (len(whole) + 2, len(record))
    ranges = np.array([[(0, len(whole)), second, (0, 0)], [(0, len(cut)), (0, 40), (3, 90)]])
    found = centres([record, cut], ranges, 63, 27)
    assert found.shape == (2, 3, 27, 27)
    np.testing.assert_array_equal(found[0, 0], IMAGE[18:45, 18:45])
    np.testing.assert_array_equal(found[0, 1], IMAGE[18:45, 18:45])
    assert np.isnan(found[0, 2]).all()
    assert np.isnan(found[1]).all()
