"""The filters that judge alerts at one control epoch, compiled."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker.errors import FilterError
from broker.filter import Filter
from broker.filters.compile import CompiledFilter, bind, compile_filter, has_members, names_in
from broker.filters.evaluate import Program, compile_program
from broker.filters.functions import PLUGIN, Members, Named
from broker.filters.select import CompiledSelect, bind_select, compile_select
from broker.filters.tree import refusal, shown
from broker.plugin import why_not
from broker.table import ColumnSpec


@dataclass(frozen=True)
class FilterSet:
    """Filters and their compiled forms, in one order, at one epoch.

    selects : what each selects, None where it has no list
    program : all of them as one computation;  parsed : each text's compiled form before names were bound
    listed : the same of each select list
    addresses : every version of every filter that a message can be sent to, by its mark: paused filters are
                left out (their topic may be what is wrong), removed ones keep their topic
    refused : name of a stored filter that this version of the code cannot compile -> why
    members : the columns of what filters may name, as they were when these were compiled
    """

    epoch: int
    filters: tuple[Filter, ...] = ()
    compiled: tuple[CompiledFilter, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    addresses: Mapping[bytes, Filter] = field(default_factory=dict)
    program: Program = field(default_factory=Program)
    parsed: Mapping[str, CompiledFilter] = field(default_factory=dict)
    members: Members | None = None
    selects: tuple[CompiledSelect | None, ...] = ()
    listed: Mapping[str, CompiledSelect] = field(default_factory=dict)


def compile_set(
    epoch: int,
    filters: Sequence[Filter],
    addresses: Mapping[bytes, Filter],
    specs: Mapping[str, ColumnSpec],
    named: Named | None = None,
    before: FilterSet | None = None,
    members: Members | None = None,
) -> FilterSet:
    """Compile what can be compiled; the others are named, and harm nobody.

    named : what filters may name at this epoch
    before : a set compiled for the same columns, of which everything that stayed is taken over
    members : the columns of what filters may name at this epoch; a filter that names what is gone is refused
    """
    before = before or FilterSet(-1)
    same_members = before.members == members
    held = {item.where: form for item, form in zip(before.filters, before.compiled, strict=True)}
    good: list[tuple[Filter, CompiledFilter, CompiledSelect | None]] = []
    parsed: dict[str, CompiledFilter] = {}
    listed: dict[str, CompiledSelect] = {}
    refused: list[tuple[str, str]] = []
    for item in filters:
        try:
            compiled = before.parsed.get(item.where)
            if compiled is None or (has_members(compiled) and not same_members):
                compiled = compile_filter(item.where, specs, members)
            select = before.listed.get(item.select)
            if item.select and (select is None or (any(map(has_members, select.items)) and not same_members)):
                select = compile_select(item.select, specs, members)
            bound = _kept(bind(compiled, named or {}), held.get(item.where))
            lists = bind_select(select, named or {}) if select is not None else None
            for form in (bound, *(lists.items if lists else ())):
                _require_plugins(form, specs)
        except FilterError as error:
            refused.append((item.full_name, str(error)))
            continue
        parsed[item.where] = compiled
        if select is not None:
            listed[item.select] = select
        good.append((item, bound, lists))
    forms = tuple(bound for _, bound, _ in good)
    same = len(forms) == len(before.compiled) and all(map(operator.is_, forms, before.compiled))
    return FilterSet(
        epoch,
        tuple(item for item, _, _ in good),
        forms,
        tuple(refused),
        addresses,
        before.program if same else compile_program(forms, specs),
        parsed,
        members,
        tuple(select for _, _, select in good),
        listed,
    )


def _kept(form: CompiledFilter, before: CompiledFilter | None) -> CompiledFilter:
    """The form before where it is the same: a program of the same forms need not be made again."""
    if before is None or before.expression is not form.expression or before.bound.keys() != form.bound.keys():
        return form
    return before if all(before.bound[name] is it for name, it in form.bound.items()) else form


def _require_plugins(bound: CompiledFilter, specs: Mapping[str, ColumnSpec]) -> None:
    """Raise FilterError for a plug-in that cannot be called here."""
    for call in names_in(bound):
        if call.state == PLUGIN:
            found = bound.bound.get((PLUGIN, call.name))
            if found is None:
                raise refusal(f"no plug-in {shown(call.name)}", call.position, why_not(call.name))
            unknown = sorted(set(found.reads) - specs.keys())
            if unknown:
                fault = f"plug-in {shown(call.name)} reads {shown(unknown[0])}, which is no column"
                raise refusal(fault, call.position)
