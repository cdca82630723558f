"""The ``credential_process`` of an AWS profile, with a time limit: botocore waits for it without one."""

import subprocess
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from pg_bronze.settings import commands

# After a program that did not end. Each request to the bucket asks for credentials.
PAUSE_S = 30.0


class LimitedProcess:
    """Replaces ``subprocess.Popen`` in botocore's ``ProcessProvider``, with the methods that it calls.

    It runs without a terminal. Its errors are not read: nothing shows them, because they may contain a secret.
    """

    _did_not_end: ClassVar[dict[tuple[str, ...], float]] = {}

    def __init__(self, words: Sequence[str], **_: Any) -> None:
        self._words = tuple(words)
        self.returncode = 0

    def communicate(self) -> tuple[bytes, bytes]:
        """Run the program, and return what it prints.

        Raises:
            subprocess.TimeoutExpired: It did not end within 30 s, now or a moment ago.
            OSError: It cannot be run.
        """
        if time.monotonic() - self._did_not_end.get(self._words, -PAUSE_S) < PAUSE_S:
            raise subprocess.TimeoutExpired(self._words, commands.LIMIT_S)
        try:
            self.returncode, output = commands.run(self._words, commands.LIMIT_S)
        except subprocess.TimeoutExpired:
            self._did_not_end[self._words] = time.monotonic()
            raise
        return output, b""


def limit(session: Any) -> None:
    """Limit the time of the programs that a session of botocore runs, also those of a ``source_profile``."""
    for provider in _limited(session.get_component("credential_provider").providers):
        if builder := getattr(provider, "_profile_provider_builder", None):
            builder.providers = _limiting(builder.providers)


def _limiting(providers: Any) -> Any:
    return lambda *arguments, **options: _limited(providers(*arguments, **options))


def _limited(providers: list[Any]) -> list[Any]:
    from botocore.credentials import ProcessProvider

    for provider in providers:
        if isinstance(provider, ProcessProvider):
            provider._popen = LimitedProcess
    return providers
