"""Writer schemas: parsed once, checked to be safe to decode with, and known by the paths they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro

from broker.errors import SchemaError

_MAX_NODES = 10_000
"""Fields in one datum, nested records counted out: far above any survey (about 700), far below harm."""

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


@lru_cache(maxsize=256)
def writer_schema(text: str) -> WriterSchema:
    """The writer schema of a JSON text.

    Raises SchemaError when it is not JSON, is refused by fastavro, is not a record, or could make a few
    bytes decode to very much (a record inside itself, an array of nothing, millions of nested fields).
    """
    try:
        raw = json.loads(text)
        parsed = fastavro.parse_schema(_without_defaults(raw))
    except Exception as error:  # fastavro raises whatever its walk over a damaged schema meets
        raise SchemaError(f"writer schema refused: {type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(parsed, dict) or parsed.get("type") not in ("record", "error"):
        raise SchemaError("writer schema is not a record; an alert must be one")
    try:
        walk = _Walk()
        walk.measure(parsed)
        paths = frozenset(_paths(parsed, "", walk.named))
    except (RecursionError, LookupError, TypeError, ValueError) as error:
        raise SchemaError(f"writer schema cannot be walked: {type(error).__name__}: {error}") from error
    return WriterSchema(text, parsed, str(parsed["name"]), str(raw.get("version", "")), paths, walk.named)


def _without_defaults(schema: Any) -> Any:
    """A schema without its fields' defaults: reading what was written needs none, and some are illegal."""
    if isinstance(schema, dict):
        return {key: _without_defaults(value) for key, value in schema.items() if key != "default"}
    return [_without_defaults(one) for one in schema] if isinstance(schema, list) else schema


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
            return 1 + smallest, 1 + max((nodes for _, nodes in branches), default=0)
        if isinstance(schema, str):
            return self._reference(schema)
        return self._complex(schema)

    def _reference(self, name: str) -> tuple[int, int]:
        if name in self._measured:
            return self._measured[name]
        if name in self.named:
            raise SchemaError(f"writer schema: {name!r} holds itself; recursive alerts are not supported")
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
        if result[1] > _MAX_NODES:
            raise SchemaError(f"writer schema: one record holds more than {_MAX_NODES} fields")
        if "name" in schema:
            self._measured[schema["name"]] = result
        return result

    def _array(self, schema: dict[str, Any]) -> tuple[int, int]:
        size, nodes = self.measure(schema["items"])
        if size == 0:
            raise SchemaError("writer schema: an array of items without a byte; its length cannot be trusted")
        return 1, 1 + nodes


def _paths(schema: Any, prefix: str, named: dict[str, dict[str, Any]]) -> list[str]:
    """Every dotted path below a type."""
    if isinstance(schema, list):
        return [path for branch in schema for path in _paths(branch, prefix, named)]
    if isinstance(schema, str):
        return _paths(named[schema], prefix, named) if schema in named else []
    if schema["type"] == "array":
        return _paths(schema["items"], f"{prefix[:-1]}[].", named)
    if schema["type"] in ("map", "enum", "fixed"):
        return []
    if schema["type"] not in ("record", "error"):
        return _paths(schema["type"], prefix, named)
    found = []
    for field in schema["fields"]:
        path = prefix + field["name"]
        found += [path, *_paths(field["type"], f"{path}.", named)]
    return found
