"""Passwords that may change while a process runs: the line of a file, or what a command prints.

Every connection asks for the current one. Neither the command nor its output is part of a message, because both may
contain a secret.
"""

import functools
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pg_bronze.errors import AccessDenied, SourceUnavailable
from pg_bronze.settings import commands
from pg_bronze.settings.source import SourceSettings

# A token of AWS IAM is valid for 15 minutes.
KEPT_S = 300.0
# connectorx repeats a rejected login for 30 s. So it gets a password that psycopg has logged in with not longer ago; a
# shorter time would cost a login for each slice.
ACCEPTED_S = 10.0


class Password:
    """A password that may change.

    Args:
        setting: The name of its setting, for messages.
        read: Returns the password; its argument is the name of the server, with which its errors begin.
        kept_s: Seconds after which it is read again; 0 for every connection.
        now: The seconds of a monotonic clock.
    """

    def __init__(
        self, setting: str, read: Callable[[str], str], kept_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.setting = setting
        self._read = read
        self._kept_s = kept_s
        self._now = now
        self._lock = threading.Lock()
        self._value: str | None = None
        self._read_at = 0.0
        self._accepted: tuple[str, float] | None = None

    def current(self, name: str) -> str:
        """Return the password for a connection to ``name``. Raises AccessDenied or SourceUnavailable."""
        with self._lock:
            if self._value is None or self._now() - self._read_at >= self._kept_s:
                self._value = self._read(name)
                self._read_at = self._now()
            return self._value

    def renewed(self, rejected: str, name: str) -> str | None:
        """Return another password than the one that the server rejected; None if there is no other one now."""
        with self._lock:
            if self._value == rejected:
                self._value = None
        value = self.current(name)
        return None if value == rejected else value

    def accept(self, value: str) -> None:
        """Record that the server accepted a password now."""
        self._accepted = (value, self._now())

    def is_accepted(self, value: str) -> bool:
        """Return whether the server has accepted this password a moment ago."""
        accepted = self._accepted
        return accepted is not None and accepted[0] == value and self._now() - accepted[1] < ACCEPTED_S


def of(settings: SourceSettings) -> Password | None:
    """Return the password of the settings if it may change; None for ``PG_PASS``, or none."""
    if settings.pg_pass_secret_file is not None:
        return _of_file(settings.pg_pass_secret_file)
    if settings.pg_pass_command is not None:
        return _of_command(settings.pg_pass_command.get_secret_value())
    return None


# One for all connections of the process, so that they share the output of the command.
@functools.cache
def _of_command(command: str) -> Password:
    words = shlex.split(command)
    return Password("PG_PASS_COMMAND", lambda name: read_command(words, name), KEPT_S)


@functools.cache
def _of_file(file: Path) -> Password:
    return Password("PG_PASS_SECRET_FILE", lambda name: read_file(file, name), 0)


def read_file(file: Path, name: str) -> str:
    """Return the only line of a file. Raises AccessDenied, with ``name`` in front."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AccessDenied(
            f"{name}: the file of PG_PASS_SECRET_FILE cannot be read ({error.strerror}): {file}. Create it, or allow "
            "this user to read it. It is retried after the fix."
        ) from None
    line = _line(content)
    if line is None:
        raise AccessDenied(
            f"{name}: the file of PG_PASS_SECRET_FILE must contain one line of UTF-8, the password: {file}. It is "
            "retried after the fix."
        )
    return line


def read_command(words: Sequence[str], name: str, limit_s: float = commands.LIMIT_S) -> str:
    """Run a command and return the only line of its output.

    Raises:
        AccessDenied: It cannot be run, or prints something else than one line. Retried after the fix.
        SourceUnavailable: It failed, or took longer than ``limit_s``. Retried at the next tick.
    """
    program = Path(words[0]).name
    try:
        status, output = commands.run(words, limit_s)
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(
            f"{name}: the command of PG_PASS_COMMAND ({program}) did not end within {limit_s:g} s and was ended. Run "
            "it as this user to see why. It is retried at the next tick."
        ) from None
    except OSError as error:
        raise AccessDenied(
            f"{name}: the command of PG_PASS_COMMAND ({program}) cannot be run ({error.strerror}). Write the path of "
            "the program; shell syntax is not available. It is retried after the fix."
        ) from None
    if status:
        raise SourceUnavailable(
            f"{name}: the command of PG_PASS_COMMAND ({program}) failed with status {status}. Run it as this user to "
            "see its output, which is not shown because it may contain a password. It is retried at the next tick."
        )
    line = _line(output)
    if line is None:
        raise AccessDenied(
            f"{name}: the command of PG_PASS_COMMAND ({program}) must print one line of UTF-8, the password, to its "
            "standard output. It is retried after the fix."
        )
    return line


def _line(content: bytes) -> str | None:
    """Return the only line without its end; None if there is another number of lines, or it is no text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    line = text.removesuffix("\n").removesuffix("\r")
    return None if not line or "\n" in line or "\0" in line else line
