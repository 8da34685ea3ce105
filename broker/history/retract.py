"""Which published alerts a batch takes back, and whom to tell: each retraction goes out once.

The first fresh alert that tells of a withdrawal notes it in the store, with the detection's claim as it was
then: that claim names the filters to tell, and the note stays the same however often the batch is redone.
An alert that comes after the news of its own withdrawal finds the note and tells whoever is not told yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from broker.history import pack
from broker.history.recall import Bools, Recall
from broker.lightcurves import DETECTION, FLAG_WITHDRAWN, Points, empty_points


@dataclass(frozen=True, slots=True)
class Retraction:
    """A published alert that the survey took back.

    row : the alert of the batch that says so;  point : (1,) the detection that is gone
    to_alerts : whether the survey's alert topic is to be told;  marks : the filters to be told
    """

    row: int
    point: Points
    to_alerts: bool
    marks: Sequence[bytes]


def retractions(known: Recall, hits: Bools, marks: Sequence[bytes]) -> list[Retraction]:
    """What a batch takes back.  hits : (filters, n) of this batch;  marks : (filters,) Filter.mark."""
    earlier = [
        Retraction(told.row, told.point, True, pack.claim_marks(told.claim))
        for told in known.withdrawals
        if told.claim
    ]
    noted = [row for row, note in enumerate(known.withdrawn) if note]
    own = [
        _of_this_batch(known, row, [marks[f] for f in np.flatnonzero(hits[:, row]).tolist()]) for row in noted
    ]
    return earlier + [item for item in own if item.to_alerts or item.marks]


def unclaimed(known: Recall) -> list[int]:
    """Ids of withdrawn detections of which no alert of ours is known."""
    return [int(told.point["source_id"][0]) for told in known.withdrawals if not told.claim]


def _of_this_batch(known: Recall, row: int, passed: Sequence[bytes]) -> Retraction:
    told = known.withdrawn[row][pack.POSITION_BYTES :]
    already = pack.claim_marks(told)
    return Retraction(row, _own_point(known, row), not told, [mark for mark in passed if mark not in already])


def _own_point(known: Recall, row: int) -> Points:
    batch, point = known.batch, empty_points(1)
    point["source_id"], point["kind"] = batch.dia_source_id[row], DETECTION
    point["midpoint_mjd_tai"], point["band"] = batch.midpoint_mjd_tai[row], batch.band[row]
    point["psf_flux"], point["psf_flux_err"] = batch.psf_flux[row], batch.psf_flux_err[row]
    point["flags"] = batch.flags[row] | FLAG_WITHDRAWN
    return point
