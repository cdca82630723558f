"""Interrupts: end `pg-bronze run` on Ctrl-C, whatever code the signal interrupts."""

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupts() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits some seconds and returns whether SIGINT was received since the block began.

    Python raises KeyboardInterrupt wherever the main thread is. In a finalizer or a callback of the garbage collector,
    Python prints a traceback and drops it. The interpreter's wakeup descriptor receives a byte in every case, also
    while a signal handler of Dagster is installed.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def interrupted(wait_s: float) -> bool:
        ends = time.monotonic() + wait_s
        while select.select([reader], [], [], max(0.0, ends - time.monotonic()))[0]:
            if signal.SIGINT in os.read(reader, 4096):
                return True
        return False

    try:
        with _no_tracebacks_of_interrupts():
            yield interrupted
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


@contextmanager
def _no_tracebacks_of_interrupts() -> Iterator[None]:
    """Print no traceback of a KeyboardInterrupt that Python drops or a library logs."""
    print_raised = sys.unraisablehook

    def print_others(raised: "sys.UnraisableHookArgs") -> None:
        if not issubclass(raised.exc_type, KeyboardInterrupt):
            print_raised(raised)

    def is_no_interrupt(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, KeyboardInterrupt)

    sys.unraisablehook = print_others
    # SQLAlchemy logs a KeyboardInterrupt during the close of a connection with a traceback. The root logger has no
    # handler, so the record reaches lastResort.
    last = logging.lastResort
    if last:
        last.addFilter(is_no_interrupt)
    try:
        yield
    finally:
        if last:
            last.removeFilter(is_no_interrupt)
        sys.unraisablehook = print_raised
