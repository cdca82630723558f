"""`pg-bronze demo` as a process of its own: what it printed, and its database."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from pg_bronze.demo.data_dir import remove_data_dir

ROOT = Path(__file__).parents[2]


class DemoProcess:
    """A demo that has been started; ``printed`` is what it has printed up to the last call of ``until``.

    Args:
        command: The program, if it is not that of this checkout.
    """

    def __init__(
        self, folder: Path, port: int, *options: str, command: Sequence[str | Path] = (), **settings: str
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.state = folder / ".pg_bronze"
        self.printed = ""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        # This checkout, whatever project the environment has installed.
        kept |= {"HOME": str(folder)} if command else {"HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "pg_bronze")), "demo", "--port", str(port), *options],
            cwd=folder,
            env={**kept, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, pattern: str) -> re.Match[str]:
        """Read what it prints until a line matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the demo ended without printing {pattern!r}:\n{self.printed}")

    def page(self, name: str) -> str:
        """Return the path of a page whose address the demo printed, such as `tables`."""
        found = re.search(rf"(?m)^  {name} +{re.escape(self.url)}(\S+)", self.printed)
        assert found is not None, self.printed
        return found[1]

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        """Execute a statement in the sample database as its superuser."""
        lines = (self.state / "env.sh").read_text(encoding="utf-8").splitlines()
        known = dict(part.split("=", 1) for line in lines for part in shlex.split(line.removeprefix("export ")))
        password = (self.state / "postgres/password").read_text(encoding="utf-8")
        with psycopg.connect(
            host=known["PG_HOST"], port=known["PG_PORT"], dbname=known["PG_DB"], user="postgres", password=password,
            autocommit=True,
        ) as connection:  # fmt: skip
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Stop it as two Ctrl-C do, without waiting for runs in flight, and delete its data."""
        try:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(AssertionError):  # it had ended before
                self.until("press Ctrl-C again")
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            remove_data_dir(self.state / "postgres")


@contextlib.contextmanager
def running_demo(
    folder: Path, port: int, *options: str, command: Sequence[str | Path] = (), **settings: str
) -> Iterator[DemoProcess]:
    """Yield a demo whose web page answers, and stop it."""
    demo = DemoProcess(folder, port, *options, command=command, **settings)
    try:
        demo.until("ready after")
        demo.until("settings for a shell")
        yield demo
    finally:
        demo.stop()
