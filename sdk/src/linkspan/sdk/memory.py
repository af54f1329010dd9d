"""How the C library hands out memory."""

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_BUFFER_BYTES: Final = 4 << 20
_KEPT_BYTES: Final = 8 << 20


def keep_buffers() -> None:
    """Let freed buffers be used again, for processes that move bulk data (mallopt(3)).

    By default glibc gets every buffer above 128 KiB from the kernel and gives it back at once; clearing
    and mapping its pages costs three times as much as copying the data.
    """
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
