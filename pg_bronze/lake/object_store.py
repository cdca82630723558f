"""The bucket: whole objects, created once and never overwritten.

The client is botocore, because it lists from a given key within a partial prefix in one call, its error codes
distinguish a missing bucket from a missing key, and dagster-aws installs it anyway. It is safe to use from several
threads.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pg_bronze.errors import PgBronzeError, StoreNotFit, StoreUnavailable
from pg_bronze.lake import create_only, s3_credentials, s3_errors
from pg_bronze.lake.keys import own_key, place
from pg_bronze.settings.bucket import S3Connection

# 0.75 s in total. A conflict that lasts longer is left to the next tick.
_CONFLICT_PAUSES_S = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing. ``modified`` is the server's time of the write, UTC."""

    key: str
    size_bytes: int
    modified: datetime


class Store:
    """One bucket behind a botocore S3 client.

    Every method raises StoreUnavailable if the server does not respond or returns an error, AccessDenied if it rejects
    the keys, and StoreNotFit if the bucket does not exist or is full.

    Args:
        client: The client of botocore.
        bucket: The name of the bucket.
        prefix: The folders before every key.
        connection: What the client connects to, for messages about credentials and to renew them.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "", connection: S3Connection | None = None) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix
        self._connection = connection

    @property
    def place(self) -> str:
        """``bucket/prefix``, as watermarks contain it."""
        return place(self.bucket, self.prefix)

    @property
    def endpoint(self) -> str:
        """The address of the server, for messages."""
        return str(self.client.meta.endpoint_url)

    def uri(self, key: str) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    def create(self, key: str, body: bytes) -> bool:
        """Write a new object and return True, or return False if the key exists.

        False may also be the response to the client's own second attempt, after the first response was lost. The
        caller has to compare the content of the object.
        """
        for pause_s in (*_CONFLICT_PAUSES_S, None):
            try:
                # Bytes instead of a stream, because the client can send them again.
                self.client.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")
                return True
            except Exception as error:
                code = s3_errors.code_of(error)
                if code in s3_errors.EXISTS:
                    return False
                if code not in s3_errors.CONFLICT or pause_s is None:
                    raise self._explain(error, f"write {key}") from error
                time.sleep(pause_s)  # S3 reports no event when another write ends
        raise AssertionError("unreachable: the last attempt returns or raises")

    def replace(self, key: str, body: bytes) -> None:
        """Write an object and overwrite an existing one: for hints such as the last known catalog, never for data."""
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        except Exception as error:
            raise self._explain(error, f"write {key}") from error

    def get(self, key: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""
        return self._read(key, {})

    def tail(self, key: str, size_bytes: int) -> bytes | None:
        """Return the last ``size_bytes`` of an object (all of a smaller one), or None if it does not exist."""
        return self._read(key, {"Range": f"bytes=-{size_bytes}"})

    def _read(self, key: str, arguments: dict[str, str]) -> bytes | None:
        try:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=key, **arguments)["Body"].read()
            return body
        except Exception as error:
            if s3_errors.code_of(error) in s3_errors.MISSING:
                return None
            if s3_errors.code_of(error) == "InvalidRange":
                return b""  # the object is empty
            raise self._explain(error, f"read {key}") from error

    def delete(self, key: str) -> None:
        """Delete an object if it exists."""
        try:
            self.client.delete_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            raise self._explain(error, f"delete {key}") from error

    def move(self, key: str, to: str) -> None:
        """Copy an object within the bucket and delete the original. A repetition has no further effect."""
        try:
            self.client.copy_object(Bucket=self.bucket, Key=to, CopySource={"Bucket": self.bucket, "Key": key})
        except Exception as error:
            if s3_errors.code_of(error) in s3_errors.MISSING:
                return
            raise self._explain(error, f"move {key}") from error
        self.delete(key)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """List the objects whose keys start with ``prefix`` and sort after ``start_after``, in key order.

        Each page of 1,000 objects is one request, sent when the iterator reaches it.
        """
        arguments: dict[str, Any] = {"Bucket": self.bucket, "Prefix": prefix}
        if start_after:
            arguments["StartAfter"] = start_after
        while True:
            try:
                page = self.client.list_objects_v2(**arguments)
            except Exception as error:
                raise self._explain(error, f"list {prefix}") from error
            for item in page.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item["LastModified"])
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the folders directly below a prefix, which is ``""`` or ends with a slash."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        try:
            prefixes = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        except Exception as error:
            raise self._explain(error, f"list {prefix}") from error
        return tuple(name.removeprefix(prefix).removesuffix("/") for name in prefixes)

    def check(self) -> datetime | None:
        """Raise an error if the server does not respond or the bucket does not exist.

        Returns:
            The clock of the server, to the second; None if its response has no date.
        """
        try:
            response = self.client.head_bucket(Bucket=self.bucket)
        except Exception as error:
            # A response to HEAD has no body, so the code of a missing bucket is only 404.
            if s3_errors.code_of(error) in s3_errors.MISSING:
                raise s3_errors.missing_bucket("access it", self.bucket, self.endpoint) from error
            raise self._explain(error, "access the bucket") from error
        text = response["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(text).astimezone(UTC)
        except ValueError:
            return None

    def prepare(self, unfenced: bool = False) -> None:
        """Create the bucket if it is missing, and verify that it supports create-only writes.

        A successful verification is recorded in the bucket and valid for one day, so this is usually one request.

        Args:
            unfenced: Skip the verification.

        Raises:
            StoreNotFit: The bucket cannot be created, or more than one of several simultaneous writers created the
                same object, so two writers could write rows twice.
        """
        key, now = own_key(self.prefix, "create_only.json"), datetime.now(UTC)
        recorded = self._get_or_make_bucket(key)
        if unfenced or create_only.is_valid(recorded, self.endpoint, now):
            return
        self.verify_create_only()
        self.replace(key, create_only.record(self.endpoint, now))

    def verify_create_only(self) -> None:
        """Verify with simultaneous writers that only one of them creates an object. Leaves nothing in the bucket.

        Raises:
            StoreNotFit: More than one created it.
        """
        started = time.monotonic()
        for _ in range(create_only.MAX_ROUNDS):
            self._probe()
            if time.monotonic() - started > create_only.MAX_SECONDS:
                break

    def _get_or_make_bucket(self, key: str) -> bytes | None:
        try:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return body
        except Exception as error:
            code = s3_errors.code_of(error)
            if code == s3_errors.NO_BUCKET:
                self._make_bucket()
            elif code not in s3_errors.MISSING:
                raise self._explain(error, f"read {key}") from error
        return None

    def _make_bucket(self) -> None:
        if self._connection is not None and not self._connection.is_chosen:
            raise s3_errors.missing_bucket_of_no_server(self.bucket, self.endpoint)
        try:
            region = self.client.meta.region_name
            # The region us-east-1 is not a valid constraint.
            place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            self.client.create_bucket(Bucket=self.bucket, **place)
        except Exception as error:
            code = s3_errors.code_of(error)
            if code in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                return
            if not code or s3_errors.region_of(error):
                raise self._explain(error, "create the bucket") from error
            raise StoreNotFit(
                f"bucket {self.bucket!r} does not exist and could not be created ({code or type(error).__name__}). "
                "Create it, or set MINIO_BUCKET to an existing bucket. Retried after the fix."
            ) from error

    def _probe(self) -> None:
        key = own_key(self.prefix, f"probe/{secrets.token_hex(8)}")
        try:
            winners = create_only.count_winners(lambda: self.get(key), self.create, key)
        finally:
            self.delete(key)
        if winners > 1:
            raise StoreNotFit(
                f"bucket {self.bucket!r}: {winners} of {create_only.WRITERS} simultaneous writers created the same "
                "object, although the requests had the header If-None-Match. Two writers could write rows twice. Use a "
                "server that supports it (MinIO, SeaweedFS, AWS S3), or set PG_BRONZE_UNFENCED=true to accept the "
                "risk. Retried after the fix."
            )
        if winners == 0:  # a lost response is one reason: the client's second attempt fails
            raise StoreUnavailable(
                f"bucket {self.bucket!r}: none of {create_only.WRITERS} simultaneous writers created an object that "
                "did not exist. It is retried at the next tick."
            )

    def _explain(self, error: Exception, action: str) -> PgBronzeError:
        if self._connection is None:
            return s3_errors.explain(error, action, self.bucket, self.endpoint)
        if s3_errors.code_of(error) in s3_errors.REJECTED:
            s3_credentials.forget(self._connection)
        name, renewed = self._connection.credentials_name, self._connection.source == "aws"
        return s3_errors.explain(error, action, self.bucket, self.endpoint, name, renewed)
