"""Buckets for tests, each with a volume: SeaweedFS makes one for the first object of a bucket, which takes 0.2 s.

The next bucket is made while a test runs.
"""

import contextlib
import threading
import weakref
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pg_bronze.errors import PgBronzeError
from pg_bronze_tests.harness.servers import Bucket, new_bucket


class WarmBuckets:
    """The buckets of one server."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._made: Bucket | None = None
        self._thread: threading.Thread | None = None

    def take(self) -> Bucket:
        """Return an empty bucket, and start to make the next one."""
        if self._thread is not None:
            self._thread.join()
        made, self._made = self._made, None
        self._thread = threading.Thread(target=self._make, name="next bucket", daemon=True)
        self._thread.start()
        return made or new_bucket(self._server)

    def _make(self) -> None:
        # A test may have stopped the server; the next one makes its bucket itself.
        with contextlib.suppress(PgBronzeError, ClientError, BotoCoreError, OSError):
            made = new_bucket(self._server)
            made.store().create("volume", b"1")
            made.store().delete("volume")
            self._made = made


_of_servers: weakref.WeakKeyDictionary[Any, WarmBuckets] = weakref.WeakKeyDictionary()


def take(server: Any) -> Bucket:
    """Return an empty bucket of its own on a server."""
    return _of_servers.setdefault(server, WarmBuckets(server)).take()
