"""Files of regions: MOCs as FITS, JSON or text, and sky maps as multi-order or flat HEALPix FITS."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from broker.astro.healpix import MAX_ORDER
from broker.context.regions import Region, map_region, merged, moc_region
from broker.errors import ListError
from broker.text import printable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

Form = Literal["moc", "sky map"]

MAX_FILE_BYTES = 2 * 1024**3
"""Of a file once unpacked: a flat map of nside 2048 with distances takes 1.6 GB."""
MAX_TEXT_BYTES = 64 * 1024**2
"""Of a file once unpacked that is no FITS."""
MAX_UPLOAD_BYTES = 256 * 1024**2
"""Of a file once unpacked that came over HTTP, where many may come at a time."""
_CHUNK, _SLICE, _MAX_MEMBERS = 1024**2, 1024**2 // 16, 10_000
_GZIP_MAGIC, _FITS_MAGIC = b"\x1f\x8b", b"SIMPLE  ="
_MAX_UNITS, _MAX_COLUMNS = 100, 999
_PROBABILITY = ("PROB", "PROBABILITY")
_DENSITY = "PROBDENSITY"
_DISTANCE = ("DISTMU", "DISTSIGMA", "DISTNORM")
_ALL = 1.0 - 1e-9
"""A credible level of which nobody misses the rest."""
_FIRST_UNIQ = np.int64(4) << (2 * np.arange(MAX_ORDER + 1))
"""(30,) the lowest UNIQ of each order: a cell's UNIQ is this plus its number."""
_REGION_COLUMNS = frozenset((b"UNIQ", b"RANGE", b"PROB", b"PROBABILITY"))
_OFF_BY = 0.01
"""How far from 1 probabilities may add up before it is told."""


@dataclass(frozen=True)
class ReadRegion:
    """What a file came to.  form : what it was;  notes : what its owner should know"""

    region: Region
    form: Form
    notes: tuple[str, ...] = ()


def read_region(content: bytes, most: int = MAX_FILE_BYTES) -> ReadRegion:
    """The region of a file, told by what is in it, compressed by gzip or not.

    most : bytes of the file once unpacked.  A sky map's distances are not used. Raises ListError where it is
    none of the forms above.
    """
    content = plain(content, most)
    if content.startswith(_FITS_MAGIC):
        return _read_fits(content)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ListError(
            "neither FITS nor text: a region is a MOC (FITS, JSON, text) or a sky map (FITS)"
        ) from None
    return ReadRegion(_moc(text), "moc")


def looks_like_region(content: bytes) -> bool:
    """Whether the beginning of a file is that of a region: FITS with the columns of one, or a MOC's JSON."""
    if content.startswith(_GZIP_MAGIC):
        try:
            content = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(content, 2**20)
        except zlib.error:
            return False
    if content.startswith(_FITS_MAGIC):
        columns = set(re.findall(rb"TTYPE[0-9]+ *= '([^']*?) *'", content))
        is_healpix = re.search(rb"ORDERING *= '(NUNIQ|RANGE|NESTED|RING) *'", content) is not None
        return columns >= {b"UNIQ", b"PROBDENSITY"} or (is_healpix and bool(columns & _REGION_COLUMNS))
    return content.lstrip().startswith(b"{")


def plain(content: bytes, most: int = MAX_FILE_BYTES) -> bytes:
    """A file's contents without gzip, of one member or several.

    most : bytes once unpacked, MAX_TEXT_BYTES of what is no FITS.  Raises ListError.
    """
    if not content.startswith(_GZIP_MAGIC):
        if not content.startswith(_FITS_MAGIC) and len(content) > MAX_TEXT_BYTES:
            raise ListError(_too_large(MAX_TEXT_BYTES))
        return content
    parts: list[bytes] = []
    size = 0
    for part in _inflated(content):
        parts.append(part)
        size += len(part)
        limit = most if parts[0].startswith(_FITS_MAGIC) else min(most, MAX_TEXT_BYTES)
        if size > limit:
            raise ListError(_too_large(limit))
    return b"".join(parts)


def _too_large(limit: int) -> str:
    return (
        f"the file has more than {limit:,} bytes unpacked; give a sky map as a multi-order one, a list in"
        " parts, or use `broker catalogs`"
    )


