"""What the pipeline asks of a store of histories, whoever keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """One alert's claim to be the first of its id."""

    bucket: bytes
    field: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A detection of which an alert says that the survey took it back.

    bucket, field : where the detection's own claim is; the note of its withdrawal is in pack.told_bucket
    carrier : the claim of the alert that says so: it counts only where that claim is in force
    """

    bucket: bytes
    field: bytes
    carrier: Claim


@dataclass(frozen=True, slots=True)
class Located:
    """Where an object is: place is a survey's cell of the sky (pack.place_key), both others of pack too."""

    place: bytes
    object: bytes
    position: bytes


@dataclass(frozen=True)
class Opened:
    """What a store held when a batch was opened.

    claims : for each claim asked, the one now in force: its own if it was first
    withdrawn : for each claim asked, the note of its detection's withdrawal, empty if there is none
    noted : for each withdrawal asked, the note now in force: its own if it was first
    curves : for each key asked, the stored points as bytes (empty if none)
    server : which incarnation of the server answered
    rebuilt : whether it holds what Kafka remembers; if not, what it says of claims and points is void
    gated : for each gated key asked, the expensive features kept of that object (empty if none)
    surveys : those of which an object was ever located
    annotated : changes whenever something is said of any object
    retried : for each claim asked, whether it was there before
    """

    claims: list[bytes]
    withdrawn: list[bytes]
    noted: list[bytes]
    curves: list[bytes]
    server: str
    rebuilt: bool
    gated: list[bytes] = field(default_factory=list)
    surveys: frozenset[str] = frozenset()
    annotated: bytes = b""
    retried: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """What a store says when a batch is on disk.

    withdrawn : for each claim overwritten, the note of its detection's withdrawal, empty if there is none
    server, annotated : as in Opened
    """

    withdrawn: list[bytes]
    server: str
    annotated: bytes = b""


@dataclass(frozen=True, slots=True)
class Addition:
    """What to do to one light curve.

    replace_length : None appends `points`; else the stored string is replaced by `points` if it still has
                     this many bytes (compare-and-set; if somebody appended, a later batch compacts)
    renew : whether the time to live starts anew: needed for a new light curve, and now and then
    """

    key: bytes
    points: bytes
    replace_length: int | None = None
    renew: bool = True


@dataclass(frozen=True, slots=True)
class Kept:
    """The expensive features of one object, to be stored in place of what was there."""

    key: bytes
    value: bytes


class HistoryStore(Protocol):
    """A store of light curves and claims. Each method is one round trip, safe beside other workers.

    All raise RetryBatch when the store does not answer; repeating any is harmless.
    """

    def open(
        self,
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes] = (),
    ) -> Opened:
        """Set each claim that is absent, note each withdrawal of which nobody told, read the rest."""

    def append(
        self,
        additions: Sequence[Addition],
        claims: Sequence[Claim],
        kept: Sequence[Kept] = (),
        located: Sequence[Located] = (),
    ) -> Stored:
        """Store points and expensive features, and overwrite claims (with the filters that passed).

        located : where objects are.  Everything is on disk when this returns.
        """

    def near(self, places: Sequence[bytes]) -> list[Mapping[bytes, bytes]]:
        """The objects located in each place: object -> position."""

    def claims_in(self, asked: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """The claims in some fields of some buckets, b"" where there is none; nothing is set."""

    def release(self, claims: Sequence[Claim], withdrawals: Sequence[Withdrawal]) -> None:
        """Take back the claims that are in force by their positions, and the notes of these carriers.

        For alerts that become dead letters: one that is sent again is then judged.
        """

    def mark_rebuilt(self) -> None:
        """Note that the store now holds what Kafka remembers."""

    def close(self) -> None:
        """Let go of the connection."""
