"""The store's twin in memory: the same contract without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from broker.history import pack
from broker.history.base import Addition, Claim, Kept, Located, Opened, Stored, Withdrawal
from broker.history.soundness import (
    Damage,
    DamageAccount,
    cleaned,
    damages,
    sound_claims,
    sound_places,
)


class MemoryStore:
    """Light curves and claims in dictionaries; nothing expires."""

    def __init__(self, *, rebuilt: bool = True) -> None:
        self._rebuilt = rebuilt
        self.claims: dict[tuple[bytes, bytes], bytes] = {}
        self.curves: dict[bytes, bytes] = {}
        self.gated: dict[bytes, bytes] = {}
        self.places: dict[bytes, dict[bytes, bytes]] = {}
        self.aside: dict[bytes, bytes] = {}
        self.damage = DamageAccount()
        self._annotated = 0

    def open(
        self,
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes] = (),
    ) -> Opened:
        """Set each claim that is absent, note each withdrawal of which nobody told, read the rest."""
        asked = (claims, withdrawals, keys, gated)
        opened = self._open(*asked)
        found = damages(opened, *asked)
        if not found:
            return opened
        self._set_aside(found)
        return replace(cleaned(self._open(*asked), gated), retried=opened.retried)

    def _set_aside(self, found: Sequence[Damage]) -> None:
        self.damage.add(found)
        for item in found:
            self.aside[item.aside] = item.value
            held: Any = self.claims if item.field else self.curves
            place: Any = (item.key, item.field) if item.field else item.key
            held.pop(place, None)
            if item.instead:
                held[place] = item.instead

    def _open(
        self,
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes],
    ) -> Opened:
        retried = [(claim.bucket, claim.field) in self.claims for claim in claims]
        held = [self.claims.setdefault((claim.bucket, claim.field), claim.value) for claim in claims]
        noted = [self._note(item) for item in withdrawals]
        withdrawn = self._withdrawn(claims)
        curves = [self.curves.get(key, b"") for key in keys]
        surveys = frozenset(pack.survey_of_place(place).decode() for place in self.places)
        kept = [self.gated.get(key) or self.curves.get(key, b"") for key in gated]
        stamp = self._stamp()
        read = (held, withdrawn, noted, curves, "memory", self._rebuilt, kept)
        return Opened(*read, surveys, stamp, retried)

    def _withdrawn(self, claims: Sequence[Claim]) -> list[bytes]:
        return [self.claims.get((pack.told_bucket(claim.bucket), claim.field), b"") for claim in claims]

    def _note(self, item: Withdrawal) -> bytes:
        carrier = self.claims.get((item.carrier.bucket, item.carrier.field), b"")
        note = (pack.told_bucket(item.bucket), item.field)
        if pack.same_position(carrier, item.carrier.value):
            value = carrier[: pack.POSITION_BYTES] + self.claims.get((item.bucket, item.field), b"")
            self.claims.setdefault(note, value)
        return self.claims.get(note, b"")

    def append(
        self,
        additions: Sequence[Addition],
        claims: Sequence[Claim],
        kept: Sequence[Kept] = (),
        located: Sequence[Located] = (),
    ) -> Stored:
        """Store points, expensive features and positions, and overwrite claims."""
        self._annotated += pack.holds_annotations(additions)
        for item in additions:
            stored = self.curves.get(item.key, b"")
            if item.replace_length is None:
                self.curves[item.key] = stored + item.points
            elif len(stored) == item.replace_length:
                self.curves[item.key] = item.points
        for claim in claims:
            self.claims[(claim.bucket, claim.field)] = claim.value
        self.gated |= {item.key: item.value for item in kept}
        for place in located:
            self.places.setdefault(place.place, {})[place.object] = place.position
        return Stored(self._withdrawn(claims), "memory", self._stamp())

    def claims_in(self, asked: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """The claims in some fields of some buckets; nothing is set."""
        return sound_claims(asked, [self.claims.get(place, b"") for place in asked])

    def release(self, claims: Sequence[Claim], withdrawals: Sequence[Withdrawal]) -> None:
        """Take back the claims that are in force by their positions, and the notes of these carriers."""
        for place, position in pack.released(claims, withdrawals):
            if self.claims.get(place, b"").startswith(position):
                del self.claims[place]

    def _stamp(self) -> bytes:
        return b"%d" % self._annotated

    def near(self, places: Sequence[bytes]) -> list[Mapping[bytes, bytes]]:
        """The objects located in each place."""
        found = []
        for place in places:
            good, bad = sound_places(place, self.places.get(place, {}))
            self.damage.add(bad)
            for item in bad:
                self.aside[item.aside] = self.places[place].pop(item.field)
            found.append(good)
        return list(found)

    def mark_rebuilt(self) -> None:
        """Note that the store now holds what Kafka remembers."""
        self._rebuilt = True

    def close(self) -> None:
        """Nothing to let go of."""
