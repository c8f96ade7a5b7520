"""Returns freed memory to the system during long runs."""

import ctypes
import time

_EVERY = 1.0  # seconds between two trims; longer if a trim takes long

try:
    _malloc_trim = ctypes.CDLL(None).malloc_trim  # glibc
    _malloc_trim.argtypes, _malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
except (AttributeError, OSError):  # another C library
    _malloc_trim = None


class Trimmer:
    """Calls malloc_trim(3) from time to time.

    Each image needs and frees buffers of megabytes. What is kept of it, a vector and a name, is small and lies between
    them. glibc cannot give such a heap, and those of reading threads, back by itself: it grew by 30 to 80 KB per image.
    """

    def __init__(self) -> None:
        self._next = time.monotonic() + _EVERY

    def __call__(self) -> None:
        """Returns at once if the last trim was less than a second ago. Any thread may call it."""
        begin = time.monotonic()
        if _malloc_trim is None or begin < self._next:
            return
        self._next = begin + 3600  # other threads do not trim at the same time
        _malloc_trim(0)
        end = time.monotonic()
        self._next = end + max(_EVERY, 100 * (end - begin))  # at most 1 % of the time
