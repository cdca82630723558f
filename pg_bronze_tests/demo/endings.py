"""Waiting for the end of processes that are no children of ours, without asking again and again."""

import os
import select


def gone(pid: int, timeout_s: float = 10.0) -> bool:
    """Wait until the process has ended; False if it has not in time."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], timeout_s)[0])
    finally:
        os.close(watched)
