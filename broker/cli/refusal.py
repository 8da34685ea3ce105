"""A filter's text that was refused, shown with the place of the fault."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from broker.errors import FilterError

_SHOWN_CHARACTERS = 100


def caret(text: str, position: int) -> str:
    """The line of a text that has a position, cut to what fits, and a caret under the place."""
    start = text.rfind("\n", 0, position) + 1
    line = text[start:].partition("\n")[0].replace("\t", " ").replace("\r", " ")
    cut = max(0, position - start - _SHOWN_CHARACTERS // 2)
    place = position - start - cut
    return f"{line[cut : cut + _SHOWN_CHARACTERS]}\n{' ' * place}^"


@contextmanager
def refused(text: str = "") -> Iterator[None]:
    """What a user wrote wrongly: show where, and end with 2."""
    try:
        yield
    except FilterError as error:
        text = error.text or text
        if text and error.position is not None:
            print(caret(text, error.position), file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
