"""What a survey is, and what normalising any survey needs: provenance, points, rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.astro.bands import NO_BAND, band_index
from broker.astro.sky import ARCSEC_PER_DEGREE
from broker.astro.times import unix_s_to_mjd_tai
from broker.batch import PACKET_COLUMNS, AlertBatch
from broker.lightcurves import FLAG_UNUSED, LIMIT, POINT, LightCurves, Points, empty_points
from broker.message import Message
from broker.surveys.columns import Layout, RawColumns
from broker.surveys.writer import WriterSchema

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]

STANDARD_EXPOSURE_S = 30.0
"""Exposure time of both ZTF's and Rubin's standard visit [s], where a packet gives none."""
_PLAUSIBLE_MJD = (15_000.0, 90_000.0)
"""1900 to 2105: a point outside is kept but not used."""
_UNIX_SECONDS = (1e9, 4e9)
"""2001 to 2096: Rubin's sample alerts hold seconds in a field of days."""
_LONGEST_ID = 19
"""Digits of the largest int64."""
_LARGEST_F4 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Source:
    """Where the n alerts of a batch came from: the second group of AlertBatch's columns."""

    messages: Sequence[Message]
    message: I64
    index: I64
    datums: Sequence[bytes]
    schemas: Sequence[WriterSchema]
    cutouts: I64 | None = None
    """(n, 3, 2) as AlertBatch has them; None where nobody looked."""

    @property
    def known_at(self) -> npt.NDArray[np.uint32]:
        """(n,) Kafka timestamp of each alert's message [Unix s]; 0 where it has none."""
        seconds = np.array([self.messages[i].timestamp_ms // 1000 for i in self.message], dtype=np.int64)
        return np.clip(seconds, 0, np.iinfo(np.uint32).max).astype(np.uint32)

    def provenance(self) -> dict[str, Any]:
        """The columns of AlertBatch that say where each alert came from."""
        texts = {schema.text: None for schema in self.schemas}
        number = {text: position for position, text in enumerate(texts)}
        return {
            "messages": self.messages,
            "message": self.message,
            "index": self.index,
            "records": self.datums,
            "cutouts": np.zeros((len(self.message), 3, 2), np.int64)
            if self.cutouts is None
            else self.cutouts,
            "writer_schemas": list(texts),
            "writer_schema": np.array([number[schema.text] for schema in self.schemas], dtype=np.int64),
        }


@dataclass(frozen=True, eq=False)
class Survey:
    """One survey: how its packets are told from others', what is read of them, and what it means.

    required : paths its writer schemas hold; of each inner tuple one is enough (older names)
    needs_object : whether an alert without a diaObjectId is malformed
    topics   : its input topics, as regular expressions that librdkafka understands (no backslash-d)
    """

    name: str
    required: tuple[tuple[str, ...], ...]
    layout: Layout
    normalise: Callable[[RawColumns, Source], AlertBatch]
    bands: tuple[str, ...]
    topics: tuple[str, ...]
    needs_object: bool = False

    def recognises(self, schema: WriterSchema) -> bool:
        """Whether records of this writer schema are this survey's alerts."""
        return all(any(path in schema.paths for path in names) for names in self.required)


def finite(values: F64) -> F64:
    """Infinities as NaN: no survey means them.  values : (n,);  returns (n,)."""
    return np.where(np.isfinite(values), values, np.nan)


def without(values: F64, missing: npt.NDArray[np.bool_]) -> F64:
    """`values` with NaN where `missing`.  Both (n,);  returns (n,)."""
    return np.where(missing, np.nan, values)


def not_negative(values: F64) -> F64:
    """`values` with NaN for negative ones: the surveys' sentinels for unknown.  (n,);  returns (n,)."""
    return without(values, ~(values >= 0.0))


def positive(values: F64) -> F64:
    """`values` with NaN for those not above 0, where 0 also means unknown.  (n,);  returns (n,)."""
    return without(values, ~(values > 0.0))


def band_indices(names: npt.NDArray[np.str_]) -> U8:
    """(n,) band aliases to indices into BANDS; NO_BAND for '' and unknown ones."""
    unique, inverse = np.unique(names, return_inverse=True)
    return np.array([band_index(str(name)) for name in unique], dtype=np.uint8)[inverse]


def numbered_bands(numbers: I64, names: Mapping[int, str]) -> U8:
    """(n,) a survey's filter numbers to indices into BANDS; NO_BAND for a number without a name."""
    known = np.full(len(numbers), NO_BAND, dtype=np.uint8)
    for number, name in names.items():
        known[numbers == number] = band_index(name)
    return known


def name_ids(names: Sequence[str]) -> I64:
    """Ids of objects or detections that have only a name: stable across nights and machines.

    Returns (n,): a decimal number that fits is itself, '' is 0 (no id), any other name becomes 63 bits of its
    BLAKE2b hash, made larger than 2^32.

    >>> name_ids(["1200825211121548288", "", "WNTR24awati"]).tolist()
    [1200825211121548288, 0, 6308324345965434499]
    """
    return np.array([_name_id(name) for name in names], dtype=np.int64)


def _name_id(name: str) -> int:
    if not name:
        return 0
    if len(name) <= _LONGEST_ID and name.isascii() and name.isdigit() and int(name) < 2**63:
        return int(name)
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & (2**63 - 1) | 2**32


def flag(bit: int, where: npt.NDArray[np.bool_]) -> U16:
    """(n,) uint16: the bit where the condition holds, else 0."""
    return np.where(where, bit, 0).astype(np.uint16)


def as_days(times: F64) -> F64:
    """Times in days, where some are in seconds since 1970.  times, returns : (n,) [MJD, TAI]."""
    seconds = (times > _UNIX_SECONDS[0]) & (times < _UNIX_SECONDS[1])
    return np.where(seconds, unix_s_to_mjd_tai(times), times) if seconds.any() else times


def make_points(
    kind: int,
    *,
    midpoint_mjd_tai: F64,
    source_id: I64,
    psf_flux: F64,
    psf_flux_err: F64,
    known_at: npt.NDArray[np.uint32],
    band: U8,
    flags: U16,
) -> Points:
    """(m,) points of one kind.

    A flux beyond float32 is NaN. FLAG_UNUSED is added to a detection or forced point without a flux and
    to any point whose time cannot be right, so that no feature has to ask.
    """
    points = empty_points(len(source_id))
    points["midpoint_mjd_tai"], points["source_id"] = as_days(midpoint_mjd_tai), source_id
    points["psf_flux"], points["psf_flux_err"] = _to_f4(psf_flux), _to_f4(psf_flux_err)
    points["known_at"], points["band"], points["kind"] = known_at, band, kind
    first, last = _PLAUSIBLE_MJD
    unused = ~((midpoint_mjd_tai > first) & (midpoint_mjd_tai < last))
    if kind != LIMIT:
        unused |= np.isnan(points["psf_flux"])
    points["flags"] = flags | flag(FLAG_UNUSED, unused)
    return points


def _to_f4(values: F64) -> npt.NDArray[np.float32]:
    return np.where(np.abs(values) <= _LARGEST_F4, values, np.nan).astype(np.float32)


def join_rows(own: Points, groups: Sequence[tuple[Points, I64]]) -> LightCurves:
    """Light curves with each alert's own point first, then each group's points in the order given.

    own : (n,);  groups : (points (m,), row of each (m,)) pairs.
    """
    rows = np.concatenate([np.arange(len(own)), *(row for _, row in groups)])
    points = np.concatenate([own, *(points for points, _ in groups)]).astype(POINT, copy=False)
    order = np.argsort(rows, kind="stable")
    starts = np.zeros(len(own) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=len(own)), out=starts[1:])
    return LightCurves(points[order], starts)


def position_scatter_arcsec(ra: F64, dec: F64, earlier_ra: F64, earlier_dec: F64, row: I64) -> F64:
    """How far an alert's detections lie from their mean place: small for a star, large for what moves.

    ra, dec : (n,) [deg] of the alerts;  earlier_ra, earlier_dec : (m,) [deg] of their earlier detections, NaN
    for one that is not to count;  row : (m,) the alert that each of these belongs to
    Returns (n,) [arcsec]: root of the mean squared distance from the mean, over the alert's own detection and
    the earlier ones; NaN for fewer than 2. In the plane that touches the sky at the alert: good for
    minutes of arc.

    >>> one = np.array([180.0])
    >>> position_scatter_arcsec(one, one * 0, np.array([180.0]), np.array([2 / 3600]), np.array([0])).round(6)
    array([1.])
    """
    known = np.isfinite(earlier_ra) & np.isfinite(earlier_dec)
    row = row[known]
    # from -180 to 180 degrees, so that 0 h is like any other place
    east = (earlier_ra[known] - ra[row] + 180.0) % 360.0 - 180.0
    x = east * np.cos(np.radians(dec[row])) * ARCSEC_PER_DEGREE
    y = (earlier_dec[known] - dec[row]) * ARCSEC_PER_DEGREE
    count = 1.0 + np.bincount(row, minlength=len(ra))
    mean_x, mean_y, mean_square = (
        np.bincount(row, values, len(ra)) / count for values in (x, y, x * x + y * y)
    )
    variance = np.maximum(mean_square - mean_x**2 - mean_y**2, 0.0)
    return without(np.sqrt(variance), count < 2.0)


def packet_columns(length: int, given: dict[str, F64]) -> dict[str, F64]:
    """Every PACKET_COLUMNS column, NaN for those that a survey does not have; infinities are NaN."""
    unknown = given.keys() - {spec.name for spec in PACKET_COLUMNS}
    if unknown:
        raise KeyError(f"not packet columns: {', '.join(sorted(unknown))}")
    return {
        spec.name: finite(given[spec.name]) if spec.name in given else np.full(length, np.nan)
        for spec in PACKET_COLUMNS
    }


def ascii_names(names: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """(n,) names as ASCII bytes; '?' for anything else."""
    return np.array([name.encode("ascii", "replace") for name in names], dtype=np.bytes_)
