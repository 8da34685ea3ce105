"""Checks a filter's names and types against the table's columns, and brings it to its normal form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np

from broker.errors import FilterError
from broker.filters import tree, values
from broker.filters.functions import (
    CATALOG,
    FOREST,
    FUNCTION_BY_NAME,
    PLUGIN,
    REGION,
    UNITS,
    WATCHLIST,
    Bound,
    FilterFunction,
    Members,
    Named,
    Parameter,
)
from broker.filters.parse import parse
from broker.filters.tree import Expression, Kind, refusal, shown
from broker.table import ColumnSpec


@dataclass(frozen=True, eq=False)
class CompiledFilter:
    """A filter ready to run.

    normalised : the expression in its normal form, which reads back as itself; filters that differ only
    in layout, order or spelling have the same.  columns : what a table must have to evaluate it.
    bound : what its names stand for, by kind of state and name; a name that is not here is worth NULL
    """

    text: str
    normalised: str
    columns: frozenset[str]
    expression: Expression
    bound: Mapping[tuple[str, str], Bound] = field(default_factory=dict)


def compile_filter(
    text: str, specs: Mapping[str, ColumnSpec], members: Members | None = None
) -> CompiledFilter:
    """Read, check and normalise a filter; raises FilterError with the place of the fault.

    specs : the columns there are, by name. Whether what it names exists is another question: require_names
    asks it, bind answers it.
    members : the columns of all that has some, which must have those that the filter asks for; None if that
    is not known (yet), and every one is then taken for what fits
    """
    compiled, kind = compile_expression(text, parse(text), specs, members)
    if kind not in {"boolean", "null"}:
        raise refusal("a filter must be true or false, this is a value", 0, "compare it with something")
    return compiled


def as_written(
    text: str, specs: Mapping[str, ColumnSpec], members: Members | None = None
) -> tuple[Expression, Expression]:
    """A filter's tree in the words and the order of its text, and the same tree with every name resolved.

    Both have the same shape.  specs, members : as compile_filter has them; raises FilterError
    """
    parsed = parse(text)
    resolved = _resolve(parsed, specs)
    return parsed, _with_members(resolved, members) if members is not None else resolved


def compile_expression(
    text: str, parsed: Expression, specs: Mapping[str, ColumnSpec], members: Members | None = None
) -> tuple[CompiledFilter, Kind]:
    """Check and normalise an expression of any kind, and which kind it is; raises FilterError.

    specs, members : as compile_filter has them
    """
    resolved = _resolve(parsed, specs)
    if members is not None:
        resolved = _with_members(resolved, members)
    with np.errstate(all="ignore"):  # constants are worked out here too: 1/0 is NULL
        kind = _kind(resolved, specs)
        expression = normalise(resolved)
    return CompiledFilter(text, expression.text, _columns(expression), expression), kind


def bind(compiled: CompiledFilter, named: Named) -> CompiledFilter:
    """The filter with its names standing for what they name; those that nothing has stay NULL."""
    found = [(call.state, call.name) for call in names_in(compiled)]
    if not found:
        return compiled
    bound = {(state, name): named[state][name] for state, name in found if name in named.get(state, {})}
    reads = (column for item in bound.values() for column in item.reads)
    return replace(compiled, bound=bound, columns=compiled.columns | frozenset(reads))


def require_names(compiled: CompiledFilter, known: Mapping[str, Collection[str]]) -> None:
    """Raise FilterError unless everything that a filter names is there.  known : names by kind of state.

    A plug-in need not be: it is installed where alerts are judged.
    """
    for call in (it for it in names_in(compiled) if it.state != PLUGIN):
        there = known.get(call.state, ())
        if call.name not in there:
            raise _unknown_name(call.state, tree.String(call.name, position=call.position), there)


def _unknown_name(state: str, named: tree.String, there: Collection[str]) -> FilterError:
    advice = _suggestion(named.value, there) or _NO_SUCH[state]
    return refusal(f"no {state} is named {shown(named.value)}", named.position, advice)


@dataclass(frozen=True)
class NamedState:
    """A place in a filter that names state: its kind, the name, where it begins in the text."""

    state: str
    name: str
    position: int


def names_in(compiled: CompiledFilter) -> list[NamedState]:
    """Everything that a filter names, in reading order."""
    return [
        NamedState(function.state, argument.value, argument.position)
        for node in tree.walk(compiled.expression)
        if isinstance(node, tree.Call) and (function := FUNCTION_BY_NAME[node.name]).state
        if isinstance(argument := node.arguments[0], tree.String)
    ]


_NO_SUCH = {
    FOREST: "`broker feedback add` makes one with an owner's first mark",
    CATALOG: "`broker catalogs list` shows those there are, `broker catalogs add` adds one",
    WATCHLIST: "`broker catalogs add NAME FILE --kind watchlist` makes one",
    REGION: "`broker catalogs add NAME FILE --kind region` makes one",
}
"""What to do where state of a kind is missing."""


_ALERT_TIME = "midpoint_mjd_tai"
"""What functions of light curves read besides."""


def _columns(expression: Expression) -> frozenset[str]:
    names: set[str] = set()
    for node in tree.walk(expression):
        if isinstance(node, tree.Column):
            names.add(node.name)
        elif isinstance(node, tree.Call):
            function = FUNCTION_BY_NAME[node.name]
            names.update(function.reads, (_ALERT_TIME,) if function.light_curve else ())
    return frozenset(names)


# --- names ---------------------------------------------------------------------------------------------


def _suggestion(name: str, known: Iterable[str]) -> str:
    lowered = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[close[0]]!r}?" if close else ""


def _resolve_column(node: tree.Column, specs: Mapping[str, ColumnSpec]) -> Expression:
    """The column meant: the exact name, else the only one that differs in case; else a unit of angle."""
    if node.name in specs:
        return node
    alike = [name for name in specs if name.lower() == node.name.lower()]
    if len(alike) == 1:
        return tree.Column(alike[0], position=node.position)
    if node.name.lower() in UNITS:
        return tree.Number(UNITS[node.name.lower()], position=node.position)
    if node.name.lower() in FUNCTION_BY_NAME:
        function = FUNCTION_BY_NAME[node.name.lower()]
        raise refusal(f"{node.name} is a function", node.position, f"write {function.signature}")
    advice = _suggestion(node.name, [*specs, *UNITS])
    raise refusal(f"unknown column {shown(node.name)}", node.position, advice)


def _resolve_call(node: tree.Call, specs: Mapping[str, ColumnSpec]) -> tree.Call:
    function = FUNCTION_BY_NAME.get(node.name.lower())
    if function is None:
        advice = _suggestion(node.name, FUNCTION_BY_NAME)
        raise refusal(f"unknown function {shown(node.name)}", node.position, advice)
    reads = (*function.reads, _ALERT_TIME) if function.light_curve else function.reads
    missing = [name for name in reads if name not in specs]
    if missing:
        raise refusal(f"{function.name} needs the column {missing[0]!r}, which is not there", node.position)
    most, given = len(function.parameters), len(node.arguments)
    least = sum(not parameter.optional for parameter in function.parameters)
    if given < least or (given > most and not function.repeats):
        raise refusal(f"{function.name} with {given} arguments", node.position, f"write {function.signature}")
    if node.member and not function.members:
        what = f"{function.name} with the column {shown(node.member.name)}"
        raise refusal(what, node.member.position, "only what near(...) found has columns")
    arguments = tuple(_resolve(argument, specs) for argument in node.arguments)
    return tree.Call(function.name, arguments, node.member, position=node.position)


def has_members(compiled: CompiledFilter) -> bool:
    """Whether a filter names something that has columns."""
    calls = (node for node in tree.walk(compiled.expression) if isinstance(node, tree.Call))
    return any(FUNCTION_BY_NAME[call.name].members for call in calls)


def _with_members(node: Expression, members: Members) -> Expression:
    """The tree with the kind of every column that is asked of what a call names.  Raises FilterError."""
    node = _rebuilt(node, tuple(_with_members(child, members) for child in tree.children(node)))
    if not isinstance(node, tree.Call) or not FUNCTION_BY_NAME[node.name].members:
        return node
    state, named = FUNCTION_BY_NAME[node.name].state, node.arguments[0]
    if not isinstance(named, tree.String):
        return node
    there = members.get(state, {})
    if named.value not in there:
        raise _unknown_name(state, named, there)
    member = node.member and _member(node.member, f"{state} {shown(named.value)}", there[named.value])
    return tree.Call(node.name, node.arguments, member, position=node.position)


def _member(member: tree.Member, what: str, columns: Mapping[str, ColumnSpec]) -> tree.Member:
    """The column meant: the exact name, else the only one that differs in case."""
    alike = [name for name in columns if name.lower() == member.name.lower()]
    name = member.name if member.name in columns else alike[0] if len(alike) == 1 else ""
    if not name:
        advice = _suggestion(member.name, columns) or "`broker catalogs list` shows its columns"
        raise refusal(f"{what} has no column {shown(member.name)}", member.position, advice)
    return tree.Member(name, _KIND_OF_COLUMN[columns[name].kind], position=member.position)


def _resolve(node: Expression, specs: Mapping[str, ColumnSpec]) -> Expression:
    """The tree with every name replaced by what it means."""
    match node:
        case tree.Column():
            return _resolve_column(node, specs)
        case tree.Call():
            return _resolve_call(node, specs)
        case _:
            return _rebuilt(node, tuple(_resolve(child, specs) for child in tree.children(node)))


def _rebuilt(node: Expression, parts: tuple[Expression, ...]) -> Expression:
    """The same node on other children, given as tree.children gives them."""
    position = node.position
    match node:
        case tree.Negative() | tree.Not():
            return type(node)(parts[0], position=position)
        case tree.Is(_, value):
            return tree.Is(parts[0], value, position=position)
        case tree.Binary(operator, _, _):
            return tree.Binary(operator, *parts, position=position)
        case tree.Compare(operator, _, _):
            return tree.Compare(operator, *parts, position=position)
        case tree.And() | tree.Or():
            return type(node)(parts, position=position)
        case tree.Call(name, _, member):
            return tree.Call(name, parts, member, position=position)
        case tree.Between():
            return tree.Between(*parts, position=position)
        case tree.In():
            return tree.In(parts[0], parts[1:], position=position)
        case tree.Case():
            branches = tuple(zip(parts[:-1:2], parts[1:-1:2], strict=True))
            return tree.Case(branches, parts[-1], position=position)
        case _:
            return node


# --- types ---------------------------------------------------------------------------------------------

_KIND_OF_COLUMN: dict[str, Kind] = {"float": "number", "int": "number", "bool": "boolean", "string": "string"}


def _kind(node: Expression, specs: Mapping[str, ColumnSpec]) -> Kind:
    """What an expression is; raises FilterError where its parts do not fit together."""
    match node:
        case tree.Column(name):
            return _KIND_OF_COLUMN[specs[name].kind]
        case tree.Number():
            return "number"
        case tree.String():
            return "string"
        case tree.Boolean():
            return "boolean"
        case tree.Null():
            return "null"
        case tree.Negative() | tree.Binary():
            return _require("number", tree.children(node), specs)
        case tree.And() | tree.Or() | tree.Not():
            return _require("boolean", tree.children(node), specs)
        case tree.Compare(operator, _, _):
            kind = _common(tree.children(node), specs)
            if kind == "boolean" and operator not in {"=", "<>"}:
                raise refusal(f"true and false compared with {operator}", node.position, "write = or <>")
            return "boolean"
        case tree.Between():
            if _common(tree.children(node), specs) == "boolean":
                raise refusal("BETWEEN of true and false", node.position, "it takes numbers or strings")
            return "boolean"
        case tree.In():
            _common(tree.children(node), specs)
            return "boolean"
        case tree.Is(operand, value):
            _kind(operand, specs) if value is None else _require("boolean", (operand,), specs)
            return "boolean"
        case tree.Case(branches, otherwise):
            _require("boolean", [condition for condition, _ in branches], specs)
            return _common([*(result for _, result in branches), otherwise], specs)
        case tree.Call(name, arguments, member):
            kind = _kind_of_call(FUNCTION_BY_NAME[name], arguments, specs)
            return member.kind if member else kind


def _kind_of_call(
    function: FilterFunction, arguments: tuple[Expression, ...], specs: Mapping[str, ColumnSpec]
) -> Kind:
    if function.result == "any":
        return _common(arguments, specs)
    for index, argument in enumerate(arguments):
        parameter = function.parameters[min(index, len(function.parameters) - 1)]
        if parameter.kind == "name":
            _require_name(function, argument)
            continue
        if parameter.kind == "choice":
            _require_choice(function, parameter, argument)
            continue
        _require("number", (argument,), specs)
        _require_within(function, parameter, argument)
    return function.result


def _require_within(function: FilterFunction, parameter: Parameter, argument: Expression) -> None:
    """Refuse a constant outside a parameter's limits."""
    if not _is_constant(argument):  # what is none is not normalised: calls in calls would repeat it
        return
    constant = normalise(argument)
    if isinstance(constant, tree.Number) and not parameter.lowest <= constant.value <= parameter.highest:
        what = f"{function.name} with {parameter.name} = {constant.text}"
        limits = f"{parameter.name} must be in {parameter.lowest:g}..{parameter.highest:g}"
        raise refusal(what, argument.position, limits)


