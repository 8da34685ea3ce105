"""Installs rules in Python the way `pip install` leaves them: a module and the metadata of its package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import broker

DOCS = Path(broker.__file__).parents[1] / "docs" / "plugins.md"


def documented_module() -> str:
    """The example module of docs/plugins.md."""
    (found,) = re.findall(r"```python\n(# deep_rule\.py\n.*?)```", DOCS.read_text(), re.DOTALL)
    return str(found)


def install(
    folder: Path, modules: Mapping[str, str], points: Mapping[str, str], package: str = "made"
) -> None:
    """Put modules and the entry points of a package into a folder of the module path.

    modules : source by name;  points : `module:object` by the name of the plug-in
    """
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    about = folder / f"{package}-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    lines = [f"{name} = {place}" for name, place in points.items()]
    (about / "entry_points.txt").write_text("\n".join(["[broker.filters]", *lines, ""]))
