"""Buckets for tests. On SeaweedFS, one that a test has used is emptied and used again.

SeaweedFS makes a volume for the first object of a bucket. That takes 0.2 s, and 30 ms of CPU time with its removal.
"""

import contextlib
import http.client
import json
import urllib.parse
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from pg_bronze.demo.ports import HOST
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.demo.s3_server import S3Server
from pg_bronze.errors import PgBronzeError
from pg_bronze_tests.harness.servers import Bucket, new_bucket

# A bucket is not used again at once, because a request of a process that was killed may arrive late.
RESTING = 2
_FAILED = (PgBronzeError, ClientError, BotoCoreError, OSError, http.client.HTTPException, ValueError)

_free: weakref.WeakKeyDictionary[S3Server, deque[Bucket]] = weakref.WeakKeyDictionary()


@contextmanager
def empty_bucket(server: S3Server) -> Iterator[Bucket]:
    """Yield an empty bucket that no other test uses."""
    if not isinstance(server, SeaweedServer):
        made = new_bucket(server)
        yield made
        made.remove()
        return
    free = _free.setdefault(server, deque())
    found = _rested(server, free) or _with_volume(new_bucket(server))
    yield found
    # A test may have removed it, or stopped the server.
    with contextlib.suppress(*_FAILED):
        _empty(server, found)
        free.append(found)


def _rested(server: SeaweedServer, free: deque[Bucket]) -> Bucket | None:
    while len(free) > RESTING:
        found = free.popleft()
        with contextlib.suppress(*_FAILED):
            if not _entries(server, found):
                return found
            found.remove()
    return None


def _with_volume(made: Bucket) -> Bucket:
    made.store().create("volume", b"1")
    made.store().delete("volume")
    return made


def _empty(server: SeaweedServer, bucket: Bucket) -> None:
    """Delete all objects and folders, which the S3 interface would still list without objects."""
    while paths := _entries(server, bucket):
        for path in paths:
            _ask(server, "DELETE", f"{urllib.parse.quote(path)}?recursive=true")


def _entries(server: SeaweedServer, bucket: Bucket) -> list[str]:
    """Return the paths of the objects and folders at the top of a bucket, a thousand at most."""
    listed = json.loads(_ask(server, "GET", f"/buckets/{bucket.name}/?limit=1000"))
    return [entry["FullPath"] for entry in listed["Entries"] or []]


def _ask(server: SeaweedServer, method: str, path: str) -> bytes:
    """Send a request to the filer of SeaweedFS."""
    connection = http.client.HTTPConnection(HOST, server._ports["filer"], timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status >= 300:
            raise OSError(f"{method} {path}: HTTP status {response.status}")
        return body
