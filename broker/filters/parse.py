"""Text to a whitelisted syntax tree.

Three steps: a lexer of our own refuses every character, word and size that the language does not have,
with its place; sqlglot then reads the grammar of what is left; and its tree is copied node by node, only
constructs known here, into the nodes of tree.py. Nothing is ever handed to an SQL engine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

from sqlglot import exp, parse_one, parser
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError

from broker.errors import FilterError
from broker.filters import tree
from broker.filters.tree import Arithmetic, Comparison, Expression, refusal, shown

MAX_CHARACTERS = 10_000
MAX_TOKENS = 1_500
"""Words, numbers, strings and signs other than commas. Also bounds the tree, whose nodes take at least a
token each, and the time: 10 to 30 us a token from text to normal form."""
MAX_TOKENS_AND_COMMAS = 2_000
"""So that a list may be 1,000 long."""
MAX_DEPTH = 64
MAX_NESTING = 24
"""Parentheses and CASEs in each other: sqlglot spends some 25 of Python's 1,000 stack frames on each."""
MAX_NUMBER_CHARACTERS = 40
MAX_NAME_CHARACTERS = 100

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<member>(?<=\))\.[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.'])"
    r"|(?P<string>'(?:[^']|'')*')"
    r"|(?P<refused>--|/\*|==|\*\*|//)"
    r"|(?P<operator><=|>=|<>|!=|[-+*/%=<>(),])"
)

_REFUSED_SYMBOLS = {
    "--": "comments are not part of the language; for minus minus leave a space between",
    "/*": "comments are not part of the language",
    "==": "write = for equality",
    "**": "write power(x, y)",
    "^": "write power(x, y)",
    "//": "write floor(x / y)",
    ";": "a filter is one expression, not a statement",
    '"': "write strings in single quotes and column names without quotes",
    "`": "write column names without quotes",
    "'": "the string is not closed",
    "||": "strings cannot be joined",
    ".": "a dot joins parts of a column's name, or follows near(...) directly: near('gaia', 2*arcsec).mag",
}

_NO_PATTERNS = "compare strings with = or in (...)"
_NO_QUERIES = "a filter is one condition on one alert, not a query"
_REFUSED_WORDS = {
    **dict.fromkeys(("like", "ilike", "rlike", "regexp", "glob", "similar", "escape"), _NO_PATTERNS),
    **dict.fromkeys(
        ("select", "from", "where", "with", "union", "exists", "values", "distinct"), _NO_QUERIES
    ),
    **dict.fromkeys(("limit", "order", "group", "having", "join", "over", "insert", "drop"), _NO_QUERIES),
    **dict.fromkeys(
        ("cast", "interval", "date", "timestamp"), "columns have their types; no conversion exists"
    ),
    **dict.fromkeys(("isnull", "notnull", "unknown"), "write `is null` or `is not null`"),
    "xor": "write (a and not b) or (b and not a)",
    "symmetric": "write the smaller bound first",
}
"""Words of SQL that this language does not have. The tree refuses them too; here they get advice."""

_GRAMMAR_WORDS = frozenset(
    (
        "and",
        "or",
        "not",
        "in",
        "between",
        "is",
        "case",
        "when",
        "then",
        "else",
        "end",
        "null",
        "true",
        "false",
    )
)


class Token(NamedTuple):
    """A piece of the text: its kind (a group of the lexer), its characters, where it begins."""

    kind: str
    text: str
    position: int