def _is_constant(node: Expression) -> bool:
    """Whether normalise makes a number of it: arithmetic on numbers alone."""
    match node:
        case tree.Negative() | tree.Binary():
            return all(_is_constant(child) for child in tree.children(node))
        case _:
            return isinstance(node, tree.Number)


def _require_name(function: FilterFunction, argument: Expression) -> None:
    if not isinstance(argument, tree.String):
        advice = f"write {function.example}"
        raise refusal(f"{function.name} takes a name in single quotes", argument.position, advice)


def _require_choice(function: FilterFunction, parameter: Parameter, argument: Expression) -> None:
    if not isinstance(argument, tree.String) or argument.value not in parameter.choices:
        what = f"{function.name} with {parameter.name} = {shown(argument.text)}"
        choices = " or ".join(f"'{choice}'" for choice in parameter.choices)
        raise refusal(what, argument.position, f"it takes {choices}, as in {function.example}")


def _require(kind: Kind, parts: Iterable[Expression], specs: Mapping[str, ColumnSpec]) -> Kind:
    """The kind, after checking that all parts have it or are NULL."""
    for part in parts:
        found = _kind(part, specs)
        if found not in {kind, "null"}:
            raise refusal(f"expected a {kind}, found a {found}: {shown(part.text)}", part.position)
    return kind


