"""TODO cli.interrupts."""

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
    """A function that waits up to so many seconds and says whether SIGINT has come since the context began.

    KeyboardInterrupt is raised wherever the main thread is. In a finalizer or in a callback of the garbage collector,
    Python would print a traceback and forget it; the interpreter's wakeup descriptor has its byte all the same, also
    while a handler of Dagster's is in place.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    show = sys.unraisablehook

    def show_others(raised: "sys.UnraisableHookArgs") -> None:
        if not issubclass(raised.exc_type, KeyboardInterrupt):
            show(raised)

    def unlike_interrupts(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, KeyboardInterrupt)

    sys.unraisablehook = show_others
    # SQLAlchemy logs it, with a traceback, when it closes a connection just then; Dagster gives the root no handler.
    last = logging.lastResort
    if last:
        last.addFilter(unlike_interrupts)

    def interrupted(wait_s: float) -> bool:
        ends = time.monotonic() + wait_s
        while select.select([reader], [], [], max(0.0, ends - time.monotonic()))[0]:
            if signal.SIGINT in os.read(reader, 4096):
                return True
        return False

    try:
        yield interrupted
    finally:
        if last:
            last.removeFilter(unlike_interrupts)
        sys.unraisablehook = show
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
