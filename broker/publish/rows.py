"""Columns to Avro records: n rows of one schema in one compiled pass, byte for byte what fastavro writes.

A record is a sequence of steps, one a field in the schema's order. Numbers come from three matrices (one row
an alert), text from a pool of bytes, light curves from flat columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from broker.astro.bands import BANDS
from broker.lightcurves import KINDS, LIMIT, LightCurves, empty_light_curves, empty_points

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

LONG, OPT_LONG, BOOL, DOUBLE, OPT_FLOAT, OPT_DOUBLE, TEXT, OPT_TEXT, TEXTS, POINTS, NULL = range(11)

_NUMBER_BYTES = 11
"""The most a branch index and a number can take."""
_POINT_BYTES = 64
"""The most one point of a light curve can take."""


@dataclass
class RowWriter:
    """Collects the steps of a record, field by field, and encodes all rows at once."""

    length: int
    _steps: list[tuple[int, int]] = field(default_factory=list)
    _ints: list[I64] = field(default_factory=list)
    _floats: list[F64] = field(default_factory=list)
    _texts: list[tuple[I64, tuple[bytes, ...]]] = field(default_factory=list)
    _lists: list[tuple[I64, I64, tuple[bytes, ...]]] = field(default_factory=list)
    _curves: LightCurves | None = None

    def long(self, values: npt.NDArray[Any]) -> None:
        """A required long or int.  values : (n,) integers."""
        self._add_int(LONG, values)

    def optional_long(self, values: npt.NDArray[Any]) -> None:
        """["null", "long"]: 0 is null."""
        self._add_int(OPT_LONG, values)

    def boolean(self, values: npt.NDArray[Any]) -> None:
        """A required boolean."""
        self._add_int(BOOL, values)

    def double(self, values: F64) -> None:
        """A required double."""
        self._add_float(DOUBLE, values)

    def optional_double(self, values: F64) -> None:
        """["null", "double"]: NaN is null."""
        self._add_float(OPT_DOUBLE, values)

    def optional_float(self, values: F64) -> None:
        """["null", "float"]: NaN is null."""
        self._add_float(OPT_FLOAT, values)

    def text(self, codes: npt.NDArray[Any], words: Sequence[bytes]) -> None:
        """A required string: words[codes[i]]."""
        self._add_text(TEXT, codes, words)

    def optional_text(self, codes: npt.NDArray[Any], words: Sequence[bytes]) -> None:
        """["null", "string"]: a code outside the words is null."""
        self._add_text(OPT_TEXT, codes, words)

    def constant(self, word: bytes) -> None:
        """A required string, the same in every row."""
        self._add_text(TEXT, np.zeros(self.length, dtype=np.int64), (word,))

    def null(self) -> None:
        """The first branch of a union whose first branch is null, in every row."""
        self._steps.append((NULL, 0))

    def texts(self, codes: I64, starts: I64, words: Sequence[bytes]) -> None:
        """An array of strings: words[codes[starts[i]:starts[i+1]]]."""
        self._steps.append((TEXTS, len(self._lists)))
        self._lists.append((codes.astype(np.int64), starts.astype(np.int64), tuple(words)))

    def light_curves(self, curves: LightCurves) -> None:
        """An array of `Point` records (publish/records.py); one a record."""
        self._steps.append((POINTS, 0))
        self._curves = curves

    def encode(self) -> list[bytes]:
        """Every row as an Avro datum."""
        buffer, bounds = self.encode_into_one()
        whole, cuts = buffer.tobytes(), bounds.tolist()
        return [whole[cuts[i] : cuts[i + 1]] for i in range(self.length)]

    def encode_into_one(self) -> tuple[U8, I64]:
        """Every row in one buffer, row i at bounds[i]:bounds[i+1]."""
        ints, floats = (
            _matrix(self._ints, np.int64, self.length),
            _matrix(self._floats, np.float64, self.length),
        )
        pool, word_bounds, text_codes = self._pool_texts()
        list_codes, list_starts = self._pool_lists()
        points, point_starts = self._points()
        buffer = np.empty(self._room(word_bounds, list_starts, len(points)), dtype=np.uint8)
        bounds = np.zeros(self.length + 1, dtype=np.int64)
        steps = np.array(self._steps, dtype=np.int64).reshape(-1, 2)
        _encode(
            steps, ints, floats, pool, word_bounds, text_codes,
            list_codes, list_starts, points, point_starts, *_NAMES, buffer, bounds,
        )  # fmt: skip
        return buffer[: bounds[-1]], bounds

    def _add_int(self, step: int, values: npt.NDArray[Any]) -> None:
        self._steps.append((step, len(self._ints)))
        self._ints.append(np.asarray(values).astype(np.int64))

    def _add_float(self, step: int, values: F64) -> None:
        self._steps.append((step, len(self._floats)))
        self._floats.append(np.asarray(values, dtype=np.float64))

    def _add_text(self, step: int, codes: npt.NDArray[Any], words: Sequence[bytes]) -> None:
        self._steps.append((step, len(self._texts)))
        self._texts.append((np.asarray(codes).astype(np.int64), tuple(words)))

    def _pool_texts(self) -> tuple[U8, I64, I64]:
        """All words in one pool, their bounds, and (n, columns) word numbers, -1 for null."""
        words: list[bytes] = []
        columns = []
        for codes, own in self._texts:
            valid = (codes >= 0) & (codes < len(own))
            columns.append(np.where(valid, codes + len(words), -1))
            words += own
        for _, _, own in self._lists:
            words += own
        bounds = np.zeros(len(words) + 1, dtype=np.int64)
        np.cumsum([len(word) for word in words], out=bounds[1:])
        return np.frombuffer(b"".join(words), dtype=np.uint8), bounds, _matrix(columns, np.int64, self.length)

    def _pool_lists(self) -> tuple[I64, I64]:
        """Word numbers of all list columns in one array, and (columns, n+1) bounds into it."""
        first = sum(len(own) for _, own in self._texts)
        codes, starts, at = [np.zeros(0, np.int64)], [], 0
        for own_codes, own_starts, own in self._lists:
            codes.append(own_codes + first)
            starts.append(own_starts + at)
            at += len(own_codes)
            first += len(own)
        rows = _matrix(starts, np.int64, self.length + 1).T
        return np.concatenate(codes), np.ascontiguousarray(rows)

    def _points(self) -> tuple[npt.NDArray[np.void], I64]:
        if self._curves is None:
            nothing = empty_light_curves(self.length)
            return nothing.points, nothing.starts
        return self._curves.points.copy(), self._curves.starts

    def _room(self, word_bounds: I64, list_starts: I64, points: int) -> int:
        """Bytes that are certainly enough."""
        longest = int(np.diff(word_bounds).max(initial=0)) + _NUMBER_BYTES
        numbers = (len(self._steps) + len(self._lists) + 2) * (2 * _NUMBER_BYTES)
        texts = len(self._texts) * longest
        listed = int(list_starts[:, -1].sum()) * longest if len(list_starts) else 0
        return self.length * (numbers + texts) + listed + points * _POINT_BYTES + 64


def warm_up() -> None:
    """Compile (or load from the cache) the kernels of this file."""
    writer = RowWriter(1)
    writer.light_curves(LightCurves(empty_points(1), np.array([0, 1])))
    writer.constant(b"warm")
    writer.encode()


def _matrix(columns: Sequence[npt.NDArray[Any]], dtype: Any, length: int) -> npt.NDArray[Any]:
    if not columns:
        return np.zeros((length, 0), dtype=dtype)
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=dtype)


def _names(words: Sequence[str]) -> tuple[U8, I64]:
    bounds = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum([len(word) for word in words], out=bounds[1:])
    return np.frombuffer("".join(words).encode(), dtype=np.uint8), bounds


_NAMES = (*_names(BANDS), *_names(KINDS))


@numba.njit(cache=True, nogil=True)
def _put_long(buffer, at, value):  # type: ignore[no-untyped-def]
    """Zigzag varint (Avro 1.11, 'Binary encoding')."""
    zigzag = np.uint64((value << np.int64(1)) ^ (value >> np.int64(63)))
    while zigzag > np.uint64(0x7F):
        buffer[at] = np.uint8((zigzag & np.uint64(0x7F)) | np.uint64(0x80))
        zigzag >>= np.uint64(7)
        at += 1
    buffer[at] = np.uint8(zigzag)
    return at + 1


@numba.njit(cache=True, nogil=True)
def _put_bits(buffer, at, bits, count):  # type: ignore[no-untyped-def]
    for k in range(count):
        buffer[at + k] = np.uint8((bits >> np.uint64(8 * k)) & np.uint64(0xFF))
    return at + count


@numba.njit(cache=True, nogil=True)
def _put_double(buffer, at, value, scratch):  # type: ignore[no-untyped-def]
    scratch[0] = value
    return _put_bits(buffer, at, scratch.view(np.uint64)[0], 8)


@numba.njit(cache=True, nogil=True)
def _put_float(buffer, at, value, scratch):  # type: ignore[no-untyped-def]
    scratch[0] = value
    return _put_bits(buffer, at, np.uint64(scratch.view(np.uint32)[0]), 4)


@numba.njit(cache=True, nogil=True)
def _put_optional_float(buffer, at, value, scratch):  # type: ignore[no-untyped-def]
    if np.isnan(value):
        buffer[at] = 0
        return at + 1
    buffer[at] = 2
    return _put_float(buffer, at + 1, value, scratch)


@numba.njit(cache=True, nogil=True)
def _put_word(buffer, at, pool, low, high):  # type: ignore[no-untyped-def]
    at = _put_long(buffer, at, np.int64(high - low))
    for k in range(low, high):
        buffer[at] = pool[k]
        at += 1
    return at


@numba.njit(cache=True, nogil=True)
def _put_points(  # type: ignore[no-untyped-def]
    buffer, at, points, low, high, bands, band_bounds, kinds, kind_bounds, wide, narrow
):
    """An array of publish.records.POINT_SCHEMA."""
    if high > low:
        at = _put_long(buffer, at, np.int64(high - low))
    for k in range(low, high):
        point = points[k]
        at = _put_double(buffer, at, point.midpoint_mjd_tai, wide)
        if point.band < len(band_bounds) - 1:
            buffer[at] = 2
            at = _put_word(buffer, at + 1, bands, band_bounds[point.band], band_bounds[point.band + 1])
        else:
            buffer[at] = 0
            at += 1
        at = _put_word(buffer, at, kinds, kind_bounds[point.kind], kind_bounds[point.kind + 1])
        at = _put_optional_float(buffer, at, point.psf_flux, narrow)
        at = _put_optional_float(buffer, at, point.psf_flux_err, narrow)
        if point.kind == LIMIT:
            buffer[at] = 0
            at += 1
        else:
            buffer[at] = 2
            at = _put_long(buffer, at + 1, point.source_id)
        at = _put_long(buffer, at, np.int64(point.flags))
        at = _put_long(buffer, at, np.int64(point.known_at))
    buffer[at] = 0
    return at + 1


@numba.njit(cache=True, nogil=True)
def _encode(  # type: ignore[no-untyped-def]
    steps, ints, floats, pool, word_bounds, text_codes, list_codes, list_starts,
    points, point_starts, bands, band_bounds, kinds, kind_bounds, buffer, bounds,
):  # fmt: skip
    wide = np.empty(1, dtype=np.float64)
    narrow = np.empty(1, dtype=np.float32)
    at = 0
    for row in range(len(bounds) - 1):
        for number in range(len(steps)):
            step, column = steps[number, 0], steps[number, 1]
            if step == LONG:
                at = _put_long(buffer, at, ints[row, column])
            elif step == OPT_LONG:
                if ints[row, column] == 0:
                    buffer[at] = 0
                    at += 1
                else:
                    buffer[at] = 2
                    at = _put_long(buffer, at + 1, ints[row, column])
            elif step == BOOL:
                buffer[at] = ints[row, column] != 0
                at += 1
            elif step == DOUBLE:
                at = _put_double(buffer, at, floats[row, column], wide)
            elif step == OPT_FLOAT:
                at = _put_optional_float(buffer, at, floats[row, column], narrow)
            elif step == OPT_DOUBLE:
                if np.isnan(floats[row, column]):
                    buffer[at] = 0
                    at += 1
                else:
                    buffer[at] = 2
                    at = _put_double(buffer, at + 1, floats[row, column], wide)
            elif step in (TEXT, OPT_TEXT):
                code = text_codes[row, column]
                if step == OPT_TEXT:
                    buffer[at] = 0 if code < 0 else 2
                    at += 1
                if code >= 0:
                    at = _put_word(buffer, at, pool, word_bounds[code], word_bounds[code + 1])
                elif step == TEXT:
                    at = _put_long(buffer, at, np.int64(0))
            elif step == TEXTS:
                low, high = list_starts[column, row], list_starts[column, row + 1]
                if high > low:
                    at = _put_long(buffer, at, np.int64(high - low))
                for k in range(low, high):
                    code = list_codes[k]
                    at = _put_word(buffer, at, pool, word_bounds[code], word_bounds[code + 1])
                buffer[at] = 0
                at += 1
            elif step == POINTS:
                at = _put_points(
                    buffer, at, points, point_starts[row], point_starts[row + 1],
                    bands, band_bounds, kinds, kind_bounds, wide, narrow,
                )  # fmt: skip
            else:
                buffer[at] = 0
                at += 1
        bounds[row + 1] = at
