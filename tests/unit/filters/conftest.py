"""A small table with every kind of column, and its specifications."""

from __future__ import annotations

import numpy as np
import pytest

from broker.table import Column, ColumnSpec, Table, string_column

SPECS = {
    spec.name: spec
    for spec in (
        ColumnSpec("mag", "AB mag", "magnitude"),
        ColumnSpec("ra", "deg", "right ascension"),
        ColumnSpec("dec", "deg", "declination"),
        ColumnSpec("psf_flux", "nJy", "flux"),
        ColumnSpec("color_gr", "mag", "color"),
        ColumnSpec("prob_SNIa", "", "probability"),
        ColumnSpec("dia_object_id", "", "id", "int"),
        ColumnSpec("ss_object_id", "", "id", "int"),
        ColumnSpec("band", "", "passband", "string"),
        ColumnSpec("survey", "", "survey", "string"),
        ColumnSpec("is_dipole", "", "dipole", "bool"),
        ColumnSpec("solar_system.associated", "", "moving", "bool"),
    )
}


@pytest.fixture
def specs() -> dict[str, ColumnSpec]:
    return SPECS


@pytest.fixture
def table() -> Table:
    """Six rows; the last is NULL in every column that can be."""
    nan = np.nan
    columns = [
        Column(SPECS["mag"], np.array([17.0, 18.0, 19.0, 20.0, 21.0, nan])),
        Column(SPECS["ra"], np.array([0.0, 187.7, 187.8, 359.9, 10.0, 20.0])),
        Column(SPECS["dec"], np.array([0.0, 12.39, 12.39, 0.0, 89.9, -45.0])),
        Column(SPECS["psf_flux"], np.array([100.0, -50.0, 0.0, 1e6, 1.0, nan])),
        Column(SPECS["color_gr"], np.array([0.5, -0.5, 0.0, 1.0, nan, nan])),
        Column(SPECS["prob_SNIa"], np.array([0.9, 0.1, nan, 0.6, 0.0, nan])),
        Column(SPECS["dia_object_id"], np.array([2**53, 2**53 + 1, 2**62 + 1, 7, 8, 0])),
        Column(SPECS["ss_object_id"], np.array([2**53, 5, 0, 7, 9, 0])),
        Column(SPECS["band"], np.array([1, 2, 1, 0, 5, -1], dtype=np.int32), ("u", "g", "r", "i", "z", "y")),
        string_column(SPECS["survey"], ["ztf", "lsst", "g", "r", "it's", ""]),
        Column(SPECS["is_dipole"], np.array([1.0, 0.0, 1.0, 0.0, nan, nan])),
        Column(SPECS["solar_system.associated"], np.array([0.0, 1.0, nan, 0.0, 1.0, nan])),
    ]
    return Table(columns, 6)
