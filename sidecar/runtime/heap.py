"""
How the C library's heap is kept: what one piece of a body takes, the next one finds there.

By itself glibc maps a large buffer anew, or gives the heap's end back once it's free, each time, and the kernel zeroes
the pages again: up to 650,000 page faults, and more than half of the CPU time, for 1 GiB. Whether it does depends on
how the heap happens to lie. The two limits, once set, don't move either, while glibc would raise them to 32 and 64 MiB
by what a client makes us hold (mallopt(3)).
"""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3

TRIM_BYTES: Final = 2 << 20  # free at the heap's end, before it's given back
MMAP_BYTES: Final = 512 << 10  # of one buffer that is mapped by itself; what is read at once is smaller


def install() -> None:
    """Set both, where the C library knows of them: musl doesn't, and needs no telling."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES)
