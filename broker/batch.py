"""A batch of alerts as columns: what every survey's packets become, and all that later stages see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from broker.lightcurves import FLAG_OWN, LightCurves, empty_points
from broker.message import Message
from broker.table import ColumnSpec

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SS_NONE, SS_ASSOCIATED, SS_NEARBY, SS_UNKNOWN = 0, 1, 2, 3
SOLAR_SYSTEM_STATUS = ("none", "associated", "nearby", "unknown")
"""Whether a known solar-system object was at the place; unknown = the packet does not say."""

PACKET_COLUMNS = (
    ColumnSpec("snr", "", "signal to noise of the detection, |psf_flux| / psf_flux_err"),
    ColumnSpec(
        "mag_total", "AB mag", "reference plus difference; NaN where no reference source is within reach"
    ),
    ColumnSpec("reference_flux", "nJy", "flux of the reference source at the place; NaN if none is near"),
    ColumnSpec("limiting_mag", "AB mag", "5-sigma depth of the image of this detection"),
    ColumnSpec("exposure_time_s", "s", "exposure time; the survey's standard one where the packet has none"),
    ColumnSpec("star_score", "", "1 star .. 0 galaxy: nearest catalogued source as the packet gives it"),
    ColumnSpec("star_sep_arcsec", "arcsec", "distance to that catalogued source"),
    ColumnSpec("neargaia_arcsec", "arcsec", "distance to the nearest Gaia source as the packet gives it"),
    ColumnSpec(
        "bright_star_sep_arcsec", "arcsec", "distance to the nearest bright Gaia source, from the packet"
    ),
    ColumnSpec("solar_system.sep_arcsec", "arcsec", "distance to the nearest known solar-system object"),
    ColumnSpec("solar_system.v_mag_predicted", "mag", "predicted V magnitude of that object"),
    ColumnSpec("is_dipole", "", "1 if the survey fitted a dipole to the detection", "bool"),
    ColumnSpec("trail_length_arcsec", "arcsec", "length of the trail the survey fitted"),
    ColumnSpec("ss_rate", "deg / day", "predicted sky motion of the associated solar-system object"),
    ColumnSpec("fwhm_arcsec", "arcsec", "width of the detection or of the seeing, as the packet gives it"),
    ColumnSpec("programid", "", "ZTF programme: 1 public, 2 and 3 private; NaN elsewhere"),
    ColumnSpec(
        "host_sep_arcsec",
        "arcsec",
        "distance to the nearest galaxy-like source the packet names (ZTF: of three)",
    ),
    ColumnSpec("host_mag", "AB mag", "r magnitude of that galaxy-like source"),
    ColumnSpec(
        "nucleus_offset_arcsec",
        "arcsec",
        "distance to the nearest source of the reference image: a galaxy's nucleus, or the star itself",
    ),
    ColumnSpec(
        "position_scatter_arcsec",
        "arcsec",
        "rms distance of the packet's detections, its own included, from their mean place; NaN below 2",
    ),
    *(
        ColumnSpec(
            f"counterpart_mag_{band}",
            "AB mag",
            f"{band} magnitude of the nearest catalogued source (ZTF: in Pan-STARRS 1's system)",
        )
        for band in "griz"
    ),
    ColumnSpec("neargaia_mag", "mag", "G magnitude (Gaia's, Vega) of the nearest Gaia source"),
)
"""Numbers about the detection that a survey's packet may carry; NaN where it does not."""


_PLAIN_MJD = 60_000.0


class RecordBytes(Sequence[bytes]):
    """The records of n alerts as stretches of larger buffers, cut out when they are asked for."""

    def __init__(self, buffers: Sequence[bytes], buffer: I64, start: I64, end: I64) -> None:
        """Record i is buffers[buffer[i]][start[i]:end[i]].  buffer, start, end : (n,) int64."""
        self._buffers, self._buffer, self._start, self._end = buffers, buffer, start, end

    def __len__(self) -> int:
        return len(self._buffer)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> RecordBytes: ...

    def __getitem__(self, index: int | slice) -> bytes | RecordBytes:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        record: bytes = self._buffers[self._buffer[index]][self._start[index] : self._end[index]]
        return record

    def take(self, rows: I64) -> RecordBytes:
        """The records of some alerts, in the order asked for."""
        return RecordBytes(self._buffers, self._buffer[rows], self._start[rows], self._end[rows])

    def followed_by(self, other: RecordBytes) -> RecordBytes:
        """These records and then those of `other`."""
        return RecordBytes(
            [*self._buffers, *other._buffers],
            np.concatenate([self._buffer, other._buffer + len(self._buffers)]),
            np.concatenate([self._start, other._start]),
            np.concatenate([self._end, other._end]),
        )


