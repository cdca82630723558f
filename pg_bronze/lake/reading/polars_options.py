"""The options with which Polars reaches the bucket: those of the settings, and neutral values for all others.

Polars reads every option that is not set from ``AWS_*`` variables and ``~/.aws``, and the HTTP proxy from ``ALL_PROXY``
and its relatives. It would send the keys there.
"""

import time
from pathlib import Path
from typing import Any

from pg_bronze.lake import s3_credentials
from pg_bronze.settings.bucket import S3Connection

# Each has a variable AWS_<NAME>, which would change the requests or be a parse error. Polars only reads objects and
# writes whole ones, so that the values of the last three have no effect.
_NEUTRAL = {
    "aws_virtual_hosted_style_request": "false",
    "aws_s3_express": "false",
    "aws_skip_signature": "false",
    "aws_unsigned_payload": "false",
    "aws_request_payer": "false",
    "aws_imdsv1_fallback": "false",
    "aws_disable_tagging": "false",
    "aws_disable_bulk_delete": "false",
    "aws_copy_if_not_exists": "multipart",
    "aws_conditional_put": "etag",
    "aws_checksum_algorithm": "sha256",
}
# A proxy that is excluded for every address and name is the only way to ignore the proxies of the environment. A lone
# "*" does not cover IP addresses.
_NO_PROXY = {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "0.0.0.0/0,::/0,*"}


def polars_options(connection: S3Connection, write: bool = False) -> dict[str, Any]:
    """Return the keyword arguments that Polars needs for the bucket. They contain the keys: never log them.

    Args:
        connection: The server, the keys and the authorities.
        write: Whether the options are for a write.
    """
    options = _NEUTRAL | _NO_PROXY | {"aws_region": connection.region}
    if connection.endpoint_url:
        options["aws_endpoint_url"] = connection.endpoint_url
        # AWS_ENDPOINT_URL_S3 takes precedence over the option above.
        options["aws_endpoint_url_s3"] = connection.endpoint_url
        options["aws_allow_http"] = "false" if connection.use_ssl else "true"
    if not write:
        # No effect on a read, but replaces AWS_SERVER_SIDE_ENCRYPTION. A write would need a server with a key service.
        options["aws_server_side_encryption"] = "AES256"
    if not connection.verify:
        options["allow_invalid_certificates"] = "true"
    if connection.ca is not None:
        # Polars has no option for authorities of the server, but trusts those of the proxy for all connections.
        options["proxy_ca_certificate"] = Path(connection.ca).read_text(encoding="ascii", errors="replace")
    # A function, because Polars adds the environment's AWS_SESSION_TOKEN to keys in the options, and because keys that
    # expire are asked for when objects are read, which may be long after this.
    return {"storage_options": options, "credential_provider": lambda: _login(connection)}


def _login(connection: S3Connection) -> tuple[dict[str, str], int | None]:
    """Return the current keys, and the Unix time at which Polars asks again; None for never."""
    keys = s3_credentials.current(connection)
    login = {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key}
    if keys.token:
        login["aws_session_token"] = keys.token
    return login, int(time.time()) + s3_credentials.POLARS_S if connection.source == "aws" else None