def _common(parts: Iterable[Expression], specs: Mapping[str, ColumnSpec]) -> Kind:
    """The one kind that all parts have, NULL apart."""
    common: Kind = "null"
    for part in parts:
        found = _kind(part, specs)
        if "null" not in (found, common) and found != common:
            advice = _advice_on_kinds(part, {found, common})
            raise refusal(f"{found} {shown(part.text)} does not fit a {common}", part.position, advice)
        common = found if common == "null" else common
    return common


def _advice_on_kinds(part: Expression, kinds: set[Kind]) -> str:
    if "string" in kinds:
        return "strings are in single quotes, numbers and columns are not"
    return "a true/false column stands alone, as in `is_dipole` or `not is_dipole`"


# --- normal form ---------------------------------------------------------------------------------------


def normalise(node: Expression) -> Expression:
    """The same condition in one spelling: NOT pushed down, chains flat and sorted, constants worked out.

    Every rewriting holds in three-valued logic, and none repeats a part (that could grow without end).
    """
    node = _rebuilt(node, tuple(normalise(child) for child in tree.children(node)))
    match node:
        case tree.Negative(tree.Number(value)):
            return _number(values.negative(values.number(value)), node.position)
        case tree.Negative(tree.Negative(operand)):
            return operand
        case tree.Binary(operator, tree.Number(left), tree.Number(right)):
            return _number(
                values.arithmetic(operator, values.number(left), values.number(right)), node.position
            )
        case tree.Number(value):
            return _number(values.number(value), node.position)
        case tree.Compare():
            return _ordered(node)
        case tree.Not(operand):
            return _negated(operand, node)
        case tree.And() | tree.Or():
            return _flat(node)
        case tree.In(operand, items):
            return _sorted_items(operand, items, node.position)
        case _:
            return node


