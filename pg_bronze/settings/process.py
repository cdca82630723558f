"""TODO settings.process."""

import contextlib
import ctypes
import gc
import os

_ALLOCATOR = "_RJEM_MALLOC_CONF"
# What Polars sets when it is imported, and every process started from that one inherits: nobody's choice.
_OF_POLARS = "dirty_decay_ms:500,muzzy_decay_ms:1000"
_M_MMAP_THRESHOLD = -3  # malloc.h


def tune_process() -> None:
    """Let Polars' allocator, and the C library's, give back at once what is freed; call it before Polars is imported.

    The one keeps it for ten seconds, which with slices every second means for good. The other learns from the first
    large block that such blocks belong to its heap, and leaves holes there. 20 MB rows took 430 MB with both.
    """
    if os.environ.get(_ALLOCATOR, _OF_POLARS) == _OF_POLARS:
        os.environ[_ALLOCATOR] = "dirty_decay_ms:0,muzzy_decay_ms:0"
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)
    gc.freeze()
