"""What text and JSON may pass our doors: what every reader after us can hold.

Half of a surrogate pair is text to Python and to JSON, and to nobody else: UTF-8 cannot hold it, so neither
can Kafka, Redis, Avro, an answer over HTTP or a terminal. Control characters but tab and the ends of lines
can be held, but do harm where they are shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100
"""Of JSON's objects and lists inside each other: above it readers fail, each at a depth of its own."""
_LARGEST = 2**63
_MAX_DIGITS = 400
"""More than any double has."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def is_text(text: str) -> bool:
    r"""Whether UTF-8 can hold a text.

    >>> is_text("\u00d6pik"), is_text("\ud83d")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def utf8(text: str) -> bytes:
    r"""Any text as UTF-8: what UTF-8 cannot hold (half a surrogate pair) is written as an escape.

    >>> utf8("\u00d6pik \ud83d")
    b'\xc3\x96pik \\ud83d'
    """
    return text.encode("utf-8", "backslashreplace")


def fault_of_text(text: str) -> str:
    r"""What is wrong with a text that a person gives; '' if nothing is.

    >>> fault_of_text("a\x00b")
    'a control character (\\x00 at 1)'
    """
    if not is_text(text):
        place = next(place for place, letter in enumerate(text) if not is_text(letter))
        return f"half of a surrogate pair, which UTF-8 cannot hold ({ascii(text[place])[1:-1]} at {place})"
    found = _CONTROL.search(text)
    if found is None:
        return ""
    return f"a control character ({ascii(found[0])[1:-1]} at {found.start()})"


def printable(text: str, longest: int) -> str:
    r"""A text that may hold anything, for a person: cut, and escaped where it could not be written or shown.

    >>> printable("a\x00" + "b" * 10, 7)
    'a\\x00bb...'
    """
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:longest])
    return shown[:longest] + "..." if max(len(text), len(shown)) > longest else shown


def parts_of(value: Any) -> Iterator[tuple[Any, int]]:
    """Everything inside some JSON, keys too, and how deep it lies; never recursive."""
    left = [(value, 0)]
    while left:
        part, depth = left.pop()
        yield part, depth
        if isinstance(part, dict):
            left += [(one, depth + 1) for pair in part.items() for one in pair]
        elif isinstance(part, list):
            left += [(one, depth + 1) for one in part]


def whole_number(digits: str) -> int:
    """For `json.loads(..., parse_int=...)`: a number that is too long is told without Python's own advice.

    >>> whole_number("-12")
    -12
    """
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def whole(value: Any) -> int:
    """A whole number of 64 bits, given as such or as text.  Raises ValueError or TypeError."""
    number = int(value)
    if not -_LARGEST <= number < _LARGEST:
        raise ValueError("a whole number of more than 64 bits")
    return number


def fault_of_json(value: Any) -> str:
    """Why some JSON cannot be passed on; '' if it can.

    Its texts must be UTF-8, its numbers finite and whole ones of 64 bits, its nesting no deeper than
    MAX_DEPTH.
    """
    for part, depth in parts_of(value):
        if depth > MAX_DEPTH:
            return f"nested more than {MAX_DEPTH} deep"
        if isinstance(part, str) and not is_text(part):
            return fault_of_text(part)
        if isinstance(part, float) and not math.isfinite(part):
            return f"a number that is not finite ({part})"
        if isinstance(part, int) and not -_LARGEST <= part < 2 * _LARGEST:
            return "a whole number of more than 64 bits"
    return ""