def _lex(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None or match.lastgroup == "refused":
            raise _refused_character(text, position)
        if match.lastgroup != "space":
            yield Token(match.lastgroup, match.group(match.lastgroup), position)
        position = match.end()


def _refused_character(text: str, position: int) -> FilterError:
    if text[position].isdigit() and text[position].isascii():
        return refusal(
            f"malformed number {shown(text[position:], 12)}", position, "write it like 12, 0.5 or 1e-3"
        )
    symbol = next((s for s in (text[position : position + 2], text[position]) if s in _REFUSED_SYMBOLS), "")
    if symbol:
        return refusal(f"unexpected {symbol!r}", position, _REFUSED_SYMBOLS[symbol])
    return refusal(f"unexpected character {text[position]!a}", position, "it is not part of the language")


def _check_token(token: Token, text: str) -> None:
    """Refuse a token that the language does not have, although it is well formed."""
    kind, characters, position = token
    if kind == "number" and len(characters) > MAX_NUMBER_CHARACTERS:
        raise refusal(f"number of {len(characters)} characters", position, f"at most {MAX_NUMBER_CHARACTERS}")
    if kind in {"word", "member"} and len(characters) > MAX_NAME_CHARACTERS:
        raise refusal(f"name of {len(characters)} characters", position, f"at most {MAX_NAME_CHARACTERS}")
    if kind == "word" and characters.lower() in _REFUSED_WORDS:
        raise refusal(f"unexpected {shown(characters)}", position, _REFUSED_WORDS[characters.lower()])
    if kind == "string":
        # SQL reads x'ff' and the like as something other than a string.
        if position and (text[position - 1].isalnum() or text[position - 1] in "_."):
            raise refusal("string joined to what is before it", position, "leave a space between")
        if not characters.isprintable():
            raise refusal("string with an unprintable character", position, "remove it")


def _check_nesting(tokens: list[Token]) -> None:
    """Refuse parentheses and CASEs that do not close or are nested too deep, and long runs of signs."""
    opened: list[Token] = []
    run = 0
    for token in tokens:
        word = token.text.lower()
        run = run + 1 if word in {"not", "-", "+"} else 0
        if word in {"(", "case"}:
            opened.append(token)
        elif word in {")", "end"}:
            if not opened or (opened[-1].text == "(") != (word == ")"):
                raise refusal(
                    f"unexpected {shown(token.text)}", token.position, "nothing is open that it closes"
                )
            opened.pop()
        if len(opened) > MAX_NESTING or run > MAX_NESTING:
            raise refusal(
                f"nested deeper than {MAX_NESTING} levels", token.position, "write a flatter expression"
            )
    if opened:
        missing = ")" if opened[-1].text == "(" else "end"
        raise refusal(f"{opened[-1].text!r} is not closed", opened[-1].position, f"add {missing!r}")


def _check_commas(tokens: list[Token]) -> None:
    """Refuse commas with nothing between them, which sqlglot reads over."""
    for before, after in pairwise(tokens):
        if (before.text, after.text) in {(",", ","), (",", ")"), ("(", ",")}:
            raise refusal(f"nothing before {after.text!r}", after.position, "remove a comma")


def _members(found: list[Token]) -> list[tree.Member | None]:
    """The column that is asked of each call of a text, in reading order; None where it is the call itself."""
    members: list[tree.Member | None] = []
    opened: list[int | None] = []
    for place, token in enumerate(found):
        before, after = found[place - 1 : place], found[place + 1 : place + 2]
        if token.text == "(":
            is_call = (
                bool(before) and before[0].kind == "word" and before[0].text.lower() not in _GRAMMAR_WORDS
            )
            opened.append(len(members) if is_call else None)
            members += [None] * is_call
        elif token.text == ")":
            call = opened.pop()
            if after and after[0].kind == "member":
                member = after[0]
                if call is None:
                    raise refusal(f"unexpected {shown(member.text)}", member.position, _REFUSED_SYMBOLS["."])
                members[call] = tree.Member(member.text[1:], position=member.position + 1)
        elif token.kind == "member" and after and after[0].text == "(":
            raise refusal(f"unexpected {shown(token.text)}", token.position, "nothing found can be called")
    return members


def tokens(text: str) -> list[Token]:
    """The text's tokens. Raises FilterError for all that can be refused without knowing the grammar."""
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"the filter has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    found: list[Token] = []
    counted = 0
    for token in _lex(text):
        _check_token(token, text)
        found.append(token)
        counted += token.text != ","
        if counted > MAX_TOKENS or len(found) > MAX_TOKENS_AND_COMMAS:
            most = f"{MAX_TOKENS:,} words and signs, or {MAX_TOKENS_AND_COMMAS:,} with commas"
            raise refusal(f"more than {most}", token.position, "split the filter in two")
    if not found:
        raise FilterError("the filter is empty; write a condition such as mag < 19", 0)
    _check_nesting(found)
    _check_commas(found)
    return found


class _FilterDialect(Dialect):  # type: ignore[misc]  # sqlglot is not followed by mypy
    """SQL in which no function is special, so that every call reaches us under the name the user wrote."""

    class Parser(parser.Parser):  # type: ignore[misc]
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}


