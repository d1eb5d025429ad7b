"""How the C library hands out memory during a training."""

import ctypes

# Parameters of mallopt, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8


def keep_freed_memory():
    """Makes glibc keep the memory that a training step frees, for the next step.

    By default glibc returns large blocks to the system and asks for them again in the next step,
    page by page, which can take half of a step's time. Elsewhere (macOS, musl) it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_ARENA_MAX, 1)  # One heap: further heaps are returned when their last block ends.
    mallopt(M_MMAP_MAX, 0)  # No block gets a memory mapping of its own.
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # The heap never shrinks.
