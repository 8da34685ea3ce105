"""The rules that keep the tree livable, read off the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import broker

ROOT = Path(broker.__file__).parent
STAGES = ("ingest", "surveys", "history", "features", "context", "scores", "filters", "publish")
"""They meet in pipeline.py; none imports another. What two of them need lives above them."""
ABOVE_THE_STAGES = ("cli", "api", "demo", "training", "simulate", "client", "embedded")
CLIENT_OF_THE_STAGES = {"ingest.files": "surveys"}
"""Reading alert files means opening containers, which surveys/avro.py does."""
SERVING = ("pipeline", "service", "worker", "supervisor", "assemble", *STAGES, "api", "client")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it, without the leading 'broker.'."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "broker":
            base = node.module.removeprefix("broker").lstrip(".")
            modules = {alias.name for alias in node.names if is_module(base, alias.name)}
            if len(modules) < len(node.names):
                found.add(base)
            found.update(f"{base}.{name}".lstrip(".") for name in modules)
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("broker.") for a in node.names if a.name.startswith("broker."))
    return {name for name in found if name}


def is_module(base: str, name: str) -> bool:
    folder = ROOT.joinpath(*base.split(".")) if base else ROOT
    return (folder / f"{name}.py").exists() or (folder / name).is_dir()


FILES = {module_name(path): imports_of(path) for path in sorted(ROOT.rglob("*.py"))}


def package_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def test_the_tree_was_read() -> None:
    assert {"pipeline", "service", "surveys.ztf", "features.catalog"} <= FILES.keys()
    assert "features.catalog" in FILES["pipeline"]


def test_no_stage_imports_another_stage() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, imported in FILES.items()
        for other in imported
        if package_of(module) in STAGES
        and package_of(other) in STAGES
        and package_of(other) not in (package_of(module), CLIENT_OF_THE_STAGES.get(module))
    ]
    assert wrong == []


def test_imports_point_down() -> None:
    """What everything stands on knows nothing of what stands on it."""
    wrong = [
        f"{module} imports {other}"
        for module, imported in FILES.items()
        for other in imported
        if package_of(other) in ABOVE_THE_STAGES
        and package_of(module) in (*STAGES, "astro", "pipeline", "service", "control", "kafka", "config")
    ]
    assert wrong == []


def test_serving_never_imports_training_or_the_simulator() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, imported in FILES.items()
        for other in imported
        if package_of(module) in SERVING and package_of(other) in ("training", "simulate")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("technology", "homes"), [("redis", {"history.redis", "filters.store"}), ("sqlglot", {"filters.parse"})]
)
def test_a_stage_reaches_a_technology_through_one_file(technology: str, homes: set[str]) -> None:
    users = {
        module_name(path)
        for path in ROOT.rglob("*.py")
        if package_of(module_name(path)) in STAGES and technology in third_party(path)
    }
    assert users == homes


def third_party(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
    return found


def test_there_are_no_import_circles() -> None:
    visiting: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        if module in visiting:
            raise AssertionError(" -> ".join([*visiting[visiting.index(module) :], module]))
        if module in done or module not in FILES:
            return
        visiting.append(module)
        for other in sorted(FILES[module]):
            if other != module:
                visit(other)
        visiting.pop()
        done.add(module)

    for module in FILES:
        visit(module)


def test_there_is_no_utils_file() -> None:
    assert list(ROOT.rglob("util*.py")) == []


GROUP_CALLS = (
    "list_consumer_group_offsets",
    "alter_consumer_group_offsets",
    "delete_consumer_group_offsets",
    "list_consumer_groups",
    "describe_consumer_groups",
    "delete_consumer_groups",
    "ConsumerGroupTopicPartitions",
)
"""They crash the process when the group's coordinator moves: a consumer's committed() tells the same."""


def test_nothing_asks_the_admin_client_about_groups() -> None:
    named = {
        f"{module_name(path)}: {name}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (name := _named(node)) in GROUP_CALLS
    }
    assert named == set()


def _named(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    return node.name if isinstance(node, ast.alias) else ""
