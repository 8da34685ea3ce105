"""A filter on the archive: what it would have let through, night by night, as things were known then.

The rows are those the live filters judged, and nothing of them is computed anew. What a filter names
(forests, lists, catalogues) stands for what it stood for at each row's control epoch; a name that nothing
had then is NULL, as it was for the live filters, and the answer says of how many rows that is true.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.archive.folder import File
from broker.archive.parquet import Kept
from broker.archive.reader import Archive, Chunk, epochs_in, light_curves
from broker.astro.bands import BANDS
from broker.backtest.labels import Labels
from broker.control.past import Names
from broker.filter import Filter
from broker.filters import tree
from broker.filters.compile import CompiledFilter, compile_filter, names_in
from broker.filters.evaluate import warm_up
from broker.filters.functions import FUNCTION_BY_NAME
from broker.filters.live import FilterSet, compile_set
from broker.lightcurves import KINDS, LightCurves
from broker.table import ColumnSpec, Table

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
OnHits = Callable[[str, I64, I64], None]
"""Is told of hits: their survey, diaSourceIds and control epochs."""
NamesAt = Callable[[Collection[int]], Mapping[int, Names]]
"""What filters could name at some control epochs."""

SEED = 7
"""Of the choice of samples: the same question shows the same alerts."""
_SHOWN = (
    "survey",
    "dia_source_id",
    "dia_object_id",
    "object_name",
    "band",
    "midpoint_mjd_tai",
    "ra",
    "dec",
    "mag",
)
_Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Limits:
    """Where a backtest is cut off: rows, and seconds of wall time."""

    rows: float = math.inf
    seconds: float = math.inf


@dataclass
class Night:
    """One night: alerts judged, those that passed, and how many objects these are."""

    judged: int = 0
    hits: int = 0
    objects: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Overlap:
    """Another filter, as it was live: alerts that it passed, and those of them that this one passes too."""

    hits: int = 0
    both: int = 0


@dataclass(frozen=True)
class Hit:
    """An alert that passed, of the sample shown.  curve : its light curve, as it was judged"""

    night: str
    about: Mapping[str, Any]
    curve: LightCurves

    def to_json(self) -> dict[str, Any]:
        """As `--json` and the API show it."""
        return {"night": self.night, **self.about, "lightCurve": points_json(self.curve)}


@dataclass
class Backtest:
    """What came of it.

    nights : by name, those without a hit too;  objects : distinct, over all nights
    overlap : by owner.name;  seconds : of evaluating alone
    not_known : rows judged while what the filter names did not exist, by 'kind name'
    not_judged : rows that could not be judged, by reason;  cut : why it ended early, '' if it did not
    seen, passed : distinct labelled objects by class;  unlabelled : objects that passed without a label
    lost : offsets of the topic that expired before the archive was written, of any night
    """

    where: str
    context: str
    nights: dict[str, Night] = field(default_factory=lambda: defaultdict(Night))
    overlap: dict[str, Overlap] = field(default_factory=lambda: defaultdict(Overlap))
    seconds: float = 0.0
    not_known: Counter[str] = field(default_factory=Counter)
    not_judged: Counter[str] = field(default_factory=Counter)
    cut: str = ""
    sample: list[Hit] = field(default_factory=list)
    seen: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    passed: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    unlabelled: set[tuple[str, str]] = field(default_factory=set)
    labelled: bool = False
    lost: int = 0

    @property
    def rows(self) -> int:
        """Alerts judged."""
        return sum(night.judged for night in self.nights.values())

    @property
    def hits(self) -> int:
        """Alerts that passed."""
        return sum(night.hits for night in self.nights.values())

    @property
    def objects(self) -> int:
        """Distinct objects that passed."""
        return len(set().union(*(night.objects for night in self.nights.values())))

    @property
    def us_an_alert(self) -> float:
        """Microseconds of evaluating the filter, an alert; NaN without a row."""
        return self.seconds / self.rows * 1e6 if self.rows else math.nan

    def to_json(self) -> dict[str, Any]:
        """As `--json` and the API show it."""
        return {
            "where": self.where,
            "context": self.context,
            "alerts": self.rows,
            "hits": self.hits,
            "objects": self.objects,
            "hitsANight": self.hits / len(self.nights) if self.nights else None,
            "nights": [
                {"night": name, "alerts": night.judged, "hits": night.hits, "objects": len(night.objects)}
                for name, night in sorted(self.nights.items())
            ],
            "overlap": [
                {"filter": name, "hits": other.hits, "both": other.both}
                for name, other in sorted(self.overlap.items())
            ],
            "microsecondsAnAlert": None if math.isnan(self.us_an_alert) else self.us_an_alert,
            "notKnownThen": dict(self.not_known),
            "notJudged": dict(self.not_judged),
            "cut": self.cut,
            "lost": self.lost,
            "purity": self._purity() if self.labelled else None,
            "sample": [hit.to_json() for hit in self.sample],
        }

    def _purity(self) -> dict[str, Any]:
        total = sum(map(len, self.passed.values()))
        classes = []
        for name, seen in sorted(self.seen.items(), key=lambda item: -len(self.passed[item[0]])):
            count = len(self.passed[name])
            low, high = wilson(count, total)
            classes.append(
                {"class": name, "passed": count, "seen": len(seen), "share": count / total if total else None,
                 "low": low, "high": high}
            )  # fmt: skip
        return {"labelledObjects": total, "unlabelledObjects": len(self.unlabelled), "classes": classes}


def wilson(count: int, total: int) -> tuple[float | None, float | None]:
    """95 % interval of a share.  Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209.

    >>> [round(edge, 3) for edge in wilson(9, 10)]
    [0.596, 0.982]
    """
    if total == 0:
        return None, None
    share, square = count / total, _Z * _Z / total
    centre, half = share + square / 2, _Z * math.sqrt((share * (1 - share) + square / 4) / total)
    return max(0.0, (centre - half) / (1 + square)), min(1.0, (centre + half) / (1 + square))


def backtest(
    archive: Archive,
    chosen: Sequence[File],
    where: str,
    specs: Mapping[str, ColumnSpec],
    names_at: NamesAt,
    *,
    context: str = "then",
    labels: Labels | None = None,
    sample: int = 10,
    limits: Limits | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
    on_hits: OnHits | None = None,
) -> Backtest:
    """Judge the archived alerts of some files by a filter's text.

    specs : the columns there are;  names_at : what names stood for (or stand for, as context says)
    sample : hits to show, chosen at random;  on_rows : told how many rows were judged, each time

    Raises FilterError, ArchiveError, or BrokerError.
    """
    compiled = compile_filter(where, specs)
    bounds = limits or Limits()
    warm_up()
    judge = _Judge(compiled, where, specs, names_at)
    lost = sum(end - start for _, start, end in archive.manifest.lost)
    result = Backtest(where, context, labelled=labels is not None, lost=lost)
    chooser = _Chooser(sample)
    deadline = time.monotonic() + bounds.seconds
    more, files = judge.prepare(chosen, deadline)
    columns = {*compiled.columns, *_SHOWN, "midpoint_mjd_tai", *more}
    for chunk in archive.chunks(files, columns, curves=_needs_curves(compiled)):
        alerts = np.flatnonzero(chunk.rows.kind == "alert")
        hits = judge.hits(chunk, result)
        _count(result, chunk, alerts, hits, labels)
        chooser.offer(chunk, np.flatnonzero(hits))
        if on_hits is not None:
            ids = chunk.rows.table["dia_source_id"].values
            on_hits(chunk.file.survey, ids[hits], chunk.rows.epoch[hits])
        on_rows(len(alerts))
        if result.rows >= bounds.rows or time.monotonic() > deadline:
            what = f"{bounds.rows:,.0f} alerts" if result.rows >= bounds.rows else f"{bounds.seconds:g} s"
            result.cut = f"stopped after {what}, in night {chunk.file.night}; ask for fewer nights"
            break
    result.sample = chooser.hits()
    return result


def _needs_curves(compiled: CompiledFilter) -> bool:
    return any(
        isinstance(node, tree.Call) and FUNCTION_BY_NAME[node.name].light_curve
        for node in tree.walk(compiled.expression)
    )


class _Judge:
    """One filter, bound to what it named at each epoch."""

    def __init__(
        self, compiled: CompiledFilter, where: str, specs: Mapping[str, ColumnSpec], names_at: NamesAt
    ) -> None:
        self._item = Filter("local", "backtest", 1, where)
        self._named = sorted({(item.state, item.name) for item in names_in(compiled)})
        self._specs, self._names_at = specs, names_at
        self._names: Mapping[int, Names] = {}
        self._set = FilterSet(-1)
        self._of_epoch: dict[int, FilterSet] = {}

    def prepare(self, chosen: Sequence[File], deadline: float) -> tuple[set[str], Sequence[File]]:
        """Find what the filter names at the epochs of the files.

        Returns the columns that this reads, and the files that could be looked at before the deadline.
        """
        if not self._named:
            return set(), chosen
        epochs: set[int] = set()
        looked_at: list[File] = []
        for item in chosen:
            epochs |= epochs_in(item)
            looked_at.append(item)
            if time.monotonic() > deadline:
                break
        self._names = self._names_at(epochs)
        columns = {
            column
            for names in self._names.values()
            for kind, name in self._named
            if (bound := names.named.get(kind, {}).get(name)) is not None
            for column in bound.reads
        }
        return columns, looked_at

    def hits(self, chunk: Chunk, result: Backtest) -> Mask:
        """Which rows pass; only alerts do.  Tells the result what could not be judged, and the time."""
        rows, hits = chunk.rows, np.zeros(len(chunk.rows.kind), dtype=np.bool_)
        alerts = rows.kind == "alert"
        for epoch in np.unique(rows.epoch[alerts]).tolist() if self._named else [-1]:
            own = alerts & (rows.epoch == epoch) if self._named else alerts
            index = np.flatnonzero(own)
            bound = self._bound(epoch)
            table = rows.table if own.all() else rows.table.take(index)
            start = time.perf_counter()
            found = bound.program.evaluate(table)
            result.seconds += time.perf_counter() - start
            why = dict(bound.refused).get("local.backtest") or found.failures.get(0)
            if why:
                result.not_judged[why] += len(index)
            else:
                hits[index] = found.masks[0]
                self._tell_unknown(epoch, len(index), result)
        return hits

    def _bound(self, epoch: int) -> FilterSet:
        if epoch not in self._of_epoch:
            names = self._names[epoch] if self._named else Names()
            known = all(name in names.named.get(kind, {}) for kind, name in self._named)
            members = names.members if known else None  # else it would be refused, and not NULL
            self._set = compile_set(epoch, [self._item], {}, self._specs, names.named, self._set, members)
            self._of_epoch[epoch] = self._set
        return self._of_epoch[epoch]

    def _tell_unknown(self, epoch: int, count: int, result: Backtest) -> None:
        for kind, name in self._named:
            if name not in self._names[epoch].named.get(kind, {}):
                result.not_known[f"{kind} {name}"] += count


def _count(result: Backtest, chunk: Chunk, alerts: I64, hits: Mask, labels: Labels | None) -> None:
    """Add some rows to what came of the whole."""
    night = result.nights[chunk.file.night]
    night.judged += len(alerts)
    night.hits += int(hits.sum())
    keys = object_keys(chunk.rows.table)
    night.objects.update(keys[row] for row in np.flatnonzero(hits).tolist())
    _count_overlap(result, chunk.rows, hits)
    if labels is not None:
        found = labels.of(chunk.rows.table)
        for row in alerts.tolist():
            if found[row]:
                result.seen[found[row]].add(keys[row])
            if hits[row] and found[row]:
                result.passed[found[row]].add(keys[row])
            elif hits[row]:
                result.unlabelled.add(keys[row])


def _count_overlap(result: Backtest, rows: Kept, hits: Mask) -> None:
    row = np.repeat(np.arange(len(rows.kind)), np.diff(rows.passed_starts))
    counted = rows.kind[row] == "alert"
    labels, inverse = np.unique(rows.passed[counted], return_inverse=True)
    both = np.bincount(inverse, hits[row[counted]], len(labels)) if len(labels) else np.zeros(0)
    for label, count, common in zip(
        labels.tolist(), np.bincount(inverse).tolist(), both.tolist(), strict=True
    ):
        other = result.overlap[label.rpartition("@")[0]]
        other.hits += count
        other.both += int(common)


def object_keys(table: Table) -> list[tuple[str, str]]:
    """Each row's object: survey and id, or the alert alone where it has none."""
    survey = table["survey"].categories[0]
    ids = zip(table["dia_object_id"].values.tolist(), table["dia_source_id"].values.tolist(), strict=True)
    return [(survey, str(own) if own else f"alert {alert}") for own, alert in ids]


