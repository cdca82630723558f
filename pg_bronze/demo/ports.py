"""Ports of the loopback address: finding free ones, and reserving one among the demos of this machine."""

import contextlib
import socket
import sys

from pg_bronze.errors import SettingsError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return different free ports. Another program may take one of them before it is used."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def reserve_port(port: int) -> socket.socket | None:
    """Reserve a free port until the returned socket is closed; None if it is in use or reserved.

    A program may need ten seconds to listen on its port, and the port is free for everybody until then. Only demos
    honor the reservation, which is an abstract socket name of Linux. Elsewhere nothing is reserved.
    """
    reservation = socket.socket(socket.AF_UNIX)
    if sys.platform == "linux":
        try:
            reservation.bind(f"\0pg_bronze-demo-port-{port}")
        except OSError:
            reservation.close()
            return None
    if is_free(port):
        return reservation
    reservation.close()
    return None


def require_free(port: int, program: str) -> None:
    """Raise SettingsError if the port that the user chose is in use."""
    if not is_free(port):
        raise SettingsError(f"port {port} for {program} is in use. Choose another one, or none to get a free one.")
