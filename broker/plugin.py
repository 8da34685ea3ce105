"""Filters that operators write in Python: what such a plug-in is, and which are installed here.

A plug-in is an entry point of the group `broker.filters`; `plugin('name')` in a filter's text calls it. It is
found once a process: a worker that shall know a new one is started anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from broker.errors import PluginError
from broker.filters.values import Strings

GROUP = "broker.filters"

F64 = npt.NDArray[np.float64]


class Plugin(Protocol):
    """A rule on n alerts at once.

    reads : names of the columns that it needs (GET /api/v1/columns lists them)
    Called with these by name, each (n,) and not to be written to: float64 with NaN where NULL; true and false
    as 1 and 0; ids as float64, which is exact up to 2**53; text as an array of str, None where NULL.
    Returns (n,) bool, or float: NaN is NULL, 0 false, anything else true. Row k must depend on row k alone: a
    batch may be cut anyhow. An exception fails the filters that call it on this batch, and nothing else.
    """

    reads: tuple[str, ...]

    def __call__(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Which alerts satisfy it."""


@dataclass(frozen=True)
class Installed:
    """A plug-in of this machine.

    package, version : what it comes from;  rule : None if it cannot be used, for the reason `why`
    """

    name: str
    package: str
    version: str
    rule: Plugin | None = None
    why: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns it needs."""
        return () if self.rule is None else tuple(self.rule.reads)

    def to_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        about = {"name": self.name, "package": self.package, "version": self.version}
        return about | {"reads": list(self.reads), "fault": self.why}


@dataclass(frozen=True)
class BoundPlugin:
    """What `plugin('name')` stands for: see broker.filters.functions.Bound."""

    installed: Installed

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns it needs."""
        return self.installed.reads

    def __call__(self, memo: dict[Any, Any], /, *columns: Any) -> F64:
        """1 where the plug-in's rule holds, 0 where not, NaN where it does not know.  Raises PluginError."""
        key = GROUP, self.installed.name
        if key not in memo:
            memo[key] = self._judge(columns)
        return np.asarray(memo[key], dtype=np.float64)

    def _judge(self, columns: Iterable[Any]) -> F64:
        rule, name = self.installed.rule, self.installed.name
        assert rule is not None
        given = {key: _read_only(column) for key, column in zip(self.reads, columns, strict=True)}
        try:
            found = rule(given)
        except (Exception, SystemExit) as error:
            raise PluginError(f"plug-in {name!r}: {type(error).__name__}: {error}") from error
        return _checked(name, found, {it.shape for it in given.values()})


def _read_only(column: Any) -> npt.NDArray[Any]:
    if isinstance(column, Strings):
        words = np.array([*column.categories, None], dtype=object)
        column = words[column.codes]
    view = column.view()
    view.flags.writeable = False
    return np.asarray(view)


def _checked(name: str, found: Any, shapes: set[tuple[int, ...]]) -> F64:
    """What a plug-in gave as 1, 0 and NaN.  shapes : of its columns, which its answer must have"""
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "bf":
        what = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        raise PluginError(f"plug-in {name!r} returned {what}; it must be a numpy array of bool or float")
    if {found.shape} != shapes:
        wanted = " or ".join(str(shape) for shape in sorted(shapes))
        raise PluginError(f"plug-in {name!r} returned the shape {found.shape} for columns of {wanted}")
    values = found.astype(np.float64)
    return np.where(np.isnan(values), np.nan, values != 0)


@cache
def installed() -> Mapping[str, Installed]:
    """Every plug-in of this machine by name, loaded; one that cannot be used says why."""
    return {name: _loaded(point) for name, point in _points().items()}


def installed_names() -> frozenset[str]:
    """Names of the plug-ins of this machine; none is loaded for this."""
    return frozenset(_points())


@cache
def named_plugins() -> Mapping[str, BoundPlugin]:
    """What filters may name here."""
    return {name: BoundPlugin(item) for name, item in installed().items() if item.rule is not None}


def why_not(name: str) -> str:
    """Why a filter cannot call a plug-in here."""
    item = installed().get(name)
    return "it is not installed here" if item is None else item.why


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda it: it.name)}


def _loaded(point: EntryPoint) -> Installed:
    package = point.dist.name if point.dist else "?"
    version = point.dist.version if point.dist else "?"
    try:
        rule = point.load()
        rule = rule() if isinstance(rule, type) else rule
        _require_protocol(rule)
    except (
        Exception,
        SystemExit,
    ) as error:  # other people's code: it may fail in any way when it is imported
        return Installed(point.name, package, version, why=f"{type(error).__name__}: {error}")
    return Installed(point.name, package, version, rule)


def _require_protocol(rule: Any) -> None:
    reads = getattr(rule, "reads", None)
    if not isinstance(reads, tuple) or not reads or not all(isinstance(name, str) for name in reads):
        raise PluginError("it has no `reads`, a tuple of one or more names of columns")
    if not callable(rule):
        raise PluginError("it cannot be called")
