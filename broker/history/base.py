"""What the pipeline asks of a store of histories, whoever keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """One alert's claim to be the first of its id."""

    bucket: bytes
    field: bytes
    value: bytes


@dataclass(frozen=True)
class Opened:
    """What a store held when a batch was opened.

    claims : for each claim asked, the one now in force: its own if it was first
    curves : for each key asked, the stored points as bytes (empty if none)
    server : which incarnation of the server answered
    """

    claims: list[bytes]
    curves: list[bytes]
    server: str


@dataclass(frozen=True, slots=True)
class Addition:
    """What to do to one light curve.

    replace_length : None appends `points`; else the stored string is replaced by `points` if it still has
                     this many bytes (compare-and-set; if somebody appended, a later batch compacts)
    """

    key: bytes
    points: bytes
    replace_length: int | None = None


class HistoryStore(Protocol):
    """A store of light curves and claims. Each method is one round trip, safe beside other workers.

    Both raise RetryBatch when the store does not answer; repeating either is harmless.
    """

    def open(self, claims: Sequence[Claim], keys: Sequence[bytes]) -> Opened:
        """Set each claim if it is absent and read the light curves."""

    def append(self, additions: Sequence[Addition], claims: Sequence[Claim]) -> str:
        """Store points, overwrite claims (with the filters that passed), and say which server did.

        Everything is on disk when this returns.
        """

    def close(self) -> None:
        """Let go of the connection."""
