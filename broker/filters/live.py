"""The filters that judge alerts at one control epoch, compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import FilterError
from broker.filter import Filter
from broker.filters.compile import CompiledFilter, compile_filter
from broker.table import ColumnSpec


@dataclass(frozen=True)
class FilterSet:
    """Filters and their compiled forms, in one order, at one epoch.

    epochs : the control offset of each filter's version
    refused : name of a stored filter that this version of the code cannot compile -> why
    """

    epoch: int
    filters: tuple[Filter, ...] = ()
    compiled: tuple[CompiledFilter, ...] = ()
    epochs: tuple[int, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def compile_set(
    epoch: int,
    filters: Sequence[Filter],
    filter_epochs: Mapping[tuple[str, int], int],
    specs: Mapping[str, ColumnSpec],
) -> FilterSet:
    """Compile what can be compiled; the others are named, and harm nobody."""
    good: list[tuple[Filter, CompiledFilter]] = []
    refused: list[tuple[str, str]] = []
    for item in filters:
        name = f"{item.owner}.{item.name}"
        try:
            good.append((item, compile_filter(item.where, specs)))
        except FilterError as error:
            refused.append((name, str(error)))
    return FilterSet(
        epoch,
        tuple(item for item, _ in good),
        tuple(compiled for _, compiled in good),
        tuple(filter_epochs[(f"{item.owner}.{item.name}", item.version)] for item, _ in good),
        tuple(refused),
    )
