"""How much of what is freed the C library keeps."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # Of glibc's malloc.h.


def give_back() -> None:
    """Has glibc return large blocks to the system as soon as they are freed.

    By itself it keeps blocks of up to 32 MiB, in an arena for each thread: the temporary memory of
    a program, needed once at a time, is then held two or three times over. Smaller blocks stay, for
    products of matrices take and free theirs at each turn. Other C libraries are left alone.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: on Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 4 << 20)
        mallopt(_TRIM_THRESHOLD, 32 << 20)  # Else set to 128 KiB with the other one.
