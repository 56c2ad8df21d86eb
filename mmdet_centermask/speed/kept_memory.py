"""Memory of the CPU that stays with the process from one map to the next.

glibc hands large blocks back to the system when they are freed. The next map of that
size is then made of pages that the kernel has to clear and map again, one by one: on
a CPU with AMX that takes longer than the convolution that fills them.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 2**31 - 1  # bytes free at the end of the heap; mallopt takes no more


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees, up to 2 GB, instead of handing it back.

    Holds from now on and for everything in the process. Needs glibc, and its
    allocator in use; elsewhere nothing changes.

    Returns:
        Whether the allocator agreed.
    """
    if sys.platform != 'linux':
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # musl has none
    if mallopt is None:
        return False
    return all(
        mallopt(parameter, value) == 1
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT))
    )