def _read_grammar(text: str, found: list[Token], start: int = 0) -> Any:
    """The tree sqlglot makes of a text that passed the lexer; its failures as FilterError.

    found : its tokens;  start : where the text begins in what the user wrote
    """
    # Each white-space character becomes one blank: sqlglot then reports columns that are indices of the text.
    line = re.sub(r"[\t\r\n]", " ", text)
    for token in found:  # read by _members, and nothing of SQL
        if token.kind == "member":
            at = token.position - start
            line = line[:at] + " " * len(token.text) + line[at + len(token.text) :]
    try:
        return parse_one(line, into=exp.Condition, dialect=_FilterDialect)
    except RecursionError:
        raise FilterError("the filter is nested too deeply; write a flatter expression", start) from None
    except ParseError as error:
        raise _syntax_error(error, start) from None
    except (SqlglotError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise FilterError(
            f"the filter cannot be read ({type(error).__name__}); check its grammar", start
        ) from None


def _syntax_error(error: ParseError, start: int) -> FilterError:
    details: dict[str, Any] = error.errors[0] if error.errors else {}
    near, column = details.get("highlight") or "", details.get("col")
    if not isinstance(column, int):
        return FilterError("the filter's grammar is wrong; write a condition such as mag < 19", start)
    position = start + max(column - len(near), 0)
    return refusal(f"wrong grammar near {shown(near)}", position, "check what is before and after it")


_COMPARISONS: dict[type, Comparison] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_ARITHMETIC: dict[type, Arithmetic] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
_CONDITIONS = (tree.Compare, tree.Between, tree.In, tree.Is, tree.And, tree.Or, tree.Not)


class _Copier:
    """Copies sqlglot's tree of one text into ours; any construct or argument not named here is refused."""

    def __init__(self, found: list[Token], start: int = 0) -> None:
        """Start : where the text that sqlglot read begins in what the user wrote."""
        self.depth = 0
        self.start = start
        self.position = start
        # sqlglot keeps no place for these words, but they come in reading order.
        words = (token for token in found if token.kind == "word")
        self.constants = iter([w.position for w in words if w.text.lower() in {"null", "true", "false"}])
        self.members = iter(_members(found))

    def copy(self, node: Any) -> Expression:
        """Our tree of one of sqlglot's."""
        while type(node) is exp.Paren and _only(node, "this"):
            node = node.this
        start = node.meta.get("start") if isinstance(node, exp.Expression) else None
        self.position = start + self.start if isinstance(start, int) else self.position
        copier = _COPIERS.get(type(node))
        if copier is None:
            raise self._refuse(node)
        self._enter()
        copied = copier(self, node)
        self.depth -= 1
        return copied

    def _enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise refusal(f"deeper than {MAX_DEPTH} levels", self.position, "write a flatter expression")

    def _refuse(self, node: Any) -> FilterError:
        nodes = node.walk() if hasattr(node, "walk") else ()
        starts = [n.meta["start"] + self.start for n in nodes if "start" in n.meta]
        position = min(starts, default=self.position)
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()
        return refusal(f"unsupported construct ({name})", position, "it is not part of the filter language")

    def _parts(self, node: Any, *names: str) -> list[Any]:
        """The named arguments of a node, which must be all it has."""
        if not _only(node, *names):
            raise self._refuse(node)
        return [node.args.get(name) for name in names]

    def column(self, node: Any) -> tree.Column:
        parts = [part for part in self._parts(node, "catalog", "db", "table", "this") if part is not None]
        if any(type(part) is not exp.Identifier or part.args.get("quoted") for part in parts):
            raise self._refuse(node)
        starts = [part.meta["start"] + self.start for part in parts if "start" in part.meta]
        self.position = min(starts, default=self.position)
        return tree.Column(self._name(".".join(part.this for part in parts)), position=self.position)

    def _name(self, name: str) -> str:
        """The name of a column or function; sqlglot takes some words of the grammar for names."""
        if name.lower() in _GRAMMAR_WORDS:
            raise refusal(f"unexpected {shown(name)}", self.position, "check what is before and after it")
        return name

    def literal(self, node: Any) -> tree.Number | tree.String:
        text, is_string = self._parts(node, "this", "is_string")
        if is_string:
            return tree.String(text, position=self.position)
        value = int(text) if text.isdecimal() else float(text)
        if isinstance(value, int) and value >= 2**63:
            raise refusal(f"integer {text} does not fit 64 bits", self.position, "write a decimal point")
        if value == float("inf"):
            raise refusal(f"number {text} is too large", self.position, "numbers end at 1.8e308")
        return tree.Number(value, position=self.position)

    def _constant(self) -> int:
        self.position = next(self.constants, self.position)
        return self.position

    def null(self, node: Any) -> tree.Null:
        self._parts(node)
        return tree.Null(position=self._constant())

    def boolean(self, node: Any) -> tree.Boolean:
        (value,) = self._parts(node, "this")
        return tree.Boolean(bool(value), position=self._constant())

    def negative(self, node: Any) -> tree.Negative:
        operand = self.copy(*self._parts(node, "this"))
        return tree.Negative(operand, position=operand.position)

    def binary(self, node: Any) -> tree.Binary:
        left, right = (self.copy(part) for part in self._parts(node, "this", "expression"))
        return tree.Binary(_ARITHMETIC[type(node)], left, right, position=left.position)

    def compare(self, node: Any) -> tree.Compare:
        left, right = (self._operand(part) for part in self._parts(node, "this", "expression"))
        return tree.Compare(_COMPARISONS[type(node)], left, right, position=left.position)

    def _operand(self, node: Any) -> Expression:
        """An operand of a comparison. `a = b is null` and `1 < x < 2` read two ways, so neither is read."""
        operand = self.copy(node)
        if isinstance(operand, _CONDITIONS):
            raise refusal(
                "comparison of a condition", operand.position, "join conditions with and / or instead"
            )
        return operand

    def _subject(self, node: Any) -> Expression:
        """What IS, IN or BETWEEN is about; a condition only in parentheses."""
        return self.copy(node) if type(node) is exp.Paren else self._operand(node)

    def _flat(self, node: Any) -> list[Any]:
        """The operands of a chain of ANDs or of ORs, without recursion: a chain may be long."""
        pending, operands = [node], []
        while pending:
            part = pending.pop()
            if type(part) is type(node):
                pending.extend(reversed(self._parts(part, "this", "expression")))
            else:
                operands.append(part)
        return operands

    def both(self, node: Any) -> tree.And:
        operands = tuple(self.copy(part) for part in self._flat(node))
        return tree.And(operands, position=operands[0].position)

    def either(self, node: Any) -> tree.Or:
        operands = tuple(self.copy(part) for part in self._flat(node))
        return tree.Or(operands, position=operands[0].position)

    def opposite(self, node: Any) -> tree.Not:
        operand = self.copy(*self._parts(node, "this"))
        return tree.Not(operand, position=operand.position)

    def between(self, node: Any) -> tree.Between:
        subject, low, high = self._parts(node, "this", "low", "high")
        operand = self._subject(subject)
        return tree.Between(operand, self._operand(low), self._operand(high), position=operand.position)

    def among(self, node: Any) -> tree.In:
        subject, items = self._parts(node, "this", "expressions")
        operand = self._subject(subject)
        if not items:
            raise refusal("IN without a list", operand.position, "write x in (1, 2, 3)")
        return tree.In(operand, tuple(self._operand(item) for item in items), position=operand.position)

    def whether(self, node: Any) -> tree.Is:
        subject, value = self._parts(node, "this", "expression")
        operand = self._subject(subject)
        constant = self.copy(value)
        if not isinstance(constant, tree.Null | tree.Boolean):
            raise refusal("IS with a value", constant.position, "write is null, is true or is false")
        wanted = constant.value if isinstance(constant, tree.Boolean) else None
        return tree.Is(operand, wanted, position=operand.position)

    def case(self, node: Any) -> tree.Case:
        if node.args.get("this"):
            raise refusal(
                "CASE with an operand", self.copy(node.this).position, "write case when x = 1 then ..."
            )
        ifs, default = self._parts(node, "ifs", "default")
        branches = tuple(self._branch(branch) for branch in ifs)
        otherwise = self.copy(default) if default is not None else tree.Null(position=self.position)
        return tree.Case(branches, otherwise, position=branches[0][0].position)

    def _branch(self, node: Any) -> tuple[Expression, Expression]:
        condition, result = self._parts(node, "this", "true")
        return self.copy(condition), self.copy(result)

    def call(self, node: Any) -> tree.Call:
        position = self.position
        name, arguments = self._parts(node, "this", "expressions")
        if not isinstance(name, str):
            raise self._refuse(node)
        self._name(name)
        member = next(self.members, None)
        return tree.Call(name, tuple(self.copy(it) for it in arguments), member, position=position)


def _only(node: Any, *names: str) -> bool:
    """Whether a node of sqlglot has no other arguments than the named."""
    return all(name in names or not value for name, value in node.args.items())


_COPIERS: dict[type, Callable[[_Copier, Any], Expression]] = {
    exp.Column: _Copier.column,
    exp.Literal: _Copier.literal,
    exp.Null: _Copier.null,
    exp.Boolean: _Copier.boolean,
    exp.Neg: _Copier.negative,
    **dict.fromkeys(_ARITHMETIC, _Copier.binary),
    **dict.fromkeys(_COMPARISONS, _Copier.compare),
    exp.And: _Copier.both,
    exp.Or: _Copier.either,
    exp.Not: _Copier.opposite,
    exp.Between: _Copier.between,
    exp.In: _Copier.among,
    exp.Is: _Copier.whether,
    exp.Case: _Copier.case,
    exp.Anonymous: _Copier.call,
}
"""The whitelist: every construct of sqlglot that may be part of a filter."""


def _require_whole(node: Expression, found: list[Token]) -> None:
    """Refuse a text that does not say all that is in its tree, and nothing else.

    sqlglot reads over some words (AS) and does without others (the AND of BETWEEN, a THEN).
    """
    read = Counter(part for node in tree.walk(node) for part in _written(node))
    for token in found:
        part = _spelling(token)
        if part in _UNCOUNTED:
            continue
        if not read[part]:
            raise refusal(
                f"unexpected {shown(token.text)}", token.position, "check what is before and after it"
            )
        read[part] -= 1
    missing = next(iter(+read), "")
    if missing:
        raise refusal(f"a word is missing: {missing}", node.position, "check the grammar from there on")


_UNCOUNTED = frozenset(("(", ")", ",", "+", "else", "null", "true", "false"))
"""What a tree does not say how often was written; a plus before a number means nothing, so it has no node."""


def _spelling(token: Token) -> str:
    """A token as _written writes it."""
    if token.kind == "number":
        return repr(float(token.text))
    word = token.text.lower()
    return {"!=": "<>"}.get(word, word) if token.kind == "operator" or word in _GRAMMAR_WORDS else token.text


def _written(node: Expression) -> list[str]:
    """What a text must say for a node itself, its children apart."""
    match node:
        case tree.Column(name):
            return [name]
        case tree.Call(name, _, member):
            return [name, f".{member.name}"] if member else [name]
        case tree.Number(value):
            return [repr(float(value))]
        case tree.String():
            return [node.text]
        case tree.Negative():
            return ["-"]
        case tree.Binary(sign, _, _) | tree.Compare(sign, _, _):
            return [sign] if sign != "+" else []
        case tree.And(operands) | tree.Or(operands):
            return [type(node).__name__.lower()] * (len(operands) - 1)
        case tree.Between():
            return ["between", "and"]
        case tree.Case(branches, _):
            return ["case", *["when", "then"] * len(branches), "end"]
        case tree.Not() | tree.In() | tree.Is():
            return [type(node).__name__.lower()]
        case _:
            return []


def parse(text: str) -> Expression:
    """The syntax tree of a filter's text, names and types not yet checked; FilterError if refused."""
    return _parse_tokens(text, tokens(text))


def _parse_tokens(text: str, found: list[Token], start: int = 0) -> Expression:
    """The tree of a piece of what the user wrote.  start : where it begins"""
    node = _Copier(found, start).copy(_read_grammar(text, found, start))
    _require_whole(node, found)
    return node


# --- statements and select lists -----------------------------------------------------------------------

MAX_SELECTED = 32
_SELECTED_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


class Item(NamedTuple):
    """One expression of a select list, and the name it is given; '' for a column that keeps its own."""

    name: str
    expression: Expression
    text: str
    position: int


def split_statement(text: str) -> tuple[str, str]:
    """(select list, condition) of `SELECT ... WHERE ...`; ('', the text) of a condition alone.

    Blanks stand for what is left out before each, so that a place in it is a place in the text.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"the filter has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    if text.split(None, 1)[:1] == [] or text.split(None, 1)[0].lower() != "select":
        return "", text
    found = list(_lex(text))
    outer = _outside_parentheses(found)
    word = {token.text.lower(): place for place, token in reversed(list(outer)) if token.kind == "word"}
    if "where" not in word:
        raise refusal("a statement without WHERE", found[-1].position, "write select mag where mag < 19")
    where = word["where"]
    listed = word.get("from", where)
    if listed != where and [token.text.lower() for token in found[listed + 1 : where]] != ["alerts"]:
        raise refusal("FROM something", found[listed].position, "every filter reads alerts; leave FROM out")
    begin, end, condition = found[0].position + len("select"), found[listed].position, found[where].position
    condition += len("where")
    return " " * begin + text[begin:end], " " * condition + text[condition:]


def parse_list(text: str) -> list[Item]:
    """The expressions of a select list, columns and types not yet checked; FilterError if refused."""
    found = tokens(text)
    commas = [place for place, token in _outside_parentheses(found) if token.text == ","]
    bounds = [-1, *commas, len(found)]
    if len(bounds) - 1 > MAX_SELECTED:
        position = found[commas[MAX_SELECTED - 1]].position
        raise refusal(f"more than {MAX_SELECTED} expressions", position, "select fewer")
    return [_item(text, found[low + 1 : high]) for low, high in pairwise(bounds)]


def _outside_parentheses(found: list[Token]) -> Iterator[tuple[int, Token]]:
    """(place, token) of each token that is in no parentheses."""
    depth = 0
    for place, token in enumerate(found):
        depth -= token.text == ")"
        if depth == 0:
            yield place, token
        depth += token.text == "("


def _item(text: str, found: list[Token]) -> Item:
    if not found:
        raise refusal("nothing between commas", len(text), "remove a comma")
    first, name = found[0].position, ""
    if len(found) > 2 and found[-2].text.lower() == "as":
        name, found = _name_of(found[-1]), found[:-2]
    elif len(found) > 1:
        raise refusal("an expression without a name", first, "write it as mag - 5 as distance")
    own = text[first : found[-1].position + len(found[-1].text)]
    return Item(name, _parse_tokens(own, found, first), own, first)


def _name_of(token: Token) -> str:
    if token.kind != "word" or _SELECTED_NAME.fullmatch(token.text) is None:
        advice = "use 1 to 48 of a-z, 0-9 and _, a letter first"
        raise refusal(f"name {shown(token.text)}", token.position, advice)
    return token.text
