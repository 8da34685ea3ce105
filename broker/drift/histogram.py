"""Histograms that can be added and compared whoever made them: one grid of bins for every column.

A bin holds the numbers that share sign, exponent and the first six binary digits in single precision: it is
1/64 of its power of two wide. Nothing about a column has to be known or agreed on beforehand. Two samples are
compared in tenths of the reference, made of these bins.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
Histograms = dict[str, I64]
"""(WIDTH,) counts of each column, by its name."""

GRID = 1
"""Version of the grid: histograms of another are not comparable."""
_DIGITS = 6
_SMALLEST, _LARGEST = -10, 16
"""Powers of two beyond which numbers fall into the bin of zero or into the last."""
_BIAS, _FRACTION_BITS = 127, 23
"""Layout of single precision."""
_STEPS = (_LARGEST - _SMALLEST) << _DIGITS
_FIRST = (_BIAS + _SMALLEST) << _DIGITS
NULL = 2 * _STEPS + 1
"""The bin of unknown values."""
WIDTH = NULL + 1
"""Bins of a column, that of unknown values last."""

PARTS = 10
"""Parts of the reference, alike in size, that shares are compared in."""
_PSEUDO_COUNT = 0.5
"""Added to every part, so that an empty one has a logarithm (Jeffreys' prior)."""
LEAST_KNOWN = 250
"""With fewer known values in either sample no index is given."""
REFERENCE_FILE = "drift.npz"
"""The training sample's histograms, in a bundle."""


def bins(values: F64) -> U16:
    """The bin of each value, NULL where it is not finite.  values : any shape; returns the same shape.

    >>> (bins(np.array([18.0, 18.2, 18.3])) - bins(np.array([18.0]))).tolist()
    [0, 0, 1]
    >>> bool(bins(np.array([np.nan]))[0] == NULL)
    True
    """
    with np.errstate(over="ignore"):  # beyond single precision: the last bin
        single = values.astype(np.float32)
    steps = (single.view(np.int32) & 0x7FFFFFFF) >> (_FRACTION_BITS - _DIGITS)
    steps = np.clip(steps - (_FIRST - 1), 0, _STEPS)
    found = np.where(single < 0, _STEPS - steps, _STEPS + steps).astype(np.uint16)
    found[~np.isfinite(values)] = NULL
    return np.asarray(found)


def counted(names: Sequence[str], values: F64) -> Histograms:
    """The histograms of a matrix (n, k) whose columns have these names."""
    found = bins(values)
    return {
        name: np.bincount(found[:, place], minlength=WIDTH).astype(np.int64)
        for place, name in enumerate(names)
    }


def added(first: Histograms, second: Histograms) -> Histograms:
    """Both samples as one; a column may be in one alone."""
    names = dict.fromkeys([*first, *second])
    empty = np.zeros(WIDTH, dtype=np.int64)
    return {name: first.get(name, empty) + second.get(name, empty) for name in names}


def known(counts: I64) -> int:
    """How many values are not null.  counts : (WIDTH,)."""
    return int(counts[:NULL].sum())


def null_share(counts: I64) -> float:
    """Share of unknown values, NaN of nothing.  counts : (WIDTH,)."""
    total = int(counts.sum())
    return float(counts[NULL]) / total if total else np.nan


def psi(p: F64, q: F64) -> float:
    """Population stability index of two lists of shares: 0 if alike, symmetric, never negative.

    p, q : (b,) > 0, each with the sum 1.  Sum of (p - q) ln(p / q), the symmetric Kullback-Leibler
    divergence (Jeffreys 1946, Proc. R. Soc. A 186, 453). Of two samples of one population with n and m values
    its mean is (b - 1) (1/n + 1/m) (Yurdakul & Naranjo 2020, J. Risk Model Validation 14, 4).

    >>> round(psi(np.array([0.5, 0.5]), np.array([0.25, 0.75])), 3)
    0.275
    """
    return float(np.sum((p - q) * np.log(p / q)))


def column_psi(now: I64, reference: I64) -> float:
    """Index of a column's known values against the reference's, NaN where either has too few.

    now, reference : (WIDTH,) counts
    """
    if min(known(now), known(reference)) < LEAST_KNOWN:
        return np.nan
    part = tenths(reference)
    shares = [
        smoothed(np.bincount(part, counts[:NULL], PARTS).astype(np.float64)) for counts in (now, reference)
    ]
    return psi(*shares)


def tenths(reference: I64) -> I64:
    """(NULL,) which of PARTS parts of the reference each bin of known values lies in, by its middle rank."""
    counts = reference[:NULL]
    middle = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    return np.asarray(np.minimum(middle * PARTS, PARTS - 1).astype(np.int64))


def smoothed(counts: F64) -> F64:
    """Shares of counts, none of them zero."""
    return np.asarray((counts + _PSEUDO_COUNT) / (counts.sum() + _PSEUDO_COUNT * len(counts)))


def sparse(histograms: Mapping[str, I64]) -> tuple[U32, U32]:
    """(place, count) of every bin that is not empty, places counted on from column to column."""
    whole = np.concatenate([np.zeros(0, dtype=np.int64), *histograms.values()])
    places = np.flatnonzero(whole)
    return places.astype(np.uint32), whole[places].astype(np.uint32)


def dense(names: Sequence[str], places: U32, counts: U32) -> Histograms:
    """The histograms that `sparse` was given.  Raises ValueError if a place lies outside."""
    whole = np.zeros(len(names) * WIDTH, dtype=np.int64)
    if len(places) != len(counts) or places.max(initial=0) >= max(len(whole), 1):
        raise ValueError("these are no histograms of so many columns")
    np.add.at(whole, places, counts)
    return dict(zip(names, whole.reshape(len(names), WIDTH), strict=True))


def reference_bytes(histograms: Histograms) -> bytes:
    """Histograms as the file REFERENCE_FILE of a bundle."""
    places, counts = sparse(histograms)
    file = io.BytesIO()
    names = np.array(list(histograms), dtype=np.str_)
    np.savez_compressed(file, grid=np.array(GRID), names=names, places=places, counts=counts)
    return file.getvalue()


def read_reference(content: bytes) -> Histograms:
    """The histograms of a bundle's REFERENCE_FILE.  Raises BundleError for anything else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            if int(stored["grid"]) != GRID:
                raise ValueError(f"its grid is of version {int(stored['grid'])}, this is {GRID}")
            return dense(stored["names"].tolist(), stored["places"], stored["counts"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise BundleError(f"{REFERENCE_FILE} of the bundle cannot be used: {error}; train it again") from None
