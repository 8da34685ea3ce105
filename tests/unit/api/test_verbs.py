"""What `broker filters` and `broker serve` print, and how they end when used wrongly."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from broker.cli.filters import filters, summary
from broker.cli.refusal import caret
from broker.cli.serve import serve
from broker.errors import BrokerError
from broker.filter import Filter
from broker.filters.store import Added


def test_the_caret_stands_under_the_place() -> None:
    line, mark = caret("mag < 19 and psf_flx > 3", 13).split("\n")
    assert line[mark.index("^")] == "p"


def test_of_several_lines_the_one_with_the_fault_is_shown() -> None:
    assert caret("mag < 19\nand\tpsf_flx > 3\nand ra > 1", 13) == "and psf_flx > 3\n    ^"


def test_of_a_long_line_the_part_around_the_fault_is_shown() -> None:
    text = "mag < 19 or " * 100 + "!" + " or mag < 19" * 100
    line, mark = caret(text, 1200).split("\n")
    assert len(line) == 100
    assert line[mark.index("^")] == "!"


def test_a_fault_at_the_end_is_pointed_at() -> None:
    assert caret("mag <", 5) == "mag <\n     ^"


RULE = Filter("me", "bright", 3, "mag < 18")


@pytest.mark.parametrize(
    ("added", "text"),
    [
        (
            Added(RULE, True, 7, 4, 4, 0.31),
            "me.bright version 3: live on 4/4 workers in 0.3 s; listen with: broker listen filters.me.bright",
        ),
        (
            Added(RULE, True, 7, 0, 0, 0.0),
            "me.bright version 3: no worker is running: it takes effect when `broker run` starts;"
            " listen with: broker listen filters.me.bright",
        ),
        (
            Added(RULE, False, 7, 1, 1, 0.0),
            "me.bright version 3 was active already, nothing changed: live on 1/1 workers in 0.0 s;"
            " listen with: broker listen filters.me.bright",
        ),
        (
            Added(Filter("me", "bright", 3, "mag < 18", state="removed"), True, 8, 2, 2, 0.1),
            "me.bright version 3: removed on 2/2 workers in 0.1 s",
        ),
        (
            Added(Filter("me", "bright", 3, "mag < 18", state="draft"), True, 8, 2, 2, 0.1),
            "me.bright version 3: a draft, which judges nothing; broker filters enable me.bright@3",
        ),
    ],
)
def test_a_change_is_told_in_a_line(added: Added, text: str) -> None:
    assert summary(added) == text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["add", "x", "--where", "mag < 19 and psf_flx > 3"],
            "             ^\nerror: unknown column 'psf_flx'",
        ),
        (["add", "x", "--where", ""], "error: the filter is empty"),
        (["show", "a.b", "--owner", "c"], "names the owner 'a'"),
        (["add", "x"], "--where"),
        (["add", "x@2", "--where", "mag < 19"], "names a version; the next version has a number of its own"),
        (["show", "x@two"], "names no version; write NAME@2"),
        (["show", "x@2", "--version", "3"], "names version 2, but the version given is 3"),
        (["versions", "x@2"], "names a version"),
        (["add", "x", "--where", "mag < 19", "--payload", "huge"], "--payload"),
    ],
)
def test_wrong_usage_ends_with_2_before_any_server_is_needed(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(filters, arguments, env={"TERM": "dumb", "COLUMNS": "120"})
    assert result.exit_code == 2
    assert told in result.output


def test_a_taken_port_is_an_error_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"cannot listen on 127.0.0.1:{port}: .*0 = a free one"):
            serve(host="127.0.0.1", port=port, kafka="127.0.0.1:1", redis="redis://127.0.0.1:1/0")
