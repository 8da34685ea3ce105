"""Why a filter passes an alert, or does not: the truth of each clause, in its owner's words and order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from broker.filters import tree, values
from broker.filters.compile import as_written
from broker.filters.expression import Evaluator, explain
from broker.filters.functions import FUNCTION_BY_NAME, Bound, Members, Named
from broker.filters.tree import Expression
from broker.filters.values import Value
from broker.table import ColumnSpec, Table

Outcome = Literal["true", "false", "null"]

_WORDS: dict[tree.Comparison, str] = {
    "<": "below", "<=": "at most", ">": "above", ">=": "at least", "=": "equal to", "<>": "different from",
}  # fmt: skip


@dataclass(frozen=True)
class Clause:
    """A condition on one alert.

    text : as its owner wrote it;  why : in words, '' for one that follows from its parts
    columns : what it looks at: numbers, texts, truths, None for what is not known
    """

    text: str
    outcome: Outcome
    why: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Clause, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `--json` and the API show it."""
        return {
            "text": self.text,
            "outcome": self.outcome,
            "why": self.why,
            "columns": dict(self.columns),
            "parts": [part.to_json() for part in self.parts],
        }


def explain_filter(
    text: str,
    table: Table,
    specs: Mapping[str, ColumnSpec],
    named: Named | None = None,
    members: Members | None = None,
) -> Clause:
    """A filter's clauses on a table of one row.

    specs : the columns there are;  named, members : what it may name.  Raises FilterError
    """
    written, resolved = as_written(text, specs, members)
    known = named or {}
    bound = {(kind, name): it for kind, names in known.items() for name, it in names.items()}
    with np.errstate(all="ignore"):
        return _Explainer(table, specs, bound).clause(written, resolved)


class _Explainer:
    def __init__(
        self, table: Table, specs: Mapping[str, ColumnSpec], bound: Mapping[tuple[str, str], Bound]
    ) -> None:
        self._table, self._specs, self._bound = table, specs, bound
        self._evaluator = Evaluator(table, bound)

    def clause(self, written: Expression, node: Expression) -> Clause:
        """A condition and its parts."""
        parts: tuple[Clause, ...] = ()
        if isinstance(node, tree.And | tree.Or | tree.Not):
            pairs = zip(tree.children(written), tree.children(node), strict=True)
            parts = tuple(self.clause(*pair) for pair in pairs)
        columns = {} if parts else self._columns(node)
        try:
            outcome = self._outcome(node)
            why = "" if parts else self._reason(written, node, outcome)
        except Exception as error:  # any one may fail, such as one of a column that this row does not have
            return Clause(written.text, "null", f"cannot be worked out: {explain(error)}", columns, parts)
        return Clause(written.text, outcome, why, columns, parts)

    def _reason(self, written: Expression, node: Expression, outcome: Outcome) -> str:
        return self._unknown(node) if outcome == "null" else self._why(written, node, outcome == "true")

    def _outcome(self, node: Expression) -> Outcome:
        if bool(np.all(self._evaluator.truth(node, True))):
            return "true"
        return "false" if bool(np.all(self._evaluator.truth(node, False))) else "null"

    def _why(self, written: Expression, node: Expression, holds: bool) -> str:
        """What makes a clause true or false."""
        is_ = "is" if holds else "is not"
        match written, node:
            case tree.Compare(_, left, right), tree.Compare(operator, low, high):
                return f"{self._side(left, low)} {is_} {_WORDS[operator]} {self._other(right, high)}"
            case tree.Between(operand, low, high), tree.Between(value, first, last):
                limits = f"{self._other(low, first)} and {self._other(high, last)}"
                return f"{self._side(operand, value)} {is_} between {limits}"
            case tree.In(operand, items), tree.In(value, _):
                return f"{self._side(operand, value)} {is_} one of {', '.join(item.text for item in items)}"
            case tree.Is(operand, None), tree.Is(value, None):
                return f"{operand.text} is not known" if holds else f"{self._side(operand, value)} is known"
            case _:
                return f"{written.text} {is_} true"

    def _side(self, written: Expression, node: Expression) -> str:
        """An operand with its value: 'mag = 19.31'."""
        value = self._shown(node)
        return written.text if _is_constant(node) or not value else f"{written.text} = {value}"

    def _other(self, written: Expression, node: Expression) -> str:
        """The same for what it is compared with: 'n_nights (3)'."""
        return written.text if _is_constant(node) else f"{written.text} ({self._shown(node)})"

    def _shown(self, node: Expression) -> str:
        return _spelt(_single(self._evaluator.value(node)))

    def _unknown(self, node: Expression) -> str:
        """Why a clause is neither true nor false."""
        reasons = list(dict.fromkeys(self._reasons(node)))
        return "; ".join(reasons) if reasons else "it has no value here, as a division by zero has none"

    def _reasons(self, node: Expression) -> Iterator[str]:
        for part in tree.walk(node):
            if isinstance(part, tree.Call):
                yield from self._reasons_of_call(part)
            elif isinstance(part, tree.Column) and _single(self._evaluator.value(part)) is None:
                doc = self._specs[part.name].doc if part.name in self._specs else ""
                yield f"{part.name} is not known" + (f" ({doc})" if doc else "")

    def _reasons_of_call(self, call: tree.Call) -> Iterator[str]:
        function = FUNCTION_BY_NAME[call.name]
        name = (
            call.arguments[0].value if function.state and isinstance(call.arguments[0], tree.String) else ""
        )
        if name and (function.state, name) not in self._bound:
            yield f"no {function.state} was named {name!r}"
            return
        failed = self._evaluator.failures(call)
        if failed is not None and (why := _single(failed)) is not None:
            yield f"{function.state} {name} failed: {why}"
        elif _single(self._evaluator.value(call)) is None:
            yield f"{call.text} has no value"

    def _columns(self, node: Expression) -> dict[str, Any]:
        """The columns that a clause names, and those that its functions read."""
        names: dict[str, None] = {}
        for part in tree.walk(node):
            if isinstance(part, tree.Column):
                names[part.name] = None
            elif isinstance(part, tree.Call):
                names |= dict.fromkeys(FUNCTION_BY_NAME[part.name].reads)
        return {name: self._cell(name) for name in names}

    def _cell(self, name: str) -> Any:
        return _single(values.column_value(self._table[name])) if name in self._table else None


def _is_constant(node: Expression) -> bool:
    return all(isinstance(part, tree.Number | tree.String | tree.Boolean | tree.Negative | tree.Binary)
               for part in tree.walk(node))  # fmt: skip


def _single(value: Value) -> str | float | int | bool | None:
    """The value of the one row there is, None for NULL."""
    if isinstance(value, values.Nothing) or not bool(np.all(values.known(value))):
        return None
    match value:
        case values.Floats(numbers) | values.Integers(numbers, _):
            return numbers.reshape(-1)[0].item()  # type: ignore[no-any-return]
        case values.Strings(codes, categories):
            return categories[int(codes.reshape(-1)[0])]
        case values.Truths(true, _):
            return bool(true.reshape(-1)[0])


def _spelt(value: str | float | int | bool | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "NULL"
    return repr(value) if isinstance(value, str) else str(value)