class _Chooser:
    """A random sample of the hits, of which any number may come."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._random = np.random.default_rng(SEED)
        self._kept: list[tuple[float, int, File, int, dict[str, Any]]] = []
        self._count = 0

    def offer(self, chunk: Chunk, rows: I64) -> None:
        """Some hits.  Those with the smallest random numbers are kept."""
        for row, number in zip(rows.tolist(), self._random.random(len(rows)).tolist(), strict=True):
            self._count += 1
            if len(self._kept) < self._size or (self._kept and number < self._kept[-1][0]):
                about = described(chunk.rows.table, row)
                self._kept.append((number, self._count, chunk.file, chunk.first + row, about))
                self._kept = sorted(self._kept, key=lambda item: item[:2])[: self._size]

    def hits(self) -> list[Hit]:
        """The sample, with light curves, oldest night first."""
        by_file: dict[File, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        for _, _, file, row, about in self._kept:
            by_file[file].append((row, about))
        found = [
            hit for file, rows in by_file.items() for hit in _with_curves(file, sorted(rows, key=_first))
        ]
        return sorted(found, key=lambda hit: (hit.night, hit.about["midpointMjdTai"]))


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _with_curves(file: File, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[Hit]:
    curves = light_curves(file, [row for row, _ in rows])
    for place, (_, about) in enumerate(rows):
        yield Hit(file.night, about, curves.take(np.array([place])))


def described(table: Table, row: int) -> dict[str, Any]:
    """What an alert is, for people: ids as text, what is missing as None."""
    found: dict[str, Any] = {}
    for name in _SHOWN:
        words = name.split("_")
        key = words[0] + "".join(word.capitalize() for word in words[1:])
        found[key] = value_of(table, name, row)
    return found


def value_of(table: Table, name: str, row: int) -> str | float | bool | None:
    """A cell for people: an id as text, what is missing as None."""
    column = table[name]
    value = column.values[row]
    if column.spec.kind == "string":
        return column.categories[value] if value >= 0 else None
    if column.spec.kind == "int":
        return str(int(value)) if value else None
    if not math.isfinite(value):
        return None
    return bool(value) if column.spec.kind == "bool" else float(value)


def points_json(curve: LightCurves) -> list[dict[str, Any]]:
    """The points of one light curve, as published ones look."""
    return [
        {
            "midpointMjdTai": float(point["midpoint_mjd_tai"]),
            "band": BANDS[point["band"]] if point["band"] < len(BANDS) else None,
            "kind": KINDS[point["kind"]],
            "psfFlux": _finite(point["psf_flux"]),
            "psfFluxErr": _finite(point["psf_flux_err"]),
            "flags": int(point["flags"]),
        }
        for point in curve.points
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
