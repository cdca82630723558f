"""Process options: memory allocator, garbage collector and CPU priority, set once when a process starts.

Each function changes the whole process. Importing this module changes nothing.
"""

import atexit
import contextlib
import ctypes
import gc
import multiprocessing
import os
from collections.abc import Iterator
from functools import cache

_ALLOCATOR = "_RJEM_MALLOC_CONF"
# Polars sets this value when it is imported, and child processes inherit it. Any other value is the user's choice.
_POLARS_DEFAULT = "dirty_decay_ms:500,muzzy_decay_ms:1000"
_M_MMAP_THRESHOLD = -3  # malloc.h
_MMAP_THRESHOLD_BYTES = 128 * 2**10
_NICENESS = 10


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Switch the garbage collector off in the block: modules are imported there, or many values are decoded.

    It finds next to no garbage then, and takes a fifth of the CPU time of an import of Dagster.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def tune_process() -> None:
    """Set the allocator and garbage collector options of the process, at the first call.

    Call it at each process entry point: after the imports, because only objects that exist are frozen, and before
    Polars is imported, because Polars reads the allocator options then.
    """
    _return_freed_memory()
    # The imported modules remain until the process ends. Without this, every full collection and the one at exit
    # traverse them: a third of the CPU time of a process (benchmarks/process.py). What is frozen is never collected,
    # so a second time would keep the definitions of every batch of `pg-bronze run`: 80 kB for each table.
    gc.freeze()
    atexit.register(exempt_from_collection)


def exempt_from_collection() -> None:
    """Exempt all objects that exist from garbage collection, in a process that ends soon.

    The collections at exit traverse what was made since ``tune_process``: each takes 15 ms after a `pg-bronze tick`
    with 500 tables.
    """
    gc.freeze()


def lower_priority() -> None:
    """Give a run worker that a code server started on this machine a low CPU priority, until it ends.

    Such a worker is a child process of multiprocessing. Any other process is left alone: a command or a pod continues
    with other work, or has a machine of its own.
    """
    if multiprocessing.parent_process() is not None and hasattr(os, "nice"):
        os.nice(_NICENESS)


def _return_freed_memory() -> None:
    """Make the allocators of Polars and of the C library return freed memory to the operating system immediately.

    Polars' allocator keeps it for ten seconds, which is permanent with one slice per second. The C library raises its
    mmap threshold after the first large block is freed, and fragments its heap from then on. Without either option,
    copying 20 MB rows took 430 MB. The columns of a batch that connectorx reads have 256 kB and more: with a threshold
    of 1 MB they fragmented the heap, and order lines in slices of 64 MB took 205 MB instead of 122.
    """
    # Polars appends its value to that of the parent process, which may be its own.
    if set(os.environ.get(_ALLOCATOR, _POLARS_DEFAULT).split(",")) <= set(_POLARS_DEFAULT.split(",")):
        os.environ[_ALLOCATOR] = "dirty_decay_ms:0,muzzy_decay_ms:0"
    with contextlib.suppress(AttributeError, OSError):  # only glibc has mallopt
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
