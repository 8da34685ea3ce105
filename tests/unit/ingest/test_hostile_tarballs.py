"""Tarballs that would cost much or break the reader: what came before is sent, the rest is named."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from broker.ingest import files
from broker.ingest.files import FilePacket, Unsent, read_packets
from tests.unit.surveys.samples import few_ztf

GOOD = few_ztf()[0]


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _file(name: str, content: bytes = GOOD, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def _header(kind: bytes, size: int, name: bytes = b"x") -> bytes:
    """A header that says anything, with a right checksum."""
    info = tarfile.TarInfo("x")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[0:100] = name.ljust(100, b"\0")[:100]
    raw[124:136] = (
        b"\x80" + size.to_bytes(11, "big", signed=False)
        if size >= 0
        else b"\xff" + (size % 2**88).to_bytes(11, "big")
    )
    raw[156:157] = kind
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def _read(tmp_path: Path, plain: bytes) -> list[FilePacket | Unsent]:
    path = tmp_path / "night.tar.gz"
    path.write_bytes(gzip.compress(plain, 1))
    found = list(read_packets([path]))
    for item in found:
        assert item.name.encode()
        assert not isinstance(item, Unsent) or (item.reason.encode() and len(item.reason) < 1000)
    return found


FIRST = _tar(_file("good.avro"))[: 512 + -(-len(GOOD) // 512) * 512]
END = bytes(1024)
BROKEN: dict[str, bytes] = {
    "a chain of long names": _header(b"L", 3, b"././@LongLink") * 0
    + (_header(b"L", 3) + b"abc".ljust(512, b"\0")) * 3000,
    "a chain of attributes": (_header(b"x", 9) + b"9 a=bcde\n".ljust(512, b"\0")) * 3000,
    "attributes of 3 GB": _header(b"x", 3 << 30),
    "a long name of 3 GB": _header(b"L", 3 << 30),
    "a long link of 2^60": _header(b"K", 1 << 60),
    "global attributes of 2^80": _header(b"g", 1 << 80),
    "a negative size": _header(b"0", -5, b"a.avro"),
    "a negative header": _header(b"x", -5),
    "a sparse file": _header(b"S", 512, b"a.avro"),
    "attributes that are none": _header(b"x", 20) + b"99999999 a=b\n".ljust(512, b"\0"),
    "attributes without a length": _header(b"x", 20) + b"0 a=b\n".ljust(512, b"\0"),
    "a size that is no number": _header(b"x", 13) + b"13 size=abcd\n".ljust(512, b"\0") + _header(b"0", 0),
    "a size of many digits": _header(b"x", 5013)
    + (b"5013 size=" + b"9" * 5002 + b"\n").ljust(5120, b"\0")
    + _header(b"0", 0),
    "a sparse map": _header(b"x", 46)
    + b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0")
    + _header(b"0", 1024, b"a.avro")
    + b"999999999\n"
    + b"0\n" * 507,
    "no checksum": b"x" * 512,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_came_before_is_sent_and_the_rest_named(name: str, tmp_path: Path) -> None:
    packet, *rest = _read(tmp_path, FIRST + BROKEN[name] + END)
    assert isinstance(packet, FilePacket)
    assert packet.value == GOOD
    assert all(isinstance(item, Unsent) for item in rest)


def test_a_header_is_not_read_before_its_size_is_known_to_be_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    plain_read = gzip.GzipFile.read

    def noting(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal largest
        largest = max(largest, size or -1)
        return plain_read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", noting)
    _read(tmp_path, FIRST + _header(b"x", 1 << 40) + bytes(30 << 20))
    assert 0 < largest <= files._TAR_CHUNK


def test_an_entry_that_is_too_large_is_passed_over(tmp_path: Path) -> None:
    large = files._MAX_FILE_BYTES + 1
    found = _read(tmp_path, _header(b"0", large, b"a.avro") + bytes(-(-large // 512) * 512) + FIRST + END)
    assert [type(item) for item in found] == [Unsent, FilePacket]


def test_only_files_are_read(tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE)
    links = [_file(f"{k}.avro", b"", type=kind, linkname="/etc/passwd") for k, kind in enumerate(kinds)]
    found = _read(tmp_path, _tar(*links, _file("/etc/absolute.avro"), _file("../../up.avro")))
    assert [item.name for item in found] == ["absolute.avro", "up.avro"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_bytes_and_any_length_are_no_matter(form: int, tmp_path: Path) -> None:
    names = [
        os.fsdecode(b"\xd6.avro"),
        "\udcff" * 120 + ".avro",
        "n" * 300 + ".avro",
        "a\x1b[2J.avro",
        "Ö天.avro",
    ]
    found = _read(tmp_path, _tar(*(_file(name) for name in names), form=form))
    assert len(found) == len(names)
    assert all(isinstance(item, FilePacket) for item in found)


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_is_named(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = bytearray(
        _tar(_file("a.avro", b"abc"), _file("n" * 200, b"d"), _file("b.avro", b"e"), form=1 + seed % 2)
    )
    for _ in range(rng.randrange(1, 12)):
        place = rng.randrange(len(data))
        data[place] = rng.randrange(256)
        if rng.random() < 0.5:  # with a checksum that is right again
            start = place // 512 * 512
            block = data[start : start + 512]
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    _read(tmp_path, bytes(data))
