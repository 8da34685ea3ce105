"""A question about a filter and the archive, from the command line or over HTTP, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.archive.folder import File
from broker.archive.reader import Archive
from broker.backtest.judge import Backtest, Limits, NamesAt, OnHits, backtest
from broker.backtest.labels import read_labels
from broker.columns import filter_columns
from broker.config import Settings
from broker.control.past import Names, control_records, names_at, names_of
from broker.errors import ArchiveError, FilterError
from broker.features.catalog import FEATURE_SPECS
from broker.filters import store
from broker.filters.compile import compile_filter, names_in
from broker.filters.parse import split_statement
from broker.filters.select import compile_select
from broker.scores.catalog import SCORE_SPECS

LAST = 7
"""Nights that are looked at where none are named."""


@dataclass(frozen=True)
class Asked:
    """What is asked.

    where, name : a condition, or a filter as [owner.]name[@version];  span : first and last night, or none
    last : the newest so many nights, unless a span is given;  labels : path of a CSV file, '' for none
    most : nights that may be asked for at once, 0 for any number
    """

    where: str
    name: str = ""
    span: tuple[str, str] | None = None
    last: int | None = None
    survey: str = ""
    context: str = "then"
    labels: str = ""
    sample: int = 10
    most: int = 0


def ask(
    settings: Settings,
    asked: Asked,
    *,
    connect: Callable[[Settings], Settings] = lambda settings: settings,
    limits: Limits | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
    on_hits: OnHits | None = None,
) -> Backtest:
    """The answer.

    connect : gives settings that name a Kafka; called only if `control` is needed: for the text of a filter
    that is named, or for what a filter names

    Raises FilterError, UnknownFilter, ArchiveError, LabelsError, or BrokerError.
    """
    specs = filter_columns(FEATURE_SPECS, SCORE_SPECS)
    archive = Archive(Path(settings.archive.folder))
    chosen = _chosen(archive, asked)
    labels = read_labels(Path(asked.labels)) if asked.labels else None
    text = asked.where or store.named(store.read(connect(settings)), asked.name).where
    listed, where = split_statement(text)
    if listed.strip():  # not needed to judge, but refused as it will be by `filters add`
        compile_select(listed, specs)
    named: NamesAt = _nothing
    if names_in(compile_filter(where, specs)):
        named = _names_at(connect(settings), asked.context)
    return backtest(
        archive, chosen, where, specs, named,
        context=asked.context, labels=labels, sample=asked.sample, limits=limits,
        on_rows=on_rows, on_hits=on_hits,
    )  # fmt: skip


def _chosen(archive: Archive, asked: Asked) -> list[File]:
    """The files of the nights asked for."""
    nights = archive.nights(asked.survey)
    if asked.span is not None:
        first, last = asked.span
        wanted = [night for night in nights if first <= night <= last]
    else:
        wanted = nights[-(asked.last or LAST) :]
    if not wanted:
        have = f"it has {nights[0]}..{nights[-1]}" if nights else "it is empty"
        raise ArchiveError(f"the archive {archive.folder} has no night that is asked for; {have}")
    if asked.most and len(wanted) > asked.most:
        raise FilterError(f"{len(wanted)} nights are asked for; ask for {asked.most} at a time")
    return archive.of(wanted, asked.survey)


def _nothing(epochs: Collection[int]) -> Mapping[int, Names]:
    return {epoch: Names() for epoch in epochs}


def _names_at(settings: Settings, context: str) -> NamesAt:
    def then(epochs: Collection[int]) -> Mapping[int, Names]:
        return names_at(control_records(settings.kafka), epochs, settings)

    def now(epochs: Collection[int]) -> Mapping[int, Names]:
        return dict.fromkeys(epochs, names_of(Names(), store.read(settings), settings))

    return now if context == "now" else then
