"""Machine: whether a run worker is of this machine, where its socket and its process id have a meaning.

Two machines may have one name: containers with a fixed host name, or copies of a virtual machine. The id of the boot
distinguishes machines, and that of the process namespace the containers of one machine. Other systems than Linux have
neither; there, and for workers of versions before 0.1.0, the name decides.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = "/proc/self/ns/pid"


def identity() -> dict[str, str]:
    """Return what distinguishes this machine, and this container of it, as far as it is known."""
    found = {"host": socket.gethostname()}
    with suppress(OSError):
        found["boot"] = _BOOT_ID.read_text(encoding="ascii").strip()
    with suppress(OSError):
        found["processes"] = os.readlink(_PROCESSES)
    return found


def is_here(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker is of this machine; False if its socket would not be found here although it lives.

    Args:
        worker: ``identity`` of the machine of the worker, and ``socket``, the path of its socket.
    """
    here = identity()
    different = {name for name, value in here.items() if worker.get(name, value) != value}
    if different & {"host", "boot"}:
        return False
    # Containers of one pod have a name in common, and the socket too if they share the folder for temporary files.
    return not different or Path(worker["socket"]).exists()


def place(worker: Mapping[str, Any]) -> str:
    """Return where a worker is that is not of this machine, for a message."""
    if worker["host"] != socket.gethostname():
        return str(worker["host"])
    return f"another machine or container named {worker['host']}, or on this one before a restart"
