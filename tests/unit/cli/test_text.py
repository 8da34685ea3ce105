"""Arguments that UTF-8 cannot hold, as a terminal in Latin-1 sends them, are wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.annotations.send import checked
from broker.cli import fault_of_arguments
from broker.errors import AnnotationError

NOTE = b"\xd6pik"


@pytest.mark.parametrize(
    "arguments",
    [
        [b"annotate", b"ZTF25bbbbbba", b"--note", NOTE],
        [b"filters", b"add", b"x", b"mag < 19", b"--description", NOTE],
        [b"feedback", b"mark", NOTE, b"boring"],
        [b"listen", NOTE],
        [b"replay", b"/no/such/\xd6.avro"],
        [b"filters", b"add", b"x", b"mag < 19", b"--description", b"a\x1b[2Jb"],
        [NOTE],
    ],
)
def test_they_end_with_2_before_anything_starts(arguments: list[bytes]) -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"broker", *arguments], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert b"error: argument" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xd6.avro"
    assert fault_of_arguments([os.fsdecode(name)])
    Path(os.fsdecode(name)).touch()
    assert fault_of_arguments(["replay", os.fsdecode(name)]) == ""


def test_letters_of_every_kind_pass() -> None:
    assert fault_of_arguments(["Öpik", "天", "\U0001f52d", "two\nlines\tand a tab"]) == ""


@pytest.mark.parametrize("text", ["\ud83d", "a\x00", "\udcd6pik"])
@pytest.mark.parametrize("field", ["text", "by", "object", "class", "id", "other"])
def test_an_annotation_with_such_text_is_refused(text: str, field: str) -> None:
    said = {"survey": "ztf", "object": "ZTF25bbbbbba", "kind": "note", "text": "a", "by": "ann"}
    with pytest.raises(AnnotationError, match="text"):
        checked({**said, field: text})
