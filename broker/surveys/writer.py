"""Writer schemas: parsed once, checked to be safe to decode with, and known by the paths they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro

from broker.errors import SchemaError
from broker.text import is_text, parts_of, printable

MAX_TEXT_BYTES = 1 << 18
"""Of a schema: five times the longest of any survey."""
MAX_PARTS = 25_000
"""Objects, lists, texts and numbers in the JSON of a schema: five times the most of any survey."""
MAX_DEPTH = 64
"""Of its objects and lists inside each other: six times the deepest of any survey."""
MAX_NODES = 10_000
"""Types in one datum, named ones and all branches of unions counted out: five times any survey's."""
MAX_PATH_CHARACTERS = 1 << 20
"""Of all paths together: fifty times any survey's."""
MAX_VERSION = 64
"""Characters of a version that are kept: each alert has them."""
_CACHED = 64

_PRIMITIVE_SIZES = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
    "enum": 1,
    "array": 1,
    "map": 1,
}
"""Smallest encoding of each type [bytes]."""


@dataclass(frozen=True, eq=False, slots=True)
class WriterSchema:
    """The schema a record was written with.

    text    : the JSON as found
    parsed  : what fastavro reads with
    name    : full name, such as 'lsst.v10_0.alert'
    version : the 'version' attribute (ZTF has one), else ''
    paths   : dotted path of every field; 'prv_candidates[].jd' for one inside an array
    named   : the named types inside, by full name
    """

    text: str
    parsed: dict[str, Any]
    name: str
    version: str
    paths: frozenset[str]
    named: dict[str, dict[str, Any]]


def writer_schema(text: str) -> WriterSchema:
    """The writer schema of a JSON text.

    Raises SchemaError when it is too large or nested too deeply, is not JSON, holds what UTF-8 cannot, is
    refused by fastavro, is not a record, or could make a few bytes decode to very much (a record inside
    itself, an array of nothing, thousands of nested fields).
    """
    found = _known(text)
    if isinstance(found, str):
        raise SchemaError(f"writer schema {found}")
    return found


@lru_cache(maxsize=_CACHED)
def _known(text: str) -> WriterSchema | str:
    """The schema of a text, or why there is none: found once, for a bad one may come with every message."""
    try:
        return _read(text)
    except SchemaError as error:
        return str(error)


def _read(text: str) -> WriterSchema:
    if len(text) > MAX_TEXT_BYTES:
        raise SchemaError(f"of {len(text):,} characters; at most {MAX_TEXT_BYTES:,} are read")
    raw = _json(text)
    try:
        parsed = fastavro.parse_schema(_bare(raw))
    except MemoryError:
        raise
    except Exception as error:  # fastavro raises whatever its walk over a damaged schema meets
        raise SchemaError(f"refused: {type(error).__name__}: {printable(str(error), 200)}") from error
    if not isinstance(parsed, dict) or parsed.get("type") not in ("record", "error"):
        raise SchemaError("is not a record; an alert must be one")
    try:
        walk = _Walk()
        walk.measure(parsed)
        paths = _Paths(walk.named)
        paths.below(parsed, "")
    except (RecursionError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise SchemaError(
            f"cannot be walked: {type(error).__name__}: {printable(str(error), 200)}"
        ) from error
    version = str(raw.get("version", ""))[:MAX_VERSION]
    return WriterSchema(text, parsed, str(parsed["name"]), version, frozenset(paths.found), walk.named)


def _json(text: str) -> Any:
    """What a schema's text says, if that is neither too much nor nested too deeply, and can be written."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"is not JSON: {type(error).__name__}: {printable(str(error), 200)}") from error
    for number, (part, depth) in enumerate(parts_of(raw)):
        if number >= MAX_PARTS:
            raise SchemaError(f"has more than {MAX_PARTS:,} parts")
        if depth > MAX_DEPTH:
            raise SchemaError(f"is nested more than {MAX_DEPTH} deep")
        if isinstance(part, str) and not is_text(part):
            raise SchemaError(f"has text that UTF-8 cannot hold: {part[:60]!a}")
    return raw


def _bare(schema: Any) -> Any:
    """A schema without defaults, which reading does not need and of which some are illegal.

    And without fastavro's own marks: one that says it has been parsed would not be checked at all.
    """
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if not _is_ignored(key)}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


def _is_ignored(key: str) -> bool:
    return key == "default" or key.startswith("__")


class _Walk:
    """Measures every type of a parsed schema once, and refuses the ones that cannot be decoded safely."""

    def __init__(self) -> None:
        self.named: dict[str, dict[str, Any]] = {}
        self._measured: dict[str, tuple[int, int]] = {}

    def measure(self, schema: Any) -> tuple[int, int]:
        """(smallest encoding [bytes], number of nodes) of a type."""
        if isinstance(schema, list):
            branches = [self.measure(branch) for branch in schema]
            smallest = min((size for size, _ in branches), default=0)
            return 1 + smallest, 1 + sum(nodes for _, nodes in branches)
        if isinstance(schema, str):
            return self._reference(schema)
        return self._complex(schema)

    def _reference(self, name: str) -> tuple[int, int]:
        if name in self._measured:
            return self._measured[name]
        if name in self.named:
            raise SchemaError(f"has {name[:60]!r} inside itself; recursive alerts are not supported")
        return _PRIMITIVE_SIZES[name], 1

    def _complex(self, schema: dict[str, Any]) -> tuple[int, int]:
        kind = schema["type"]
        if "name" in schema:
            self.named[schema["name"]] = schema
        if kind in ("record", "error"):
            parts = [self.measure(field["type"]) for field in schema["fields"]]
            result = sum(size for size, _ in parts), 1 + sum(nodes for _, nodes in parts)
        elif kind == "array":
            result = self._array(schema)
        elif kind == "map":
            result = 1, 1 + self.measure(schema["values"])[1]
        elif kind == "fixed":
            result = max(0, int(schema["size"])), 1
        else:
            result = self.measure(kind)
        if result[1] > MAX_NODES:
            raise SchemaError(f"makes one record hold more than {MAX_NODES:,} fields")
        if "name" in schema:
            self._measured[schema["name"]] = result
        return result

    def _array(self, schema: dict[str, Any]) -> tuple[int, int]:
        size, nodes = self.measure(schema["items"])
        if size == 0:
            raise SchemaError("has an array of items without a byte; its length cannot be trusted")
        return 1, 1 + nodes


class _Paths:
    """Every dotted path below a type: what `_Walk` has measured, so never more than MAX_NODES of them."""

    def __init__(self, named: dict[str, dict[str, Any]]) -> None:
        self.found: list[str] = []
        self._named = named
        self._characters = 0

    def below(self, schema: Any, prefix: str) -> None:
        """Add the paths of a type.  Raises SchemaError if they are too long together."""
        if isinstance(schema, list):
            for branch in schema:
                self.below(branch, prefix)
        elif isinstance(schema, str):
            if schema in self._named:
                self.below(self._named[schema], prefix)
        elif schema["type"] == "array":
            self.below(schema["items"], f"{prefix[:-1]}[].")
        elif schema["type"] in ("record", "error"):
            for field in schema["fields"]:
                self._add(prefix + field["name"])
                self.below(field["type"], f"{prefix}{field['name']}.")
        elif schema["type"] not in ("map", "enum", "fixed"):
            self.below(schema["type"], prefix)

    def _add(self, path: str) -> None:
        self.found.append(path)
        self._characters += len(path)
        if self._characters > MAX_PATH_CHARACTERS:
            raise SchemaError(f"has paths of more than {MAX_PATH_CHARACTERS:,} characters together")
