"""Why a filter passed an alert, or did not: the row it was judged on, and each clause on that row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker.archive.reader import Archive, Chunk, columns_in, find_rows
from broker.backtest import described
from broker.clauses import Clause, explain_filter
from broker.columns import filter_columns
from broker.config import Settings
from broker.control_past import Names, control_records, names_at, names_of
from broker.errors import ArchiveError
from broker.features.catalog import FEATURE_SPECS
from broker.filter import Filter
from broker.filters import store
from broker.filters.compile import compile_filter, names_in
from broker.published import UnknownAlert
from broker.scores.catalog import SCORE_SPECS


@dataclass(frozen=True)
class FilterExplained:
    """A filter and an alert.

    about : the alert, for people;  epoch : of the control topic, by which it was judged
    passed_then : labels of the versions of this filter that passed it when it was judged
    clause : the filter's text on the alert's row, with names as they were then
    """

    filter: Filter
    about: dict[str, Any]
    night: str
    epoch: int
    passed_then: tuple[str, ...]
    clause: Clause

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
            "row": "archive: exactly what was judged",
            "passedThen": list(self.passed_then),
            "passes": self.passes,
            "clause": self.clause.to_json(),
        }


def explain_alert(
    settings: Settings,
    name: str,
    alert: int,
    *,
    owner: str | None = None,
    survey: str = "",
    now: bool = False,
) -> FilterExplained:
    """Why a filter passed an archived alert, or did not.

    name : [owner.]name[@version];  now : names stand for what they stand for now, not then
    Raises UnknownFilter, UnknownAlert, ArchiveError, or BrokerError.
    """
    if not settings.archive.folder:
        raise ArchiveError("no archive is set, and only it has the rows that were judged; set archive.folder")
    records = list(control_records(settings.kafka))
    state = store.read(settings)
    item = store.named(state, name, owner)
    chunk = _found(Archive(Path(settings.archive.folder)), alert, survey)
    row = int(np.flatnonzero(chunk.rows.table["dia_source_id"].values == alert)[0])
    epoch, table = int(chunk.rows.epoch[row]), chunk.rows.table.take(np.array([row]))
    specs = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    names = Names()
    if names_in(compile_filter(item.where, specs)):
        names = names_of(Names(), state, settings) if now else names_at(records, [epoch], settings)[epoch]
    passed = chunk.rows.passed[chunk.rows.passed_starts[row] : chunk.rows.passed_starts[row + 1]]
    own = tuple(str(label) for label in passed.tolist() if label.rpartition("@")[0] == item.full_name)
    clause = explain_filter(item.where, table, specs, names.named)
    return FilterExplained(item, described(table, 0), chunk.file.night, epoch, own, clause)


def _found(archive: Archive, alert: int, survey: str) -> Chunk:
    """The piece of the archive that has an alert, with all columns; looked for from the newest night on."""
    for item in reversed(archive.files):
        if survey in {"", item.survey} and find_rows(item, alert):
            for chunk in archive.chunks([item], set(columns_in(item)), curves=True):
                here = (chunk.rows.table["dia_source_id"].values == alert) & (chunk.rows.kind == "alert")
                if here.any():
                    return chunk
    raise UnknownAlert(
        f"no alert {alert} in the archive {archive.folder}; the last minutes' rows may not be in files yet"
    )
