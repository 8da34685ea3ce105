"""What has drifted: tonight's numbers against the nights before it and against the training sample."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.drift.histogram import Histograms, column_psi, null_share
from broker.drift.nights import NIGHTS, Tonight
from broker.metrics_server import DriftGauge

HIGH_PSI = 0.4
"""An index from which on a column has drifted. docs/drift.md says how it was chosen."""
HIGH_NULLS = 0.2
"""So much more of a column is null: it is being lost.

Less is no fault: in a new pipeline's first weeks the expensive features come to be known of more and more.
"""
CLOCKS = ("age_days", "days_since_peak", "fit_days_since_peak", "last_limit_age_days")
"""Beginnings of the names of columns that count days since an event: they change with the calendar."""
NIGHTS_REFERENCE = "nights"
"""How the metrics name what tonight is compared with."""


@dataclass(frozen=True)
class Shift:
    """One column of one sample against a reference.

    psi : population stability index of the known values, NaN where they are too few
    nulls, reference_nulls : share of unknown values, 0..1, NaN where there is no alert
    """

    column: str
    psi: float
    nulls: float
    reference_nulls: float

    @property
    def more_nulls(self) -> float:
        """By how much the share of nulls has grown, -1..1."""
        return self.nulls - self.reference_nulls

    @property
    def lost(self) -> bool:
        """Whether the column is null much more often."""
        return self.more_nulls > HIGH_NULLS

    @property
    def high(self) -> bool:
        """Whether the column has drifted."""
        return self.lost or self.psi > HIGH_PSI


_UNKNOWN = Shift("", math.nan, math.nan, math.nan)


def shifts(now: Histograms, reference: Histograms) -> list[Shift]:
    """Every column that both have, the largest index first, those without one last."""
    found = [
        Shift(name, column_psi(counts, reference[name]), null_share(counts), null_share(reference[name]))
        for name, counts in now.items()
        if name in reference
    ]
    return sorted(found, key=lambda item: (math.isnan(item.psi), -item.psi, item.column))


def steady(histograms: Histograms) -> Histograms:
    """The columns that one night and the next should have alike."""
    return {name: counts for name, counts in histograms.items() if not name.startswith(CLOCKS)}


@dataclass(frozen=True)
class Look:
    """What is known of a survey's drift.

    night : MJD of the newest night with enough alerts;  model : id:version whose training sample is meant
    tonight : against the nights before;  training, week : tonight, and those nights, against the training
    """

    survey: str
    night: int
    alerts: int
    alerts_before: int
    model: str
    tonight: list[Shift]
    training: list[Shift]
    week: list[Shift]

    def to_json(self) -> dict[str, Any]:
        """As `--json` and the API show it: a row for each column, those that drifted most first."""
        return {
            "survey": self.survey,
            "night": self.night,
            "alerts": self.alerts,
            "alerts_before": self.alerts_before,
            "nights_before": NIGHTS,
            "model": self.model,
            "has_nights": bool(self.tonight),
            "has_training": bool(self.training),
            "columns": rows(self),
        }


def look(found: Tonight, model: str, training: Histograms) -> Look:
    """A survey's night against all there is.  training : empty if the model says nothing of its sample."""
    return Look(
        found.survey,
        found.night,
        found.alerts,
        found.alerts_before,
        model,
        shifts(steady(found.now), found.before),
        shifts(found.now, training),
        shifts(found.before, training),
    )


def rows(one: Look) -> list[dict[str, Any]]:
    """Each column's figures against both references, and what to do; the most drifted first."""
    tonight, training, week = (
        {item.column: item for item in items} for items in (one.tonight, one.training, one.week)
    )
    names = dict.fromkeys([*tonight, *training, *week])
    whole = [_row(name, *(part.get(name, _UNKNOWN) for part in (tonight, training, week))) for name in names]
    return sorted(whole, key=_order)


def _order(row: dict[str, Any]) -> tuple[bool, bool, bool, float]:
    """What drifted first, and of that what is being lost: it may have no index at all."""
    index = max(row["psi"] or 0.0, row["psi_training"] or 0.0)
    return not row["high"], not row["lost"], not row["high_training"], -index


def _row(name: str, tonight: Shift, training: Shift, week: Shift) -> dict[str, Any]:
    here = training if tonight is _UNKNOWN else tonight
    return {
        "column": name,
        "psi": _number(tonight.psi),
        "psi_training": _number(training.psi),
        "psi_training_week": _number(week.psi),
        "nulls": _number(here.nulls),
        "nulls_before": _number(tonight.reference_nulls),
        "nulls_training": _number(training.reference_nulls),
        "high": tonight.high,
        "lost": tonight.lost,
        "high_training": training.high,
        "advice": advice(tonight, training),
    }


def advice(tonight: Shift, training: Shift) -> str:
    """What to do about a column, '' if nothing."""
    if tonight.lost:
        return "missing more often than before: is a band, a packet field or a catalogue lost?"
    if tonight.high:
        return "look at tonight's values: weather and fields, or a change of the survey's processing?"
    if training.high:
        return "the model did not learn on such values: try another by `broker models shadow`, or train anew"
    return ""


def gauges(found: Iterable[Tonight]) -> list[DriftGauge]:
    """Every steady column of every survey's night against the nights before."""
    return [
        DriftGauge(one.survey, item.column, NIGHTS_REFERENCE, item.psi, item.more_nulls)
        for one in found
        for item in shifts(steady(one.now), one.before)
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
