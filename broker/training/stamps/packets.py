"""The real cutouts of a folder of ZTF alerts, with what the survey itself thought of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt

from broker.astro.sky import ARCSEC_PER_DEGREE, separation_deg
from broker.cutouts import read_image
from broker.errors import BrokerError
from broker.scores.stamps import IMAGE_SIDE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEAST_PACKETS = 50
_IMAGES = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
_FAINTER = ("f", "0")
_LARGEST_PIXEL = 1e7
"""[counts] More than any full well: such a pixel is masked (some templates have -3.4e38)."""
_STAMP_DEG = 90.0 / ARCSEC_PER_DEGREE
"""Two alerts nearer than this can show the same sky: half the diagonal of a cutout, twice."""


@dataclass(frozen=True)
class Cutouts:
    """The images of n real alerts.

    images : (n, 3, IMAGE_SIDE, IMAGE_SIDE) science, template, difference [counts], NaN where masked. ZTF's
             difference is template - science for a source that has become fainter: the source is positive.
    sign   : (n,) 1, or -1 where the difference is template - science
    rb, drb : (n,) the survey's own scores, NaN where the packet has none
    field  : (n,) code of the patch of sky: alerts whose images may overlap share it, so an object has one
    """

    candid: I64
    images: F32
    sign: F32
    rb: F64
    drb: F64
    field: I64

    def __len__(self) -> int:
        return len(self.sign)

    def take(self, rows: npt.NDArray[Any]) -> Cutouts:
        """Some of the alerts.  rows : indices or mask."""
        return Cutouts(*(getattr(self, item.name)[rows] for item in fields(self)))


def load_cutouts(alerts: Path) -> Cutouts:
    """The cutouts of every packet under a folder, each candid once, in the order of the candids.

    Files that are no packets and packets without three whole images are passed over. BrokerError if fewer
    than LEAST_PACKETS are left.
    """
    found: dict[int, tuple[F32, Mapping[str, Any]]] = {}
    for path in sorted(alerts.rglob("*.avro")):
        for packet in _packets(path):
            images = _images(packet)
            if images is not None:
                found[int(packet["candid"])] = (images, packet["candidate"])
    if len(found) < LEAST_PACKETS:
        raise BrokerError(
            f"{alerts}: {len(found)} ZTF packets with three cutouts, {LEAST_PACKETS} are needed; "
            "give a folder of .avro files"
        )
    candid = np.array(sorted(found), dtype=np.int64)
    candidates = [found[name][1] for name in candid.tolist()]
    ra, dec, rb, drb = (_column(candidates, name) for name in ("ra", "dec", "rb", "drb"))
    fainter = [candidate["isdiffpos"] in _FAINTER for candidate in candidates]
    return Cutouts(
        candid,
        np.stack([found[name][0] for name in candid.tolist()]),
        np.where(fainter, -1.0, 1.0).astype(np.float32),
        rb,
        drb,
        sky_fields(ra, dec),
    )


def sky_fields(ra: F64, dec: F64) -> I64:
    """(n,) code of the patch of sky: places nearer than _STAMP_DEG, or linked by such, share one.

    ra, dec : (n,) [deg]
    """
    code = np.arange(len(ra), dtype=np.int64)
    for row in range(len(ra)):
        near = separation_deg(ra[row], dec[row], ra, dec) < _STAMP_DEG
        code[np.isin(code, code[near])] = code[near].min()
    return code


def _packets(path: Path) -> list[Mapping[str, Any]]:
    """The records of a file that are ZTF alerts; none if it is damaged."""
    try:
        with path.open("rb") as file:
            records = [record for record in fastavro.reader(file) if isinstance(record, dict)]
    except Exception:  # fastavro has no exception of its own for what is damaged
        return []
    return [record for record in records if {"candid", "candidate", *_IMAGES} <= record.keys()]


def _images(packet: Mapping[str, Any]) -> F32 | None:
    """(3, IMAGE_SIDE, IMAGE_SIDE), NaN where masked; None unless all three are whole."""
    images = [read_image(packet[name]["stampData"]) if packet[name] else None for name in _IMAGES]
    whole = [image for image in images if image is not None and image.shape == (IMAGE_SIDE, IMAGE_SIDE)]
    if len(whole) < len(_IMAGES):
        return None
    stack = np.stack(whole)
    return np.where(np.abs(stack) < _LARGEST_PIXEL, stack, np.float32(np.nan))


def _column(candidates: list[Mapping[str, Any]], name: str) -> F64:
    values = [candidate.get(name) for candidate in candidates]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