@dataclass(frozen=True)
class AlertBatch:
    """n alerts as columns. Missing numbers are NaN, missing ids 0. Nobody changes a batch.

    The first group describes the alert, the second where it came from.
    """

    survey: str
    dia_source_id: I64
    dia_object_id: I64
    ss_object_id: I64
    object_name: npt.NDArray[np.bytes_]
    """The name astronomers use (ZTF objectId; Rubin's decimal diaObjectId, else designation), ASCII."""
    midpoint_mjd_tai: F64
    ra: F64
    dec: F64
    band: npt.NDArray[np.uint8]
    psf_flux: F64
    psf_flux_err: F64
    reliability: F64
    solar_system_status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint16]
    """FLAG_* bits of the alert's own point."""
    packet: Mapping[str, F64]
    """The PACKET_COLUMNS by name, each (n,)."""
    points: LightCurves
    """Every point the packet carries, the alert's own first in its row."""

    messages: Sequence[Message]
    """The messages of the batch; several alerts may share one."""
    message: I64
    """(n,) index into `messages`."""
    index: I64
    """(n,) which record of its message the alert is."""
    records: Sequence[bytes]
    """(n,) each alert's original Avro datum, unchanged."""
    cutouts: I64
    """(n, 3, 2) start and end in the record of the science, template and difference image's bytes as the
    survey packs them (ZTF: gzipped FITS; Rubin: FITS); 0, 0 for one that is not there."""
    writer_schemas: Sequence[str]
    """Distinct writer schemas (JSON) of the batch."""
    writer_schema: I64
    """(n,) index into `writer_schemas`."""
    schema_version: npt.NDArray[np.bytes_]
    """(n,) the survey's own version, such as b'4.02' or b'10.0'."""

    def __len__(self) -> int:
        return len(self.dia_source_id)

    def take(self, rows: npt.NDArray[Any]) -> AlertBatch:
        """Some alerts of the batch, in the order asked for.  rows : indices or boolean mask."""
        index = np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, dtype=np.int64)
        shared = {"survey", "messages", "writer_schemas"}
        changes: dict[str, Any] = {
            "packet": {name: values[index] for name, values in self.packet.items()},
            "points": self.points.take(index),
            "records": _take_records(self.records, index),
        }
        for field in fields(self):
            if field.name not in shared and field.name not in changes:
                changes[field.name] = getattr(self, field.name)[index]
        return replace(self, **changes)


def _take_records(records: Sequence[bytes], rows: I64) -> Sequence[bytes]:
    return records.take(rows) if isinstance(records, RecordBytes) else [records[i] for i in rows]


def plain_alert() -> AlertBatch:
    """A batch of one alert with nothing but an id, a time, a place and a flux: made up, of nobody's sky."""
    zeros = np.zeros(1, dtype=np.int64)
    point = empty_points(1)
    point["midpoint_mjd_tai"], point["source_id"], point["flags"] = _PLAIN_MJD, 1, FLAG_OWN
    point["psf_flux"], point["psf_flux_err"] = 1000.0, 100.0
    return AlertBatch(
        survey="plain",
        dia_source_id=zeros + 1,
        dia_object_id=zeros + 1,
        ss_object_id=zeros,
        object_name=np.array([b"plain"]),
        midpoint_mjd_tai=np.array([_PLAIN_MJD]),
        ra=np.zeros(1),
        dec=np.zeros(1),
        band=np.zeros(1, dtype=np.uint8),
        psf_flux=np.array([1000.0]),
        psf_flux_err=np.array([100.0]),
        reliability=np.full(1, np.nan),
        solar_system_status=np.full(1, SS_UNKNOWN, dtype=np.uint8),
        flags=np.full(1, FLAG_OWN, dtype=np.uint16),
        packet={spec.name: np.full(1, np.nan) for spec in PACKET_COLUMNS},
        points=LightCurves(point, np.array([0, 1])),
        messages=[Message("plain", 0, 0, 0, b"")],
        message=zeros,
        index=zeros,
        records=[b""],
        cutouts=np.zeros((1, 3, 2), dtype=np.int64),
        writer_schemas=['"null"'],
        writer_schema=zeros,
        schema_version=np.array([b"0"]),
    )
