"""The bucket: whole objects, created once and never overwritten.

botocore, boto3's lower half, rather than another client, because a LIST from a given key within a partial prefix is
one call, its error codes tell a missing bucket from a refused key, and dagster-aws brings it anyway. Safe to use from
several threads.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pg_bronze.errors import AccessDenied, LakeDamaged, PgBronzeError, StoreNotFit, StoreUnavailable
from pg_bronze.lake.keys import own_key

_MISSING = {"404", "NoSuchKey", "NotFound"}
_EXISTS = {"412", "PreconditionFailed"}
_CONFLICT = {"409", "ConditionalRequestConflict", "OperationAborted"}
_WRONG_KEYS = {"403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
_REFUSED = {"AccessDenied", "Forbidden"}
_FULL = {"507", "XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
_CONFLICT_TRIES = 5


@dataclass(frozen=True)
class Listed:
    """One object of a listing."""

    key: str
    size_bytes: int
    modified: datetime


class Store:
    """One bucket behind a botocore S3 client.

    Every method raises StoreUnavailable when the server does not answer (the next tick may), AccessDenied when it
    refuses the credentials, StoreNotFit when the bucket is missing.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix

    @property
    def place(self) -> str:
        """``bucket/prefix``, as a watermark remembers it."""
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    @property
    def endpoint(self) -> str:
        """The server's address, for messages."""
        return str(self.client.meta.endpoint_url)

    def uri(self, key: str) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    def create(self, key: str, body: bytes) -> bool:
        """Write a new object; False, and nothing changed, if the key exists already.

        False may be the answer to our own retried request whose first reply was lost: look at what is there.
        """
        for attempt in range(_CONFLICT_TRIES):
            try:
                # Not put_object(**…) with a stream: a body of bytes can be sent again by the client's own retries.
                self.client.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")
                return True
            except Exception as error:
                code = _code(error)
                if code in _EXISTS:
                    return False
                if code in _CONFLICT and attempt < _CONFLICT_TRIES - 1:
                    continue  # S3 answers 409 while another conditional write to the key is under way: ask again
                raise self._explain(error, f"write {key}") from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def replace(self, key: str, body: bytes) -> None:
        """Write an object, overwriting: only for hints such as the last known catalog, never for data."""
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        except Exception as error:
            raise self._explain(error, f"write {key}") from error

    def get(self, key: str) -> bytes | None:
        """An object's content; None if there is no such object."""
        return self._read(key, {})

    def tail(self, key: str, size_bytes: int) -> bytes | None:
        """The last ``size_bytes`` of an object, or all of it if it is smaller; None if there is no such object."""
        return self._read(key, {"Range": f"bytes=-{size_bytes}"})

    def _read(self, key: str, arguments: dict[str, str]) -> bytes | None:
        try:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=key, **arguments)["Body"].read()
            return body
        except Exception as error:
            if _code(error) in _MISSING:
                return None
            if _code(error) == "InvalidRange":
                return b""  # the end of an object that has no content
            raise self._explain(error, f"read {key}") from error

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        try:
            self.client.delete_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            raise self._explain(error, f"delete {key}") from error

    def move(self, key: str, to: str) -> None:
        """Copy an object within the bucket, then remove the first; done twice it is the same."""
        try:
            self.client.copy_object(Bucket=self.bucket, Key=to, CopySource={"Bucket": self.bucket, "Key": key})
        except Exception as error:
            if _code(error) in _MISSING:
                return
            raise self._explain(error, f"move {key}") from error
        self.delete(key)

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[Listed]:
        """Objects below a prefix (any string) in key order, behind ``start_after``; at most ``limit``."""
        arguments: dict[str, Any] = {"Bucket": self.bucket, "Prefix": prefix}
        if start_after:
            arguments["StartAfter"] = start_after
        count = 0
        while True:
            if limit is not None:
                arguments["MaxKeys"] = min(1000, limit - count)
            try:
                page = self.client.list_objects_v2(**arguments)
            except Exception as error:
                raise self._explain(error, f"list {prefix}") from error
            for item in page.get("Contents", ()):
                yield Listed(item["Key"], item["Size"], item["LastModified"])
                count += 1
            if not page.get("IsTruncated") or (limit is not None and count >= limit):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def check(self) -> None:
        """Ask whether the bucket is still there. Raises as every method does."""
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except Exception as error:
            if _code(error) in _MISSING:
                raise self._gone("look for it") from error
            raise self._explain(error, "look for the bucket") from error

    def folders(self, prefix: str) -> tuple[str, ...]:
        """The names directly below a prefix (``""`` or one that ends in a slash) that have objects below them."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        try:
            found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        except Exception as error:
            raise self._explain(error, f"list {prefix}") from error
        return tuple(name.removeprefix(prefix).removesuffix("/") for name in found)

    def prepare(self, unfenced: bool = False) -> None:
        """Make sure the bucket exists and honours create-only writes; creates it if it is missing.

        Raises StoreNotFit if it cannot be created, or ignores ``If-None-Match`` while ``unfenced`` is not set: two
        writers could then double rows.
        """
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except Exception as error:
            if _code(error) not in _MISSING | {"NoSuchBucket"}:
                raise self._explain(error, "look for the bucket") from error
            self._make_bucket()
        if unfenced:
            return
        probe = own_key(self.prefix, f"probe/{secrets.token_hex(8)}")
        fenced = self.create(probe, b"1") and not self.create(probe, b"2")
        self.delete(probe)
        if not fenced:
            raise StoreNotFit(
                f"bucket {self.bucket!r}: the server overwrites an object although asked not to "
                "(If-None-Match), so two "
                "writers at once could double rows. Use a server that honours it (MinIO, SeaweedFS, AWS S3), or set "
                "PG_BRONZE_UNFENCED=true to run with that risk."
            )

    def _make_bucket(self) -> None:
        try:
            self.client.create_bucket(Bucket=self.bucket)
        except Exception as error:
            if _code(error) in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                return
            raise StoreNotFit(
                f"bucket {self.bucket!r} does not exist and could not be created "
                f"({_code(error) or type(error).__name__}). "
                "Create it, or set MINIO_BUCKET to one that exists."
            ) from error

    def _explain(self, error: Exception, doing: str) -> PgBronzeError:
        """Our error for one of botocore's; its text is not repeated, because it may hold a key id or a URL."""
        code = _code(error)
        if isinstance(error, PgBronzeError):
            return error
        if code == "NoSuchBucket":
            return self._gone(doing)
        if code in _WRONG_KEYS:
            return AccessDenied(
                f"the S3 server {self.endpoint} refused the keys ({code}) for bucket {self.bucket!r}. "
                "Check MINIO_ACCESS_KEY and MINIO_SECRET_KEY (or the MINIO_ALIAS), and that they may read, "
                "write, list and delete there."
            )
        if code in _REFUSED:
            return AccessDenied(
                f"the S3 server {self.endpoint} refused to {doing} in bucket {self.bucket!r} (403, {code}). "
                "Check that MINIO_ACCESS_KEY and MINIO_SECRET_KEY (or the MINIO_ALIAS) may read, write, list and "
                "delete there."
            )
        if code in _MISSING:
            return LakeDamaged(f"bucket {self.bucket!r}: nothing there to {doing}.")
        if code in _FULL:
            return StoreNotFit(
                f"the S3 server {self.endpoint} has no room to {doing} in bucket {self.bucket!r} ({code}). Make room, "
                "or raise the bucket's quota."
            )
        if code:
            return StoreUnavailable(
                f"the S3 server {self.endpoint} did not {doing} in bucket {self.bucket!r} ({code}). The next tick "
                "tries again; if it goes on, look into the server's log."
            )
        # The key is left out: what is said of the server is the same sentence for every table.
        return StoreUnavailable(
            f"no connection to the S3 server {self.endpoint}, bucket {self.bucket!r}: {_how(error)}. "
            "Check that MINIO_ENDPOINT is right and the server is up; the next tick tries again."
        )

    def _gone(self, doing: str) -> StoreNotFit:
        return StoreNotFit(
            f"bucket {self.bucket!r} does not exist any more on {self.endpoint} (tried to {doing}). Create it again, "
            "or set MINIO_BUCKET."
        )


def _how(error: Exception) -> str:
    """What a failed connection looked like; the texts of botocore's errors hold URLs."""
    name = type(error).__name__
    known = {
        "EndpointConnectionError": "it does not take connections",
        "ConnectTimeoutError": "it does not take connections",
        "ReadTimeoutError": "it took the request and did not answer",
        "ConnectionClosedError": "it closed the connection without an answer",
        "IncompleteReadError": "its answer was cut short",
        "ResponseStreamingError": "its answer was cut short",
        "SSLError": "the encrypted connection could not be made",
    }
    return known.get(name, name)


def _code(error: Exception) -> str:
    """The S3 error code of a botocore ClientError, "" for anything else."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
