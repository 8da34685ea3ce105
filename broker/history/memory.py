"""The store's twin in memory: the same contract without a server."""

from __future__ import annotations

from collections.abc import Sequence

from broker.history.base import Addition, Claim, Opened


class MemoryStore:
    """Light curves and claims in dictionaries; nothing expires."""

    def __init__(self) -> None:
        self.claims: dict[tuple[bytes, bytes], bytes] = {}
        self.curves: dict[bytes, bytes] = {}

    def open(self, claims: Sequence[Claim], keys: Sequence[bytes]) -> Opened:
        """Set each claim if it is absent and read the light curves."""
        held = [self.claims.setdefault((claim.bucket, claim.field), claim.value) for claim in claims]
        return Opened(held, [self.curves.get(key, b"") for key in keys], "memory")

    def append(self, additions: Sequence[Addition], claims: Sequence[Claim]) -> str:
        """Store points and overwrite claims."""
        for item in additions:
            stored = self.curves.get(item.key, b"")
            if item.replace_length is None:
                self.curves[item.key] = stored + item.points
            elif len(stored) == item.replace_length:
                self.curves[item.key] = item.points
        for claim in claims:
            self.claims[(claim.bucket, claim.field)] = claim.value
        return "memory"

    def close(self) -> None:
        """Nothing to let go of."""