def _number(value: values.Floats | values.Integers, position: int) -> tree.Number | tree.Null:
    """A constant as a node; whole numbers that float64 holds exactly as integers."""
    if not values.known(value):
        return tree.Null(position=position)
    if isinstance(value, values.Integers):
        return tree.Number(int(value.values), position=position)
    number = float(value.values)
    whole = number.is_integer() and abs(number) <= 2**53
    return tree.Number(int(number) if whole else number, position=position)


def _ordered(node: tree.Compare) -> tree.Compare:
    """`19 > mag` as `mag < 19`: a constant goes right, else the text that sorts first goes left."""
    mirrored: dict[tree.Comparison, tree.Comparison] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
    keys = [
        (not tree.children(n) and not isinstance(n, tree.Column), n.text) for n in (node.left, node.right)
    ]
    if keys[0] <= keys[1]:
        return node
    operator = mirrored.get(node.operator, node.operator)
    return tree.Compare(operator, node.right, node.left, position=node.position)


def _negated(operand: Expression, node: tree.Not) -> Expression:
    """NOT of a normal form: into comparisons, AND and OR; else it stays."""
    match operand:
        case tree.Not(inner):
            return inner
        case tree.Boolean(value):
            return tree.Boolean(not value, position=node.position)
        case tree.Null():
            return operand
        case tree.Compare(operator, left, right):
            return tree.Compare(tree.COMPLEMENT[operator], left, right, position=node.position)
        case tree.And(operands) | tree.Or(operands):
            other = tree.Or if isinstance(operand, tree.And) else tree.And
            parts = tuple(_negated(part, tree.Not(part, position=part.position)) for part in operands)
            return _flat(other(parts, position=node.position))
        case _:
            return node


def _flat(node: tree.And | tree.Or) -> Expression:
    """A chain without nesting or repetition, its operands sorted by their text."""
    parts: list[Expression] = []
    for operand in node.operands:
        parts.extend(operand.operands if isinstance(operand, type(node)) else (operand,))
    operands = tuple(part for _, part in sorted({part.text: part for part in parts}.items()))
    return operands[0] if len(operands) == 1 else type(node)(operands, position=node.position)


def _sorted_items(operand: Expression, items: tuple[Expression, ...], position: int) -> Expression:
    ordered = tuple(item for _, item in sorted({item.text: item for item in items}.items()))
    if len(ordered) == 1:
        return _ordered(tree.Compare("=", operand, ordered[0], position=position))
    return tree.In(operand, ordered, position=position)
