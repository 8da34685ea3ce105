"""The Dockerfile: pinned, without root, checked, and copying only what .dockerignore lets through."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def instructions(root: Path) -> list[tuple[str, str]]:
    """(instruction, rest) in order; continued lines joined, comments dropped."""
    text = (root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    lines = kept.replace("\\\n", " ").splitlines()
    return [(first, rest.strip()) for first, _, rest in (line.partition(" ") for line in lines) if first]


def values(instructions: list[tuple[str, str]], name: str) -> list[str]:
    """What follows each instruction of a name."""
    return [rest for first, rest in instructions if first == name]


def final_stage(instructions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What follows the last FROM."""
    last = max(number for number, (first, _) in enumerate(instructions) if first == "FROM")
    return instructions[last:]


def test_both_stages_start_from_the_same_pinned_python(instructions: list[tuple[str, str]]) -> None:
    images = [rest.split()[0] for rest in values(instructions, "FROM")]
    assert len(images) == 2
    assert len(set(images)) == 1
    assert re.fullmatch(r"python:3\.12\.[0-9]+-slim-[a-z]+", images[0])


def test_it_runs_as_the_user_that_compose_names(
    instructions: list[tuple[str, str]], services: dict[str, dict[str, str]]
) -> None:
    user = values(final_stage(instructions), "USER")
    assert user == [services["api"]["user"]]
    assert user[0].split(":")[0] not in ("0", "root")


def test_everything_after_the_user_runs_without_root(instructions: list[tuple[str, str]]) -> None:
    stage = final_stage(instructions)
    names = [first for first, _ in stage]
    assert names.index("USER") < names.index("HEALTHCHECK") < names.index("ENTRYPOINT") < names.index("CMD")
    assert "USER" not in names[names.index("USER") + 1 :]


def test_it_starts_what_compose_starts(
    instructions: list[tuple[str, str]], services: dict[str, dict[str, list[str]]]
) -> None:
    assert json.loads(values(instructions, "ENTRYPOINT")[0]) == ["broker"]
    assert json.loads(values(instructions, "CMD")[-1]) == services["pipeline-1"]["command"]


def test_its_health_check_is_that_of_the_pipeline(
    instructions: list[tuple[str, str]], services: dict[str, dict[str, dict[str, list[str]]]]
) -> None:
    command = values(instructions, "HEALTHCHECK")[0].partition(" CMD ")[2]
    assert ["CMD", *json.loads(command)] == services["pipeline-1"]["healthcheck"]["test"]


def test_the_kernels_are_warmed_by_functions_that_exist(instructions: list[tuple[str, str]]) -> None:
    program = json.loads(values(final_stage(instructions), "RUN")[-1])[-1]
    imports = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(node.module or "")
        assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_build_sees_exactly_what_it_copies(instructions: list[tuple[str, str]], root: Path) -> None:
    ours = [rest.split()[:-1] for rest in values(instructions, "COPY") if not rest.startswith("--from")]
    copied = {source for sources in ours for source in sources}
    ignore = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert all((root / source).exists() for source in copied)
