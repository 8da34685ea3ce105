"""How this process gets its memory: a worker's arrays come and go with each batch."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 2**20
"""The largest value glibc takes for its mapping threshold."""
_KEPT = 256 * 2**20


def keep_freed_memory() -> None:
    """Keep what a batch freed for the next one, up to 256 MiB, where the C library can (glibc).

    By default glibc gives arrays of over 128 KiB back to the kernel at once, and faulting them in again,
    page by page, costs up to a third of the time that features take.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
