"""The filters that judge alerts at one control epoch, compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.errors import FilterError
from broker.filter import Filter
from broker.filters.compile import CompiledFilter, bind, compile_filter
from broker.filters.functions import Named
from broker.table import ColumnSpec


@dataclass(frozen=True)
class FilterSet:
    """Filters and their compiled forms, in one order, at one epoch.

    addresses : every version of every filter that a message can be sent to, by its mark: paused filters are
                left out (their topic may be what is wrong), removed ones keep their topic
    refused : name of a stored filter that this version of the code cannot compile -> why
    """

    epoch: int
    filters: tuple[Filter, ...] = ()
    compiled: tuple[CompiledFilter, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    addresses: Mapping[bytes, Filter] = field(default_factory=dict)


def compile_set(
    epoch: int,
    filters: Sequence[Filter],
    addresses: Mapping[bytes, Filter],
    specs: Mapping[str, ColumnSpec],
    named: Named | None = None,
) -> FilterSet:
    """Compile what can be compiled; the others are named, and harm nobody.

    named : what filters may name at this epoch
    """
    good: list[tuple[Filter, CompiledFilter]] = []
    refused: list[tuple[str, str]] = []
    for item in filters:
        name = f"{item.owner}.{item.name}"
        try:
            good.append((item, bind(compile_filter(item.where, specs), named or {})))
        except FilterError as error:
            refused.append((name, str(error)))
    return FilterSet(
        epoch,
        tuple(item for item, _ in good),
        tuple(compiled for _, compiled in good),
        tuple(refused),
        addresses,
    )
