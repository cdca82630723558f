"""pgbouncer in front of a server, for as long as a test needs it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bronze.demo.os_user import unprivileged_user
from pg_bronze.demo.ports import free_ports
from pg_bronze.demo.postgres import PostgresServer

CONFIGURATION = """[databases]
* = host={server.host} port={server.port}
[pgbouncer]
listen_addr = {listen}
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
server_idle_timeout = 600
max_client_conn = 200
"""


@contextlib.contextmanager
def pgbouncer(
    server: PostgresServer, mode: str, size: int, port: int | None = None, listen: str = "127.0.0.1"
) -> Iterator[int]:
    """Start a pgbouncer in front of a server; gives its port."""
    port = port or free_ports(1)[0]
    account = unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="pgbouncer") as name:
        folder = Path(name)
        folder.chmod(0o755)  # it drops root's rights before it reads the passwords
        users, configuration = folder / "users", folder / "pgbouncer.ini"
        users.write_text(f'"{server.user}" "{server.password}"\n')
        configuration.write_text(
            CONFIGURATION.format(server=server, port=port, users=users, mode=mode, size=size, listen=listen)
        )
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("pgbouncer is not installed")  # in continuous integration a skipped test is a failure
        command = [program, str(configuration)]
        if account:
            command += ["-u", account.name]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "process up" in line:
                break
        else:
            raise AssertionError(f"pgbouncer does not start: {''.join(said)}")
        reads = threading.Thread(target=process.stderr.read, daemon=True)
        reads.start()
        try:
            yield port
        finally:
            process.terminate()
            process.wait(10)
            reads.join(10)
