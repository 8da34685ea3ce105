"""Bundles as bytes: what was packed comes back, and what was not packed by us does no harm."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_bundle import made_bundle

from broker.errors import BundleError
from broker.scores import archive
from broker.scores.archive import MAX_UNPACKED_BYTES, pack, plain_name, unpack

MANIFEST = ("manifest.json", b"{}")


def tarred(*files: tuple[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    """A compressed tar of some files whose entries were changed in some way."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            tar.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def of_type(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = kind, "/etc/passwd"

    return change


def sparse(member: tarfile.TarInfo) -> None:
    """A file of which little is there and much is claimed."""
    member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": member.name}
    member.pax_headers |= {"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,1"}


def swollen_arrays() -> bytes:
    """An npz that is small and has much in it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as arrays:
        arrays.writestr("a.npy", bytes(MAX_UNPACKED_BYTES + 1))
    return whole.getvalue()


def test_what_was_packed_comes_back(tmp_path: Path) -> None:
    folder = made_bundle(tmp_path / "made")
    packed = pack(folder)
    assert unpack(packed) == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert pack(folder) == packed
    assert unpack(tarred(MANIFEST, ("a.txt", b"b"))) == {"manifest.json": b"{}", "a.txt": b"b"}


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "a\nb", "a\x00b", "-rf", "x" * 101]
)
def test_only_plain_names_are_names(name: str) -> None:
    with pytest.raises(BundleError, match="cannot be the name"):
        plain_name(name)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "./../../x", "x" * 300])
def test_a_path_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="cannot be the name"):
        unpack(tarred(MANIFEST, (name, b"evil")))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE],
)
def test_whatever_is_no_file_is_refused(kind: bytes) -> None:
    with pytest.raises(BundleError, match="no plain file"):
        unpack(tarred(MANIFEST, ("thing", b""), change=of_type(kind)))


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (tarred(MANIFEST, MANIFEST), "there twice"),
        (tarred(MANIFEST, change=sparse), "no plain file"),
        (tarred(("other", b"")), "without manifest.json"),
        (tarred(*((f"f{number}", b"") for number in range(65))), "65 files"),
        (tarred(MANIFEST, ("a.npz", swollen_arrays())), "arrays of a.npz"),
        (tarred(MANIFEST, ("a.npz", b"no zip")), "not a packed bundle"),
        (gzip.compress(bytes(MAX_UNPACKED_BYTES * 2)), "cut, or has more"),
        (tarred(MANIFEST)[:-9], "cut, or has more"),
        (tarred(MANIFEST) + b"more", "cut, or has more"),
        (b"", "cut, or has more"),
        (b"no gzip", "not a packed bundle"),
        (gzip.compress(b"no tar" * 200), "not a packed bundle"),
        (bytes(archive.MAX_ARCHIVE_BYTES + 1), "is no bundle"),
    ],
)
def test_hostile_archives_are_refused(hostile: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        unpack(hostile)


def test_a_size_that_is_not_there_is_refused() -> None:
    whole = bytearray(gzip.decompress(tarred(MANIFEST)))
    whole[124:136] = b"00000077777\0"  # the size of the first file; then its checksum
    whole[148:156] = b" " * 8
    whole[148:156] = f"{sum(whole[:512]):06o}\0 ".encode()
    with pytest.raises(BundleError, match="not a packed bundle"):
        unpack(gzip.compress(bytes(whole)))


def test_every_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    good = gzip.decompress(tarred(MANIFEST, ("a.txt", b"abc")))
    for place in range(0, 2048, 3):
        damaged = bytearray(good)
        damaged[place] ^= 0x41
        try:
            files = unpack(gzip.compress(bytes(damaged), 1))
        except BundleError:
            continue
        assert all(plain_name(name) == name for name in files)


def test_too_much_is_not_packed(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_UNPACKED_BYTES + 1)
    with pytest.raises(BundleError, match="can be promoted"):
        pack(tmp_path)


def test_what_does_not_compress_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", 100)
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    with pytest.raises(BundleError, match="or give its folder"):
        pack(tmp_path)
