"""A schema that names its parts by references, as registries keep it, made into one that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.text import fault_of_json

MAX_PARTS = 100
"""Schemas that one may be made of."""
_INSIDE = ("items", "values")


class NotASchema(ValueError):
    """An answer of a registry, or a part of it, that is not what registries give."""


class NoSuchPart(Exception):
    """A reference to what the registry says that it does not have."""


@dataclass(frozen=True)
class Place:
    """Where a registry keeps a part."""

    subject: str
    version: int


@dataclass(frozen=True)
class Reference:
    """A part of a schema: the full name of the type, and where it is."""

    name: str
    place: Place


def references_of(answer: Mapping[str, Any]) -> list[Reference]:
    """What a registry's answer refers to.  Raises NotASchema."""
    given = answer.get("references") or []
    if not isinstance(given, list) or len(given) > MAX_PARTS:
        raise NotASchema(f"its references are no list of at most {MAX_PARTS}")
    return [_reference(item) for item in given]


def _reference(item: Any) -> Reference:
    if not isinstance(item, dict) or fault_of_json(item):
        raise NotASchema("a reference is no object")
    name, subject, version = item.get("name"), item.get("subject"), item.get("version")
    good = isinstance(name, str) and isinstance(subject, str) and type(version) is int and version >= 1
    if not good or not name or not subject or max(len(name), len(subject)) > 1000:
        raise NotASchema("a reference has a name, a subject and a version")
    return Reference(str(name), Place(str(subject), int(str(version))))


def parts_of(
    answer: Mapping[str, Any], ask: Callable[[Place], Mapping[str, Any]], schema_of: Callable[[Any], Any]
) -> dict[str, Any]:
    """The schemas of all references of an answer, and of theirs, by full name; each is asked for once.

    ask : a registry's answer for a place;  schema_of : the schema of an answer
    Raises NotASchema when they are too many, and whatever `ask` does.
    """
    found: dict[str, Any] = {}
    left, seen = references_of(answer), set[Place]()
    while left:
        item = left.pop()
        if item.name in found:
            continue
        if len(found) >= MAX_PARTS:
            raise NotASchema(f"it is made of more than {MAX_PARTS} schemas")
        part = ask(item.place)
        found[item.name] = schema_of(part)
        if item.place not in seen:
            seen.add(item.place)
            left += references_of(part)
    return found


def assembled(schema: Any, parts: Mapping[str, Any]) -> Any:
    """A schema with each part in the place where it is first named.

    parts : schemas by full name. One that is inside itself stays a name there: such schemas are refused when
    they are used.
    """
    return _Assembly(parts).of(schema, "")


class _Assembly:
    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = dict(parts)

    def of(self, schema: Any, namespace: str) -> Any:
        """A type with the parts in it."""
        if isinstance(schema, list):
            return [self.of(branch, namespace) for branch in schema]
        if isinstance(schema, str):
            return self._named(schema, namespace)
        return self._complex(schema, namespace) if isinstance(schema, dict) else schema

    def _named(self, name: str, namespace: str) -> Any:
        for full in (f"{namespace}.{name}", name):
            if full in self._parts:
                part = self._parts.pop(full)
                alone = isinstance(part, dict) and "namespace" not in part and "name" in part
                return self.of({**part, "namespace": ""} if alone else part, "")
        return name

    def _complex(self, schema: dict[str, Any], namespace: str) -> Any:
        name = schema.get("name")
        if isinstance(name, str):
            before, dot, _ = name.rpartition(".")
            namespace = before if dot else str(schema.get("namespace", namespace))
        made = {key: self.of(value, namespace) if key in _INSIDE else value for key, value in schema.items()}
        if isinstance(schema.get("fields"), list):
            made["fields"] = [self._field(item, namespace) for item in schema["fields"]]
        elif "type" in schema and "name" not in schema:
            inner = self.of(schema["type"], namespace)
            if set(schema) == {"type"}:
                return inner
            made["type"] = inner
        return made

    def _field(self, item: Any, namespace: str) -> Any:
        if not isinstance(item, dict) or "type" not in item:
            return item
        return {**item, "type": self.of(item["type"], namespace)}