def _inflated(content: bytes) -> Iterator[bytes]:
    """The plain bytes of all members of a gzip file, some at a time.

    What follows them is ignored, as gzip does.  Raises ListError.
    """
    members, squeeze = 0, _gzip()
    try:
        for start in range(0, len(content), _SLICE):
            data = content[start : start + _SLICE]
            while data:
                if squeeze.eof:
                    if data[:1] != _GZIP_MAGIC[:1]:
                        return
                    members, squeeze = members + 1, _gzip()
                yield squeeze.decompress(data, _CHUNK)
                data = squeeze.unused_data if squeeze.eof else squeeze.unconsumed_tail
                if members >= _MAX_MEMBERS:
                    raise ListError(f"the file is gzip of more than {_MAX_MEMBERS:,} members")
        while not squeeze.eof and (part := squeeze.decompress(b"", _CHUNK)):
            yield part
    except zlib.error as error:
        raise ListError(f"the file begins like gzip, but cannot be unpacked: {error}") from None
    if not squeeze.eof:
        raise ListError("the file is cut: its gzip has no end")


def _gzip() -> Any:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _moc(text: str) -> Region:
    """A MOC as JSON ({"order": [cells]}) or text (order/cells)."""
    from mocpy import MOC  # noqa: PLC0415 (a second, and workers never need it)

    form = "json" if text.startswith("{") else "ascii"
    try:
        if form == "json":
            _check_json(json.loads(text))
        else:
            _check_text(text)
        return moc_region(MOC.from_string(text, form).to_depth29_ranges)
    except ListError:
        raise
    except Exception as error:  # a reader of foreign text may raise anything
        why = " ".join(str(error).split())[:200]
        raise ListError(f"neither FITS nor a MOC: {why}") from None


def _check_text(text: str) -> None:
    """As _check_json."""
    orders = re.findall(r"(\d+)\s*/", text)
    if not orders:
        raise ValueError("it has no order, as in 5/12-14")
    if wrong := [order for order in orders if len(order) > 2 or int(order) > MAX_ORDER]:
        raise ValueError(f"order {wrong[0][:20]} is not in 0..{MAX_ORDER}")


def _check_json(cells: Any) -> None:
    """Refuse what the reader would take for something else."""
    good = isinstance(cells, dict) and all(
        order.isdecimal() and int(order) <= MAX_ORDER and isinstance(numbers, list)
        for order, numbers in cells.items()
    )
    if not good:
        raise ValueError('a MOC as JSON is {"order": [cell, ...], ...}')
    for order, numbers in cells.items():
        if not all(isinstance(it, int) and 0 <= it < 12 * 4 ** int(order) for it in numbers):
            raise ValueError(f"order {order} has a cell that is not on the sky")


def _read_fits(content: bytes) -> ReadRegion:
    from astropy.io import fits  # noqa: PLC0415 (workers never need it)

    try:
        with fits.open(io.BytesIO(content)) as opened:
            units = list(islice(opened, _MAX_UNITS + 1))
            _check_units(units)
            if any(info["datLoc"] + info["datSpan"] > len(content) for info in map(_extent, units)):
                raise ListError("the FITS file is cut: it says that it is longer than it is")
            tables = [unit for unit in units if isinstance(unit, fits.BinTableHDU)]
            for unit in tables:
                names, header = {name.upper(): name for name in unit.columns.names}, unit.header
                if _DENSITY in names and "UNIQ" in names:
                    return _multi_order(unit.data[names["UNIQ"]], unit.data[names[_DENSITY]], header, names)
                if found := next((name for name in _PROBABILITY if name in names), None):
                    return _flat(unit, names, found)
                if header.get("ORDERING") in {"NUNIQ", "RANGE"} and header.get("MOCDIM", "SPACE") == "SPACE":
                    return ReadRegion(_fits_moc(content), "moc")
            shown = "; ".join(", ".join(unit.columns.names) for unit in tables)
    except (ListError, MemoryError):
        raise
    except Exception as error:  # damaged FITS fails in many ways
        raise ListError(f"the FITS file cannot be read: {printable(str(error), 300)}") from None
    raise ListError(
        f"a FITS file with the columns {shown or '(no table)'}: a MOC has UNIQ or RANGE, a sky map UNIQ and"
        " PROBDENSITY, or PROB for every pixel"
    )


