"""A LightGBM model through the library's C interface.

LightGBM's Python package imports scikit-learn and much of scipy, which takes longer than all else that a
worker imports; prediction needs none of it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import weakref
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker.errors import BundleError

F64 = npt.NDArray[np.float64]

_FLOAT64, _ROW_MAJOR, _RAW_SCORE, _CONTRIBUTIONS, _ALL = 1, 1, 1, 3, -1
_PARAMETERS = b"num_threads=1 verbosity=-1"
_SIGNATURES = {
    "LGBM_BoosterCreateFromModelfile": [c_char_p, POINTER(c_int), POINTER(c_void_p)],
    "LGBM_BoosterFree": [c_void_p],
    "LGBM_BoosterGetNumFeature": [c_void_p, POINTER(c_int)],
    "LGBM_BoosterNumModelPerIteration": [c_void_p, POINTER(c_int)],
    "LGBM_BoosterPredictForMat": [
        c_void_p, c_void_p, c_int, c_int32, c_int32, c_int, c_int, c_int, c_int, c_char_p,
        POINTER(c_int64), POINTER(c_double),
    ],
}  # fmt: skip


class Booster:
    """A model read from its text file; may be shared by threads."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be read, ValueError when it holds no model."""
        path.stat()
        self._library = _library()
        self._handle, trees = c_void_p(), c_int()
        self._call("CreateFromModelfile", os.fsencode(path), byref(trees), byref(self._handle))
        weakref.finalize(self, self._library.LGBM_BoosterFree, self._handle)
        self.inputs = self._number("GetNumFeature")
        """Columns of the matrix that it takes."""
        self.outputs = self._number("NumModelPerIteration")
        """Columns that it gives: its classes."""

    def raw_scores(self, matrix: F64) -> F64:
        """Scores before the softmax.  matrix : (n, inputs), NaN where unknown;  returns (n, outputs)."""
        return self._predict(matrix, _RAW_SCORE, self.outputs)

    def contributions(self, matrix: F64) -> F64:
        """What each input adds to each score beside its mean (SHAP).  Returns (n, outputs, inputs)."""
        width = self.inputs + 1
        found = self._predict(matrix, _CONTRIBUTIONS, self.outputs * width)
        return found.reshape(len(matrix), self.outputs, width)[:, :, :-1]

    def _predict(self, matrix: F64, kind: int, width: int) -> F64:
        if matrix.ndim != 2 or matrix.shape[1] != self.inputs:
            raise ValueError(f"the model takes {self.inputs} columns, not an array of shape {matrix.shape}")
        result = np.empty((len(matrix), width))
        if len(matrix) == 0:  # LightGBM refuses an empty matrix
            return result
        data, written = np.ascontiguousarray(matrix, dtype=np.float64), c_int64()
        self._call(
            "PredictForMat", self._handle, data.ctypes.data, _FLOAT64, *data.shape, _ROW_MAJOR, kind,
            0, _ALL, _PARAMETERS, byref(written), result.ctypes.data_as(POINTER(c_double)),
        )  # fmt: skip
        return result

    def _number(self, what: str) -> int:
        value = c_int()
        self._call(what, self._handle, byref(value))
        return value.value

    def _call(self, what: str, *arguments: object) -> None:
        if getattr(self._library, f"LGBM_Booster{what}")(*arguments) != 0:
            raise ValueError(self._library.LGBM_GetLastError().decode(errors="replace"))


@cache
def _library() -> ctypes.CDLL:
    """LightGBM's shared library, found in its package without importing that."""
    package = importlib.util.find_spec("lightgbm")
    folders = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
    names = [f"lib_lightgbm{suffix}" for suffix in (".so", ".dylib", ".dll")]
    found = [path for folder in folders for name in names for path in sorted(folder.rglob(name))]
    if not found:
        raise BundleError("lightgbm's library is not in its package; install lightgbm again")
    library = ctypes.CDLL(str(found[0]))
    for name, arguments in _SIGNATURES.items():
        getattr(library, name).argtypes = arguments
    library.LGBM_GetLastError.restype = c_char_p
    return library
