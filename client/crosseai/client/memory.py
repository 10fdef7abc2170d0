"""Memory that is freed is kept for the next image."""

import ctypes

# <malloc.h> of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_KEPT_BYTES = 256 * 2**20
_LARGEST_KEPT_BYTES = 32 * 2**20
"""The greatest that glibc takes."""


def keep_freed_memory() -> None:
    """Let the allocator of this process keep the pages of an image for the next one.

    glibc gives them back and takes them again for every image, each page by a fault: several hundred for a PNG of
    1024 x 1024, one twentieth of its decoding. What is kept is bounded by what was in use at a time. A process decides
    that for itself, so programs call this and libraries do not. Another C library is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
