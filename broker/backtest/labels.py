"""What a person knows of alerts, objects or places: a CSV file with a class in each line."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker.errors import LabelsError
from broker.table import Table

F64 = npt.NDArray[np.float64]

RADIUS_ARCSEC = 2.0
"""How near a labelled place an alert is to be of it."""
_CLASS = ("class", "label", "type", "classification")
_ALERT = ("diasourceid", "dia_source_id", "candid", "alert")
_OBJECT = (
    "diaobjectid",
    "dia_object_id",
    "objectid",
    "object_id",
    "object_name",
    "objectname",
    "oid",
    "name",
)
_PLACES = (("ra", "dec"), ("ra_deg", "dec_deg"), ("raj2000", "dej2000"))


@dataclass(frozen=True)
class Labels:
    """Classes by alert, by object (id or name) and by place, asked in this order."""

    alerts: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[str, str] = field(default_factory=dict)
    places: Sequence[tuple[float, float, str]] = ()

    def of(self, table: Table) -> list[str]:
        """The class of each row, '' where none is known."""
        names = table["object_name"]
        said = [names.categories[code] if code >= 0 else "" for code in names.values.tolist()]
        near = self._near(table)
        ids = zip(table["dia_source_id"].values.tolist(), table["dia_object_id"].values.tolist(), strict=True)
        return [
            self.alerts.get(str(alert)) or self.objects.get(str(own)) or self.objects.get(name) or place
            for (alert, own), name, place in zip(ids, said, near, strict=True)
        ]

    def _near(self, table: Table) -> list[str]:
        """The class of the nearest labelled place within RADIUS_ARCSEC."""
        if not self.places:
            return [""] * table.length
        ra, dec = table["ra"].values, table["dec"].values
        reach = 2.0 * np.sin(np.radians(RADIUS_ARCSEC / 3600.0) / 2.0)
        far, row = self._tree.query(_directions(ra, dec))
        found = zip(far.tolist(), row.tolist(), strict=True)
        return [self.places[place][2] if distance <= reach else "" for distance, place in found]

    @cached_property
    def _tree(self):  # type: ignore[no-untyped-def]  # scipy has no types
        from scipy.spatial import cKDTree  # noqa: PLC0415 (heavy)

        return cKDTree(_directions(*np.array([place[:2] for place in self.places], dtype=np.float64).T))


def read_labels(path: Path) -> Labels:
    """The labels of a CSV file with a header: a class, and what it is of.

    That is an alert's id, an object's id or name, or ra and dec.  Raises LabelsError with the line at fault.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            return _read(lines, {name.strip().lower(): name for name in lines.fieldnames or ()}, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"{path} cannot be read as CSV: {error}") from error


def _read(lines: csv.DictReader[str], columns: Mapping[str, str], path: Path) -> Labels:
    said, alert, own = (_column(columns, names) for names in (_CLASS, _ALERT, _OBJECT))
    place = next(((columns[a], columns[b]) for a, b in _PLACES if a in columns and b in columns), None)
    if not said or not (alert or own or place):
        raise LabelsError(
            f"{path} needs a column `class` and one of `diaSourceId`, `diaObjectId`, `objectId`, or `ra` "
            "and `dec`"
        )
    alerts: dict[str, str] = {}
    objects: dict[str, str] = {}
    places: list[tuple[float, float, str]] = []
    for line in lines:
        label = (line[said] or "").strip()
        if not label:
            continue
        if alert and (line[alert] or "").strip():
            alerts[line[alert].strip()] = label
        elif own and (line[own] or "").strip():
            objects[line[own].strip()] = label
        elif place:
            places.append((*_position(line, place, f"{path} line {lines.line_num}"), label))
    return Labels(alerts, objects, places)


def _column(columns: Mapping[str, str], names: Sequence[str]) -> str:
    return next((columns[name] for name in names if name in columns), "")


def _position(line: Mapping[str, str], place: tuple[str, str], where: str) -> tuple[float, float]:
    try:
        ra, dec = (float(line[name]) for name in place)
    except (TypeError, ValueError):
        raise LabelsError(f"{where}: {place[0]} and {place[1]} are no numbers; give degrees") from None
    if not (np.isfinite(ra) and -90.0 <= dec <= 90.0):
        raise LabelsError(f"{where}: {ra}, {dec} is no place on the sky; give degrees")
    return ra, dec


def _directions(ra: F64, dec: F64) -> F64:
    """Unit vectors.  ra, dec : (n,) [deg];  returns (n, 3)."""
    lon, lat = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
