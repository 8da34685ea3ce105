"""Alert files, folders of them and nightly tarballs, read as the messages a survey would have sent.

Nothing is judged here: a damaged or empty file is a message like any other, so that the pipeline can say what
is wrong with it. Only what no topic takes (over MAX_INPUT_BYTES) or what cannot be read at all is left out,
and named.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.errors import BrokerError
from broker.message import MAX_INPUT_BYTES
from broker.surveys.avro import LocalSchemas, holds_one_record, single_records, writer_of
from broker.surveys.catalog import survey_of
from broker.text import printable

ALERT_SUFFIX = ".avro"
TARBALL_SUFFIXES = (".tar.gz", ".tgz")
DEFAULT_SURVEY = "ztf"
_MAX_FILE_BYTES = 64 * 1024 * 1024
"""A file of several records may be larger than a message; beyond this it is not even read."""
_TAR_CHUNK = 1024 * 1024
_MAX_TAR_HEADER = 1024 * 1024
"""Of a long name or a list of attributes in a tarball, which are read whole."""
_HELD_PACKETS = 1000
"""Packets of no known survey that wait for one to tell which survey the files are of."""


@dataclass(frozen=True, slots=True)
class FilePacket:
    """One message to send.

    name  : base name of the file it came from;  alerts : 1 if its framing is whole, 0 if not
    taken : bytes of input read since the packet before, for showing progress
    """

    name: str
    value: bytes
    alerts: int = 0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Unsent:
    """A file, or the rest of a tarball, that cannot be sent, and why."""

    name: str
    reason: str
    taken: int = 0


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Every alert file and tarball that `paths` stand for: files as given, folders searched and sorted.

    Raises BrokerError if a path does not exist, is neither file nor folder, or holds nothing to send.
    """
    found: list[Path] = []
    for path in paths:
        found += _in_folder(path) if path.is_dir() else [_existing(path)]
    return found


def read_packets(files: Iterable[Path]) -> Iterator[FilePacket | Unsent]:
    """The messages of some files, one after the other; tarballs are streamed, never unpacked."""
    for path in files:
        yield from _tarball(path) if _is_tarball(path) else _file(path)


def survey_name(value: bytes) -> str | None:
    """The survey whose alert a message says it is; None if it does not say, or says one we do not know."""
    schema = writer_of(value, _SCHEMAS)
    survey = None if schema is None else survey_of(schema)
    return None if survey is None else survey.name


def with_surveys(packets: Iterable[FilePacket | Unsent]) -> Iterator[tuple[str, FilePacket | Unsent]]:
    """Each packet with its survey; one that tells none is taken for its neighbour's.

    That is the last known one before it, else the first after it, else DEFAULT_SURVEY. The order is kept.
    """
    waiting: list[FilePacket | Unsent] = []
    current: str | None = None
    for packet in packets:
        told = survey_name(packet.value) if isinstance(packet, FilePacket) else None
        current = told or current
        waiting.append(packet)
        if current is None and len(waiting) >= _HELD_PACKETS:
            current = DEFAULT_SURVEY
        if current is not None:
            yield from ((current, earlier) for earlier in waiting)
            waiting.clear()
    yield from ((DEFAULT_SURVEY, packet) for packet in waiting)


_SCHEMAS = LocalSchemas()


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    what = "is neither a file nor a folder" if path.exists() else "does not exist"
    raise BrokerError(f"{str(path)!r} {what}; give .avro files, folders of them or nightly .tar.gz files")


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if _is_wanted(path) and path.is_file())
    if not found:
        raise BrokerError(f"{str(folder)!r} holds no .avro file and no .tar.gz or .tgz tarball")
    return found


def _is_wanted(path: Path) -> bool:
    return path.name.endswith(ALERT_SUFFIX) or _is_tarball(path)


def _is_tarball(path: Path) -> bool:
    return path.name.endswith(TARBALL_SUFFIXES)


def _file(path: Path) -> Iterator[FilePacket | Unsent]:
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            yield Unsent(_shown(path.name), _too_large(size), size)
            return
        value = path.read_bytes()
    except OSError as error:
        yield Unsent(_shown(path.name), f"cannot be read: {error.strerror or error}")
        return
    yield from _messages(_shown(path.name), value, len(value))


def _messages(name: str, value: bytes, taken: int) -> Iterator[FilePacket | Unsent]:
    """The messages of one file's bytes; the first one carries what was read for all of them."""
    for part in single_records(value):
        if len(part) > MAX_INPUT_BYTES:
            yield Unsent(name, _too_large(len(part)), taken)
        else:
            yield FilePacket(name, part, int(holds_one_record(part)), taken)
        taken = 0


def _shown(name: str) -> str:
    """A file's name as a header or a terminal can hold it: a name is any bytes."""
    return printable(name, 255)


def _too_large(size: int) -> str:
    return f"{size / 2**20:.1f} MiB; a message may have at most {MAX_INPUT_BYTES // 2**20} MiB"


def _tarball(path: Path) -> Iterator[FilePacket | Unsent]:
    """The messages of a tarball; one that ends early or is damaged gives what came before, then an Unsent."""
    before = 0
    try:
        with path.open("rb") as raw, gzip.open(raw) as plain:
            with tarfile.open(fileobj=plain, mode="r|", bufsize=_TAR_CHUNK, tarinfo=_Entry) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps them all: a million a night
                    tar.pax_headers = {}
                    if member.isfile() and member.name.endswith(ALERT_SUFFIX):
                        before, taken = raw.tell(), raw.tell() - before
                        yield from _member(tar, member, taken)
            while plain.read(_TAR_CHUNK):
                pass  # what tarfile takes for the end may be a cut: only the checksum at gzip's end tells
    except MemoryError:
        raise
    except Exception as error:  # tarfile fails in as many ways as there are damaged headers
        why = printable(str(error) or type(error).__name__, 300)
        yield Unsent(_shown(path.name), f"damaged or cut short, the rest of it was not read: {why}")


class _Entry(tarfile.TarInfo):
    """An entry of a tarball whose headers are bounded; alerts are no sparse files, whose maps are not."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG_HEADERS and not 0 <= self.size <= _MAX_TAR_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes; at most {_MAX_TAR_HEADER:,} are read")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        if self.size < 0:
            raise tarfile.ReadError(f"an entry of {self.size:,} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found

    def _refuse_sparse(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse file, which no alert is")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


_LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, taken: int) -> Iterator[FilePacket | Unsent]:
    name = _shown(Path(member.name).name)
    content = tar.extractfile(member)
    if not 0 <= member.size <= _MAX_FILE_BYTES or content is None:
        yield Unsent(name, _too_large(member.size), taken)
        return
    yield from _messages(name, content.read(), taken)
