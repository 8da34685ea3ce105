"""A bundle as one piece of bytes, so that it can travel in a message.

Packing is trusted, unpacking is not: an archive may come from anybody who can write to Kafka. Nothing of it
is ever written where it says, only plain files under plain names are taken, and all sizes are bounded before
anything is unpacked.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from broker.errors import BundleError
from broker.scores.bundle import MANIFEST

MAX_ARCHIVE_BYTES = 9 * 1024 * 1024
"""Compressed; in base64 a third more, which leaves room in the 17 MiB of a message."""
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""All files of a bundle together, and so all arrays of one of its files."""
MAX_FILES = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_GZIP = 16 + zlib.MAX_WBITS
_PLAIN_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
"""Neither links nor devices, and no sparse files, whose size costs nothing."""


def pack(folder: Path) -> bytes:
    """The files of a bundle as a compressed tar; the same files give the same bytes.  Raises BundleError."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    _check_sizes({name: len(content) for name, content in files.items()})
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(plain_name(name))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    squeeze = zlib.compressobj(9, wbits=_GZIP)
    archive = squeeze.compress(plain.getvalue()) + squeeze.flush()
    if len(archive) > MAX_ARCHIVE_BYTES:
        raise BundleError(
            f"bundle {folder} takes {len(archive):,} bytes compressed, at most {MAX_ARCHIVE_BYTES:,} can be "
            "promoted; train a smaller one, or give its folder as run.model"
        )
    return archive


def unpack(archive: bytes) -> dict[str, bytes]:
    """Content of each file of a packed bundle by its name.  Raises BundleError for anything else."""
    if len(archive) > MAX_ARCHIVE_BYTES:
        raise BundleError(
            f"an archive of {len(archive):,} bytes is no bundle: they have {MAX_ARCHIVE_BYTES:,}"
        )
    try:
        files = dict(_members(_inflate(archive)))
    except (BundleError, MemoryError):
        raise
    except Exception as error:  # tar and zip fail in as many ways as there are damaged files
        raise BundleError(f"not a packed bundle: {error!r}") from None
    if MANIFEST not in files:
        raise BundleError(f"a packed bundle without {MANIFEST}")
    return files


def plain_name(name: str) -> str:
    """The name itself if it can only mean a file of the folder it is put in.  Raises BundleError."""
    if _NAME.fullmatch(name) is None:
        raise BundleError(f"{name[:60]!r} cannot be the name of a bundle's file")
    return name


def _inflate(archive: bytes) -> bytes:
    whole = MAX_UNPACKED_BYTES + MAX_FILES * 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
    squeeze = zlib.decompressobj(wbits=_GZIP)
    plain = squeeze.decompress(archive, whole)
    if not squeeze.eof or squeeze.unused_data:
        raise BundleError(f"a packed bundle that is cut, or has more than {whole:,} bytes")
    return plain


def _members(plain: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a tar."""
    sizes: dict[str, int] = {}
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
        for member in tar:
            name = plain_name(member.name)
            if member.type not in _PLAIN_FILES or member.issparse() or name in sizes:
                raise BundleError(f"{name} in a packed bundle is no plain file, or is there twice")
            sizes[name] = member.size
            _check_sizes(sizes)
            source = tar.extractfile(member)
            content = b"" if source is None else source.read()
            if name.endswith(".npz"):
                _check_arrays(name, content)
            yield name, content


def _check_sizes(sizes: Mapping[str, int]) -> None:
    if len(sizes) > MAX_FILES or sum(sizes.values()) > MAX_UNPACKED_BYTES:
        raise BundleError(
            f"a bundle of {len(sizes)} files and {sum(sizes.values()):,} bytes; "
            f"at most {MAX_FILES} and {MAX_UNPACKED_BYTES:,} can be promoted"
        )


def _check_arrays(name: str, content: bytes) -> None:
    """Arrays are packed once more: they must not swell when they are read."""
    with zipfile.ZipFile(io.BytesIO(content)) as arrays:
        if sum(item.file_size for item in arrays.infolist()) > MAX_UNPACKED_BYTES:
            raise BundleError(f"the arrays of {name} take more than {MAX_UNPACKED_BYTES:,} bytes")
