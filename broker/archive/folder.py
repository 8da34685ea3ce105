"""The archive's folder: where a row's file is, and how far the folder has got.

`survey=<s>/night=<YYYYMMDD>/healpix=<cell>/<sequence>-<n>.parquet`, and `_archive.json`, the manifest.
Files of one sequence number are written together; the manifest is replaced only after they are all there,
and says up to which offset of each partition of the topic `archive` the rows are in them. Files of a later
number are left over from a writer that was killed in between: readers do not see them, the next writer
removes them and writes their rows again. So every row is in the folder once, whatever happens.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from broker.errors import ArchiveError

MANIFEST = "_archive.json"
CELL_ORDER = 1
"""48 cells on the sky, of 860 square degrees: a night of a survey fills a few dozen at most, and a file with
few rows is mostly the description of its 250 columns (0.1 MB)."""
_LOCK = "_lock"
_FORMAT = 1
_TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Manifest:
    """How far a folder has got.

    cluster : id of the Kafka cluster whose archive it is;  sequence : of the newest files that count
    offsets : next offset of each partition of the topic;  rows : in all files
    lost : (partition, from, to) offsets that Kafka had dropped before they were written
    """

    cluster: str
    sequence: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)
    rows: int = 0
    lost: Sequence[tuple[int, int, int]] = ()


@dataclass(frozen=True)
class File:
    """One Parquet file.  night : as YYYYMMDD;  cell : HEALPix, nested, of CELL_ORDER"""

    path: Path
    survey: str
    night: str
    cell: int
    sequence: int


def read_manifest(folder: Path) -> Manifest | None:
    """What a folder says of itself, None if it does not exist or is empty.  Raises ArchiveError."""
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_text())
    except FileNotFoundError:
        if any(True for _ in _parquet_files(folder)):
            raise ArchiveError(f"{folder} has Parquet files but no {MANIFEST}; is it an archive?") from None
        return None
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}") from error
    if said.get("format") != _FORMAT:
        raise ArchiveError(f"{path} is of format {said.get('format')}, this version reads {_FORMAT}")
    offsets = {int(partition): int(offset) for partition, offset in said["offsets"].items()}
    lost = tuple((int(a), int(b), int(c)) for a, b, c in said["lost"])
    return Manifest(str(said["cluster"]), int(said["sequence"]), offsets, int(said["rows"]), lost)


def files(folder: Path, manifest: Manifest) -> list[File]:
    """The files that count, by survey, night, cell and age."""
    found = (_file(path) for path in _parquet_files(folder))
    counted = [item for item in found if item is not None and item.sequence <= manifest.sequence]
    return sorted(counted, key=lambda item: (item.survey, item.night, item.cell, item.path.name))


def place(folder: Path, survey: str, night: str, cell: int) -> Path:
    """Where the files of a night and a cell are."""
    return folder / f"survey={survey}" / f"night={night}" / f"healpix={cell}"


class FolderWriter:
    """The one process that may write a folder; another waits in `take` until it has gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None
        self.manifest: Manifest | None = None

    def take(self, cluster: str) -> bool:
        """Become the writer, and clear up after the last one; False if another process is it.

        Raises ArchiveError if the folder is another cluster's or no archive.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        manifest = read_manifest(self._folder)
        if manifest is None:
            manifest = Manifest(cluster)
            self._save(manifest)
        if manifest.cluster != cluster:
            raise ArchiveError(
                f"{self._folder} is the archive of another Kafka cluster ({manifest.cluster}, this is "
                f"{cluster}); set archive.folder to an empty folder"
            )
        self._clear_up(manifest)
        self.manifest = manifest
        return True

    def commit(
        self,
        written: Iterable[tuple[Path, Path]],
        offsets: Mapping[int, int],
        rows: int,
        lost: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        """Make files count.  written : (as `temporary` named it, as it shall be called), on disk already"""
        assert self.manifest is not None
        folders = set()
        for now, then in written:
            os.replace(now, then)
            folders.add(then.parent)
        for folder in folders:
            _sync(folder)
        self.manifest = replace(
            self.manifest,
            sequence=self.manifest.sequence + bool(folders),
            offsets={**self.manifest.offsets, **offsets},
            rows=self.manifest.rows + rows,
            lost=(*self.manifest.lost, *lost),
        )
        self._save(self.manifest)

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _save(self, manifest: Manifest) -> None:
        path = self._folder / f".{MANIFEST}{_TEMPORARY}"
        with path.open("w") as out:
            json.dump({"format": _FORMAT, **asdict(manifest)}, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(path, self._folder / MANIFEST)
        _sync(self._folder)

    def _clear_up(self, manifest: Manifest) -> None:
        for path in self._folder.glob(f"survey=*/night=*/healpix=*/.*{_TEMPORARY}"):
            path.unlink()
        for path in _parquet_files(self._folder):
            item = _file(path)
            if item is None or item.sequence > manifest.sequence + 1:
                raise ArchiveError(f"{path} is none of the files that {MANIFEST} knows of; move it away")
            if item.sequence > manifest.sequence:
                path.unlink()


def temporary(path: Path) -> Path:
    """Where a file is written before it counts: readers of Parquet folders pass over such names."""
    return path.with_name(f".{path.name}{_TEMPORARY}")


def sync_file(path: Path) -> None:
    """Wait until a file is on disk."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parquet_files(folder: Path) -> Iterator[Path]:
    return folder.glob("survey=*/night=*/healpix=*/[!.]*.parquet")


def _file(path: Path) -> File | None:
    survey, night, cell = (part.partition("=")[2] for part in path.parts[-4:-1])
    sequence: Any = path.stem.partition("-")[0]
    if not (sequence.isdecimal() and cell.isdecimal()):
        return None
    return File(path, survey, night, int(cell), int(sequence))
