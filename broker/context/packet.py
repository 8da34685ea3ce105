"""What models may look at beside the light curve: the packet's own numbers, and where on the sky it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from broker.astro.sky import galactic_latitude_deg
from broker.batch import PACKET_COLUMNS

F64 = npt.NDArray[np.float64]

ABS_GAL_B = "abs_gal_b"
COUNTERPART_COLOURS = {
    f"counterpart_{a}{b}": (f"counterpart_mag_{a}", f"counterpart_mag_{b}") for a, b in ("gr", "ri", "iz")
}
"""Colours of the nearest catalogued source, and the two packet columns that each is the difference of."""
CONTEXT_NAMES: tuple[str, ...] = (*(spec.name for spec in PACKET_COLUMNS), ABS_GAL_B, *COUNTERPART_COLOURS)
"""Names of the columns, in order; a model's bundle names those it needs."""


def context_matrix(packet: Mapping[str, F64], ra: F64, dec: F64) -> F64:
    """(n, len(CONTEXT_NAMES)) context of n alerts, NaN where unknown.

    packet : each of PACKET_COLUMNS (n,);  ra, dec : (n,) [deg, ICRS]
    """
    columns = [np.asarray(packet[spec.name], dtype=np.float64) for spec in PACKET_COLUMNS]
    colours = [packet[first] - packet[second] for first, second in COUNTERPART_COLOURS.values()]
    return np.column_stack([*columns, np.abs(galactic_latitude_deg(ra, dec)), *colours])
