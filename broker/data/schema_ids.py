"""Ids of the schemas of what we publish: made of a schema's text, so that workers agree without talking."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1024)
def schema_id(schema: str) -> int:
    """Id of a schema's text: the first 31 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(schema.encode()).digest()[:4], "big") >> 1


def canonical(schema: dict[str, Any]) -> str:
    """A schema as text: one spelling for one schema."""
    return json.dumps(schema, separators=(",", ":"), sort_keys=True)
