"""What an archive holds, and how far it is behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.archive.folder import File
from broker.archive.reader import Archive, rows_in


@dataclass
class NightStatus:
    """One night of one survey."""

    survey: str
    night: str
    files: int = 0
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Status:
    """An archive.  lag : offsets by partition that are in Kafka alone, None where Kafka was not asked"""

    archive: Archive
    nights: list[NightStatus]
    lag: dict[int, int] | None

    def to_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        manifest = self.archive.manifest
        return {
            "folder": str(self.archive.folder),
            "cluster": manifest.cluster,
            "rows": manifest.rows,
            "bytes": sum(night.bytes for night in self.nights),
            "nights": [vars(night) for night in self.nights],
            "offsets": {str(partition): offset for partition, offset in sorted(manifest.offsets.items())},
            "lag": None if self.lag is None else {str(key): lag for key, lag in sorted(self.lag.items())},
            "lost": [list(gap) for gap in manifest.lost],
        }


def status_of(archive: Archive, lag: dict[int, int] | None) -> Status:
    """Count an archive's files.  Raises ArchiveError."""
    nights: dict[tuple[str, str], NightStatus] = {}
    for item in archive.files:
        night = nights.setdefault((item.survey, item.night), NightStatus(item.survey, item.night))
        _add(night, item)
    return Status(archive, list(nights.values()), lag)


def _add(night: NightStatus, item: File) -> None:
    night.files += 1
    night.rows += rows_in(item)
    night.bytes += item.path.stat().st_size
