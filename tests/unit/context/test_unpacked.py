"""Compressed files that would become much are refused before they do."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pytest
from astropy.io import fits

from broker import list_store
from broker.context import region_files
from broker.context.region_files import MAX_TEXT_BYTES, plain, read_region
from broker.errors import ListError


def _zeros(size: int, start: bytes = b"") -> bytes:
    squeeze = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    parts = [squeeze.compress(start)]
    parts += [squeeze.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join([*parts, squeeze.flush()])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that was unpacked."""
    sizes: list[int] = []
    unpacked = region_files._inflated

    def noting(content: bytes) -> object:
        for part in unpacked(content):
            sizes.append(len(part))
            yield part

    monkeypatch.setattr(region_files, "_inflated", noting)
    return sizes


@pytest.mark.parametrize("members", [1, 3])
def test_a_small_upload_that_would_be_large_is_refused_early(members: int, counted: list[int]) -> None:
    bomb = _zeros(240 * 2**20 // members) * members
    assert len(bomb) < 2**19
    for call in (read_region, list_store.region, list_store.text_of):
        counted.clear()
        with pytest.raises(ListError, match="unpacked"):
            call(bomb)
        assert sum(counted) <= MAX_TEXT_BYTES + 2**20


def test_what_says_that_it_is_fits_has_the_larger_limit_only(counted: list[int]) -> None:
    with pytest.raises(ListError, match="unpacked"):
        list_store.region(_zeros(100 * 2**20, b"SIMPLE  ="), 80 * 2**20)
    assert MAX_TEXT_BYTES < sum(counted) <= 81 * 2**20


def test_plain_text_without_end_is_refused() -> None:
    with pytest.raises(ListError, match="unpacked"):
        plain(b"a" * (MAX_TEXT_BYTES + 1))


def test_many_members_are_one_file_and_too_many_are_none() -> None:
    text = b"name,ra,dec\n" + b"x,10,0\n" * 100_000
    packed = b"".join(gzip.compress(text[k : k + 1000]) for k in range(0, len(text), 1000))
    assert plain(packed) == text
    assert plain(packed + bytes(512)) == text
    assert plain(packed + b"more") == text
    with pytest.raises(ListError, match="members"):
        plain(gzip.compress(b"") * 50_000)


@pytest.mark.parametrize("cut", [1, 5, 8, 20])
def test_a_cut_file_is_said_to_be(cut: int) -> None:
    noise = np.random.default_rng(1).bytes(300_000)
    with pytest.raises(ListError, match="cut"):
        plain(gzip.compress(noise)[:-cut])
    assert plain(gzip.compress(noise)) == noise


@pytest.mark.parametrize(
    "card",
    [
        ("BITPIX", 2**40),
        ("BITPIX", -7),
        ("NAXIS", 999),
        ("NAXIS1", 2**62),
        ("NAXIS2", 2**62),
        ("NAXIS2", -1),
        ("PCOUNT", 2**62),
        ("GCOUNT", 2**40),
        ("TFIELDS", 10**9),
        ("TFORM1", "999999999999D"),
        ("TFORM1", "1PD"),
        ("TDIM1", "(99999,99999,99999)"),
        ("THEAP", 2**62),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_fits_header_that_lies_is_refused(card: tuple[str, object]) -> None:
    column = fits.Column("PROB", "D", array=np.full(12, 1 / 12))
    table = fits.BinTableHDU.from_columns([column])
    table.header["ORDERING"], table.header["NSIDE"] = "NESTED", 1
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    content = bytearray(out.getvalue())
    name, value = card
    text = f"{name:8}= {value!r:>20}".ljust(80)[:80].encode()
    place = content.find(f"{name:8}=".encode(), 2880)
    if place < 0:
        place = content.find(b"END" + b" " * 77, 2880)
        content[place + 80 : place + 160] = content[place : place + 80]
    content[place : place + 80] = text
    assert _refusal(bytes(content)).encode()
    assert len(_refusal(bytes(content))) < 1000


def _refusal(content: bytes) -> str:
    try:
        list_store.region(content)
    except ListError as refused:
        return str(refused)
    return "none: the lie is about what is not read"