def _check_units(units: Sequence[Any]) -> None:
    """Refuse what the reader would make objects of without end: it believes what the headers say."""
    if len(units) > _MAX_UNITS:
        raise ListError(f"a FITS file of more than {_MAX_UNITS} parts")
    counts = (unit.header.get("TFIELDS", 0) for unit in units)
    if not all(isinstance(count, int) and 0 <= count <= _MAX_COLUMNS for count in counts):
        raise ListError(f"a FITS table that says it has more than {_MAX_COLUMNS} columns")


def _extent(unit: Any) -> Mapping[str, int]:
    """Where the data of a part of a FITS file are: first byte and length."""
    info: Mapping[str, int] = unit.fileinfo()
    return info


def _fits_moc(content: bytes) -> Region:
    from mocpy import MOC  # noqa: PLC0415 (as above)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "moc.fits")
        path.write_bytes(content)
        return moc_region(MOC.load(path, "fits").to_depth29_ranges)


def _multi_order(uniq: Any, density: Any, header: Any, names: Mapping[str, str]) -> ReadRegion:
    _check_frame(header)
    numbers = np.asarray(uniq, dtype=np.int64)
    if not len(numbers) or numbers.min() < 4:
        raise ListError("a sky map whose column UNIQ has numbers below 4, which are no cells")
    orders = np.searchsorted(_FIRST_UNIQ, numbers, side="right") - 1
    cells = numbers - _FIRST_UNIQ[orders]
    return _as_map(cells, orders, np.asarray(density, np.float64) * 0.25**orders * np.pi / 3.0, names)


def _flat(unit: Any, names: Mapping[str, str], column: str) -> ReadRegion:
    header = unit.header
    _check_frame(header)
    probability = np.asarray(unit.data[names[column]], dtype=np.float64).ravel()
    order = _order(header, len(probability))
    ordering = str(header.get("ORDERING", "")).upper()
    if ordering not in {"NESTED", "RING"}:
        raise ListError(f"a flat sky map needs ORDERING = NESTED or RING, it is {ordering!r}")
    if not (np.isfinite(probability) & (probability >= 0)).all():
        raise ListError("a sky map with a probability that is negative or not a number")
    if ordering == "RING":
        from cdshealpix import to_ring  # noqa: PLC0415 (half a second, and workers never need it)

        probability = probability[to_ring(np.arange(len(probability), dtype=np.uint64), order)]
    return _as_map(*merged(probability, order), names)


def _order(header: Any, pixels: int) -> int:
    """The order of a map that gives every pixel.  Raises ListError."""
    order = (max(pixels // 12, 1).bit_length() - 1) // 2
    if pixels != 12 * 4**order or header.get("NSIDE", 2**order) != 2**order:
        raise ListError(
            f"a flat sky map of {pixels:,} pixels with NSIDE = {header.get('NSIDE')}: it must give all"
            " 12 NSIDE^2 pixels of the sky, NSIDE a power of two"
        )
    return order


def _check_frame(header: Any) -> None:
    frame = str(header.get("COORDSYS", "C")).strip().upper()
    if frame not in {"C", "ICRS", "EQUATORIAL", "CELESTIAL", ""}:
        raise ListError(f"a sky map in COORDSYS = {frame!r}; give it in celestial coordinates (C)")


def _as_map(cells: I64, orders: I64, probability: F64, names: Mapping[str, str]) -> ReadRegion:
    region, notes = map_region(cells, orders, probability), []
    total = float(probability.sum())
    if abs(total - 1.0) > _OFF_BY:
        notes.append(f"the probabilities add up to {total:.4g}; they were divided by that")
    if (furthest := float(region.levels.max())) < _ALL:
        notes.append(f"too many cells: those beyond the credible level {furthest:.6g} were left out")
    if ignored := [name for name in _DISTANCE if name in names]:
        notes.append(f"distances are not used: {', '.join(ignored)}")
    return ReadRegion(region, "sky map", tuple(notes))
