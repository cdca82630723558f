"""Waits for the end of processes that are not children of the test, without polling."""

import os
import select


def has_ended(pid: int, timeout_s: float = 10.0) -> bool:
    """Wait for the end of the process; False if it is still running after ``timeout_s`` seconds."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], timeout_s)[0])
    finally:
        os.close(watched)
