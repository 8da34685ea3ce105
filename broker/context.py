"""What models may look at beside the light curve: the packet's own numbers, and where on the sky it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from broker.astro.sky import galactic_latitude_deg
from broker.batch import PACKET_COLUMNS

F64 = npt.NDArray[np.float64]

ABS_GAL_B = "abs_gal_b"
CONTEXT_NAMES: tuple[str, ...] = (*(spec.name for spec in PACKET_COLUMNS), ABS_GAL_B)
"""Names of the columns, in order; a model's bundle names those it needs."""


def context_matrix(packet: Mapping[str, F64], ra: F64, dec: F64) -> F64:
    """(n, len(CONTEXT_NAMES)) context of n alerts, NaN where unknown.

    packet : each of PACKET_COLUMNS (n,);  ra, dec : (n,) [deg, ICRS]
    """
    columns = [np.asarray(packet[spec.name], dtype=np.float64) for spec in PACKET_COLUMNS]
    return np.column_stack([*columns, np.abs(galactic_latitude_deg(ra, dec))])
