"""Why a filter passed an alert, or did not: the row it was judged on, and each clause on that row."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker.archive.reader import Archive, Chunk, columns_in, find_rows
from broker.assemble import survey_names
from broker.astro.times import night_name, night_of
from broker.backtest.judge import described
from broker.clauses import Clause, explain_filter
from broker.columns import filter_columns
from broker.config import Settings
from broker.control import ControlState
from broker.control.past import Names, control_records, names_at, names_of
from broker.features.catalog import FEATURE_SPECS
from broker.filter import Filter
from broker.filters import store
from broker.filters.compile import compile_filter, names_in
from broker.published import RecordDecoder, UnknownAlert, find_alert
from broker.published_row import WANTED, row_of
from broker.scores.catalog import SCORE_SPECS
from broker.table import Table

EXACT = "archive: exactly what was judged"
ROUNDED = "alerts topic: rounded to float32, so that a value next to a limit may cross it; no light curve"


@dataclass(frozen=True)
class FilterExplained:
    """A filter and an alert.

    about : the alert, for people;  epoch : of the control topic, by which it was judged
    passed_then : labels of the versions of this filter that passed it when it was judged
    clause : the filter's text on the alert's row, with names as they were then;  row : where that is from
    """

    filter: Filter
    about: dict[str, Any]
    night: str
    epoch: int
    passed_then: tuple[str, ...]
    clause: Clause
    row: str

    @property
    def passes(self) -> bool:
        """Whether this version passes the row."""
        return self.clause.outcome == "true"

    def to_json(self) -> dict[str, Any]:
        """As `--json` and the API show it."""
        return {
            "filter": self.filter.label,
            "where": self.filter.where,
            "alert": self.about,
            "night": self.night,
            "controlEpoch": self.epoch,
            "row": self.row,
            "passedThen": list(self.passed_then),
            "passes": self.passes,
            "clause": self.clause.to_json(),
        }


@dataclass(frozen=True)
class _Judged:
    """An alert as it was judged: its row, the labels of the filters that passed it."""

    table: Table
    night: str
    epoch: int
    passed: Sequence[str]
    row: str


def explain_alert(
    settings: Settings,
    name: str,
    alert: int,
    *,
    owner: str | None = None,
    survey: str = "",
    now: bool = False,
    patience_s: float = 60.0,
) -> FilterExplained:
    """Why a filter passed an alert, or did not.

    name : [owner.]name[@version];  now : names stand for what they stand for now, not then
    patience_s : how long to look for an alert that is not in the archive
    Raises UnknownFilter, UnknownAlert, ArchiveError, or BrokerError.
    """
    records = list(control_records(settings.kafka))
    state = store.read(settings)
    item = store.named(state, name, owner)
    specs = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    judged = _archived(settings, alert, survey) or _published(settings, state, alert, survey, patience_s)
    names = Names()
    if names_in(compile_filter(item.where, specs)):
        epochs = [judged.epoch]
        names = names_of(names, state, settings) if now else names_at(records, epochs, settings)[epochs[0]]
    own = tuple(label for label in judged.passed if label.rpartition("@")[0] == item.full_name)
    clause = explain_filter(item.where, judged.table, specs, names.named)
    about = described(judged.table, 0)
    return FilterExplained(item, about, judged.night, judged.epoch, own, clause, judged.row)


def _archived(settings: Settings, alert: int, survey: str) -> _Judged | None:
    """An alert in the archive, looked for from the newest night on; None if it is not there."""
    if not settings.archive.folder:
        return None
    archive = Archive(Path(settings.archive.folder))
    for item in reversed(archive.files):
        if survey in {"", item.survey} and find_rows(item, alert):
            for chunk in archive.chunks([item], set(columns_in(item)), curves=True):
                here = (chunk.rows.table["dia_source_id"].values == alert) & (chunk.rows.kind == "alert")
                if here.any():
                    return _of_chunk(chunk, int(np.flatnonzero(here)[0]))
    return None


def _of_chunk(chunk: Chunk, row: int) -> _Judged:
    rows = chunk.rows
    passed = rows.passed[rows.passed_starts[row] : rows.passed_starts[row + 1]].tolist()
    table = rows.table.take(np.array([row]))
    return _Judged(table, chunk.file.night, int(rows.epoch[row]), passed, EXACT)


def _published(
    settings: Settings, state: ControlState, alert: int, survey: str, patience_s: float
) -> _Judged:
    """An alert in its survey's topic.  Raises UnknownAlert, or BrokerError when it takes too long."""
    decoder = RecordDecoder(state.schemas, WANTED)
    for one in [survey] if survey else survey_names():
        with suppress(UnknownAlert):
            found = find_alert(settings.kafka, one, alert, decoder, patience_s)
            table = row_of(found, filter_columns(FEATURE_SPECS, SCORE_SPECS))
            night = night_name(int(night_of(table["midpoint_mjd_tai"].values)[0]))
            epoch = int(found["provenance"]["controlEpoch"])
            return _Judged(table, night, epoch, found["filtersPassed"], ROUNDED)
    raise UnknownAlert(f"no alert {alert} in the archive or the topics of alerts; is its retention over?")
