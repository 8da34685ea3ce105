"""Bytes that were something once."""

from __future__ import annotations

import random


def damaged(value: bytes, rng: random.Random) -> bytes:
    """A stored value cut, lengthened, changed in places, or replaced by noise of any length."""
    how = rng.randrange(6)
    if how == 0:
        return value[: rng.randrange(len(value) + 1)]
    if how == 1:
        return value + rng.randbytes(rng.randrange(1, 70))
    if how == 2:
        return rng.randbytes(rng.choice([0, 1, 7, 15, 16, 17, 23, 24, 25, 31, 32, 33, 64, 1000]))
    if how == 3:
        return rng.choice([b"\x00", b"\xff"]) * len(value)
    changed = bytearray(value)
    for _ in range(1 if how == 4 else 10):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
