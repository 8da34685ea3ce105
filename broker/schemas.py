"""The Avro schema files: found beside a checkout or inside an installed wheel."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from broker.errors import SchemaError

Schema = dict[str, Any]


@cache
def schemas_dir() -> Path:
    """Folder of the schema files: `broker/_schemas` of an installed wheel, else `schemas` of the checkout.

    Raises SchemaError when neither is there.
    """
    package = Path(str(files("broker")))
    candidates = (package / "_schemas", package.parent / "schemas")
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = " nor ".join(str(folder) for folder in candidates)
    raise SchemaError(
        f"the schema files are neither in {looked}; reinstall the package or use a full checkout"
    )


@cache
def load(name: str) -> Schema:
    """One schema by its path without ending, such as 'ztf/alert'; read once, so do not change the result.

    Raises SchemaError when there is no such file or it does not hold a record schema.
    """
    path = schemas_dir() / f"{name}.avsc"
    if not path.is_file():
        raise SchemaError(f"no schema {name!r} (looked for {path}); there are: {', '.join(names())}")
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SchemaError(f"schema {name!r} is not JSON: {error} in {path}; restore the file") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaError(f"schema {name!r} is not an Avro record ({path}); restore the file")
    return schema


def names() -> list[str]:
    """Every name that `load` knows, sorted."""
    root = schemas_dir()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.avsc"))


def lsst_schema(schema_id: int) -> Schema | None:
    """Rubin's alert schema by its registry id (1100 is 11.0); None if we do not have that version."""
    major, minor = divmod(schema_id, 100)
    name = f"lsst/v{major}_{minor}"
    return load(name) if (schemas_dir() / f"{name}.avsc").is_file() else None
