"""The mapping of botocore's errors to pg_bronze's.

botocore's texts are not repeated, because they can contain a key id or a URL.
"""

import re
import ssl

from pg_bronze.errors import AccessDenied, LakeDamaged, PgBronzeError, StoreNotFit, StoreUnavailable

MISSING = {"404", "NoSuchKey", "NotFound"}
NO_BUCKET = "NoSuchBucket"
EXISTS = {"412", "PreconditionFailed"}
# S3 responds with 409 while another conditional write to the key is in progress.
CONFLICT = {"409", "ConditionalRequestConflict", "OperationAborted"}
_WRONG_KEYS = {"403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidTokenId"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
REJECTED = _WRONG_KEYS | _EXPIRED
_DENIED = {"AccessDenied", "Forbidden"}
_FULL = {"507", "XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
_KEYS = "MINIO_ACCESS_KEY and MINIO_SECRET_KEY (or MINIO_ALIAS)"
_CONNECTION_FAILURES = {
    "EndpointConnectionError": "the server refused the connection",
    "ConnectTimeoutError": "the server did not accept the connection in time",
    "ReadTimeoutError": "the server accepted the request and did not respond in time",
    "ConnectionClosedError": "the server closed the connection without a response",
    "IncompleteReadError": "the response was incomplete",
    "ResponseStreamingError": "the response was incomplete",
    "SSLError": "the TLS connection could not be established",
}
_WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "301",
    "400",
}


def code_of(error: Exception) -> str:
    """Return the S3 error code of a botocore ClientError, ``""`` for any other error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def region_of(error: Exception) -> str | None:
    """Return the region that the server requires, if the error says that the request was signed for another one."""
    response = getattr(error, "response", None)
    if code_of(error) not in _WRONG_REGION or not isinstance(response, dict):
        return None
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    # Of a foreign server's response, only what can be a region is repeated.
    return region if region and re.fullmatch(r"[A-Za-z0-9-]{1,63}", region) else None


def _certificate_fault(error: BaseException | None) -> str | None:
    """Return OpenSSL's reason if a certificate was rejected, found in the causes of the error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        error = error.__cause__ or error.__context__ or inner
    return None


def explain(
    error: Exception, action: str, bucket: str, endpoint: str, credentials: str = _KEYS, renewed: bool = False
) -> PgBronzeError:
    """Return the pg_bronze error for an error of botocore.

    Args:
        error: What the client raised.
        action: What was attempted, as an infinitive without "to": ``read movie/movie_20260102000010.parquet``.
        bucket: The name of the bucket.
        endpoint: The address of the server.
        credentials: What the credentials are, for messages.
        renewed: They expire and are renewed; otherwise they are those of the settings.
    """
    code = code_of(error)
    if isinstance(error, PgBronzeError):
        return type(error)(*error.args)  # another one, because it is raised from the error
    if certificate := _certificate_fault(error):
        return StoreNotFit(
            f"the certificate of the S3 server {endpoint} was rejected: {certificate}. If a private authority signed "
            "it, set MINIO_CA to the file with the authority's certificate; otherwise correct MINIO_ENDPOINT or the "
            "server's certificate. Retried after the fix."
        )
    if not code:
        # The message does not contain the key, so that it is the same for every table.
        reason = _CONNECTION_FAILURES.get(type(error).__name__, type(error).__name__)
        return StoreUnavailable(
            f"no connection to the S3 server {endpoint}, bucket {bucket!r}: {reason}. Check that MINIO_ENDPOINT is "
            "right and that the server is running. It is retried at the next tick."
        )
    if region := region_of(error):
        return StoreNotFit(
            f"bucket {bucket!r} on {endpoint} is in region {region!r}, and requests are signed for another one "
            f"({code}). Set MINIO_REGION={region}. Retried after the fix."
        )
    if code == NO_BUCKET:
        return missing_bucket(action, bucket, endpoint)
    if code in _WRONG_KEYS | _DENIED:
        return _access_denied(code, action, bucket, endpoint, credentials)
    if code in _EXPIRED:
        return _expired(code, bucket, endpoint, credentials, renewed)
    if code in MISSING:
        return LakeDamaged(f"bucket {bucket!r}: could not {action}, because the object does not exist.")
    if code in _FULL:
        return StoreNotFit(
            f"the S3 server {endpoint} has no space left to {action} in bucket {bucket!r} ({code}). Free some space, "
            "or raise the bucket's quota. Retried after the fix."
        )
    return StoreUnavailable(
        f"the S3 server {endpoint} failed to {action} in bucket {bucket!r} ({code}). It is retried at the next tick; "
        "if the error persists, check the server's log."
    )


def missing_bucket(action: str, bucket: str, endpoint: str) -> StoreNotFit:
    """Return the error for a bucket that does not exist."""
    return StoreNotFit(
        f"bucket {bucket!r} does not exist on {endpoint} (attempted to {action}). Create it, or set MINIO_BUCKET to an "
        "existing bucket. Retried after the fix."
    )


def missing_bucket_of_no_server(bucket: str, endpoint: str) -> StoreNotFit:
    """Return the error for a bucket that does not exist on the server that is used because none is set."""
    return StoreNotFit(
        f"bucket {bucket!r} does not exist on {endpoint}, which is used because no S3 server is set. It is not "
        "created there. Set MINIO_ENDPOINT and the keys, or MINIO_ALIAS; or set MINIO_CREDENTIALS=aws to create it on "
        "AWS. Retried after the fix."
    )


def _access_denied(code: str, action: str, bucket: str, endpoint: str, credentials: str) -> AccessDenied:
    found = (
        f"rejected the keys for bucket {bucket!r}"
        if code in _WRONG_KEYS
        else f"denied permission to {action} in bucket {bucket!r}"
    )
    return AccessDenied(
        f"the S3 server {endpoint} {found} ({code}). Check {credentials}. They need permission to read, write, list "
        "and delete objects. Retried after the fix."
    )


def _expired(code: str, bucket: str, endpoint: str, credentials: str, renewed: bool) -> PgBronzeError:
    if renewed:
        return StoreUnavailable(
            f"the S3 server {endpoint} rejected the keys for bucket {bucket!r} as expired ({code}). They are asked for "
            f"again. If it persists, renew them in {credentials}, and check the clock of this machine. It is retried "
            "at the next tick."
        )
    return AccessDenied(
        f"the session token for bucket {bucket!r} on {endpoint} has expired ({code}). Set new {credentials}, and "
        "restart what runs; or set MINIO_PROFILE or MINIO_CREDENTIALS=aws, whose keys are renewed. Retried after the "
        "fix."
    )
