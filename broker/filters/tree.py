"""The syntax tree of a filter: plain frozen nodes, and the one way to write them back as text.

Only what is listed here can be evaluated; nothing of the SQL parser's own tree goes past parse.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from broker.errors import FilterError

Comparison = Literal["=", "<>", "<", "<=", ">", ">="]
Arithmetic = Literal["+", "-", "*", "/", "%"]
Kind = Literal["number", "string", "boolean", "null"]

COMPLEMENT: dict[Comparison, Comparison] = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
"""`not (a < b)` is `a >= b`, also where one of them is NULL: both are then NULL."""


@dataclass(frozen=True)
class Node:
    """Any part of an expression.

    position : 0-based index in the filter's text of where the part begins; no part of its identity.
    """

    position: int = field(default=0, compare=False, kw_only=True)

    @cached_property
    def text(self) -> str:
        """The node written out; two nodes with the same text are the same computation."""
        return _WRITERS[type(self)](self)


@dataclass(frozen=True)
class Column(Node):
    """A column of the table, by name."""

    name: str


@dataclass(frozen=True)
class Number(Node):
    """A number; an int fits 64 bits and stays exact."""

    value: int | float


@dataclass(frozen=True)
class String(Node):
    """A string."""

    value: str


@dataclass(frozen=True)
class Boolean(Node):
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True)
class Null(Node):
    """NULL: not known."""


@dataclass(frozen=True)
class Negative(Node):
    """Minus an operand."""

    operand: Expression


@dataclass(frozen=True)
class Binary(Node):
    """Arithmetic on two numbers."""

    operator: Arithmetic
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Compare(Node):
    """A comparison of two numbers, strings or (only = and <>) booleans."""

    operator: Comparison
    left: Expression
    right: Expression


@dataclass(frozen=True)
class And(Node):
    """All of two or more conditions."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Or(Node):
    """Any of two or more conditions."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Not(Node):
    """The opposite; NULL stays NULL."""

    operand: Expression


@dataclass(frozen=True)
class Between(Node):
    """low <= operand and operand <= high."""

    operand: Expression
    low: Expression
    high: Expression


@dataclass(frozen=True)
class In(Node):
    """operand equals one of the items."""

    operand: Expression
    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Is(Node):
    """Whether the operand is NULL (value None), TRUE or FALSE; itself never NULL."""

    operand: Expression
    value: bool | None


@dataclass(frozen=True)
class Case(Node):
    """The result of the first branch (condition, result) whose condition is true, else `otherwise`."""

    branches: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression


@dataclass(frozen=True)
class Member(Node):
    """The column in `near(...).column`: which one of what the call names, and what kind of values it has.

    kind : "null", which fits everything, until it is known what the call's name stands for
    """

    name: str
    kind: Kind = field(default="null", compare=False)


@dataclass(frozen=True)
class Call(Node):
    """A function of FILTER_FUNCTIONS on its arguments, or a column of what it found."""

    name: str
    arguments: tuple[Expression, ...]
    member: Member | None = None


Expression = (
    Column
    | Number
    | String
    | Boolean
    | Null
    | Negative
    | Binary
    | Compare
    | And
    | Or
    | Not
    | Between
    | In
    | Is
    | Case
    | Call
)


def children(node: Expression) -> tuple[Expression, ...]:
    """The nodes directly below one, in reading order."""
    match node:
        case Negative(operand) | Not(operand) | Is(operand, _):
            return (operand,)
        case Binary(_, left, right) | Compare(_, left, right):
            return (left, right)
        case And(operands) | Or(operands) | Call(_, operands, _):
            return operands
        case Between(operand, low, high):
            return (operand, low, high)
        case In(operand, items):
            return (operand, *items)
        case Case(branches, otherwise):
            return (*(part for branch in branches for part in branch), otherwise)
        case _:
            return ()


def walk(node: Expression) -> Iterator[Expression]:
    """A node and everything below it, in reading order."""
    yield node
    for child in children(node):
        yield from walk(child)


def refusal(what: str, position: int, advice: str = "") -> FilterError:
    """The error for a fault at a place: says what, where and, if known, what to do."""
    return FilterError(f"{what} at {position}" + (f"; {advice}" if advice else ""), position)


def shown(text: str, limit: int = 48) -> str:
    """A piece of a user's text, quoted and cut to a length that fits a message."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


_STRENGTH: dict[type[Node], int] = {Or: 1, And: 2, Not: 3, Compare: 4, Between: 4, In: 4, Is: 4, Negative: 7}
"""How tightly a construct binds; what is not listed is closed and needs no parentheses."""


def _strength(node: Expression) -> int:
    if isinstance(node, Binary):
        return 5 if node.operator in "+-" else 6
    return _STRENGTH.get(type(node), 9)


def _within(node: Expression, strength: int) -> str:
    """A node's text as an operand, in parentheses unless it binds at least that tightly."""
    return node.text if _strength(node) >= strength else f"({node.text})"


def _binary(node: Binary) -> str:
    # The right operand needs more strength, because a - (b - c) is not (a - b) - c.
    strength = _strength(node)
    return f"{_within(node.left, strength)} {node.operator} {_within(node.right, strength + 1)}"


def _compare(node: Compare) -> str:
    return f"{_within(node.left, 5)} {node.operator} {_within(node.right, 5)}"


def _between(node: Between) -> str:
    return f"{_within(node.operand, 5)} between {_within(node.low, 5)} and {_within(node.high, 5)}"


def _in(node: In) -> str:
    return f"{_within(node.operand, 5)} in ({', '.join(item.text for item in node.items)})"


def _case(node: Case) -> str:
    branches = " ".join(f"when {condition.text} then {result.text}" for condition, result in node.branches)
    return f"case {branches} else {node.otherwise.text} end"


def _is(node: Is) -> str:
    return f"{_within(node.operand, 5)} is {'null' if node.value is None else str(node.value).lower()}"


def _call(node: Call) -> str:
    member = f".{node.member.name}" if node.member else ""
    return f"{node.name}({', '.join(argument.text for argument in node.arguments)}){member}"


def _quoted(node: String) -> str:
    return "'" + node.value.replace("'", "''") + "'"


_WRITERS: dict[type[Node], Callable[[Any], str]] = {
    Column: lambda node: node.name,
    Number: lambda node: repr(node.value),
    String: _quoted,
    Boolean: lambda node: str(node.value).lower(),
    Null: lambda node: "null",
    Negative: lambda node: f"- {_within(node.operand, 8)}",
    Binary: _binary,
    Compare: _compare,
    And: lambda node: " and ".join(_within(operand, 3) for operand in node.operands),
    Or: lambda node: " or ".join(_within(operand, 2) for operand in node.operands),
    Not: lambda node: f"not {_within(node.operand, 4)}",
    Between: _between,
    In: _in,
    Is: _is,
    Case: _case,
    Call: _call,
}
