"""The S3 client: botocore, configured so that a tick does not hang and unrelated AWS settings have no effect.

Variables ``AWS_*``, files in ``~/.aws`` and HTTP proxies are ignored: they belong to another server, which would
receive the requests. They are used for the credentials alone, and only if the settings select that: see
``s3_credentials``.
"""

import functools
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pg_bronze.lake import request_count, s3_credentials

if TYPE_CHECKING:
    from pg_bronze.settings.bucket import S3Connection

# Seconds after which the next run gets a new client.
RENEWED_AFTER_S = 60.0
# When each client was created, and the client, by what it was created from.
_kept: dict[Any, tuple[float, Any]] = {}
_lock = threading.Lock()
# Where the common distributions keep the authorities of the system, for a Python built with another default.
_SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def connect(
    endpoint_url: str | None,
    region: str,
    access_key: str,
    secret_key: str,
    use_ssl: bool = True,
    ca: str | None = None,
    verify: bool = True,
    answer_s: float = 10.0,
    credentials: Any = None,
) -> Any:
    """Return a botocore S3 client with short time limits.

    A request takes at most 2 attempts of 3 s to connect and ``answer_s`` to respond: 20 s for a server that accepts
    connections and never responds. The next tick is the third attempt, and costs less than a run that hangs.

    Args:
        endpoint_url: The address of the server; None for AWS.
        region: The region; ``""`` for the default of botocore.
        access_key: The key id.
        secret_key: The secret key.
        use_ssl: Whether to use TLS if the address has no scheme.
        ca: A file with the authorities of the server's certificate; None for those of the system.
        verify: False disables the verification of certificates.
        answer_s: Seconds until a response must arrive.
        credentials: botocore's credentials instead of the two keys.
    """
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session()
    session.register_component("config_store", _defaults())
    # One session per client, because a session caches keys from files. All share the description of S3.
    session.register_component("data_loader", _data_loader())
    if credentials is not None:
        session.register_component("credential_provider", _Provider(credentials))
    # As in the AWS command line: botocore's own parser takes two thirds of the time of a LIST.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    client = session.create_client(
        "s3",
        endpoint_url=endpoint_url or None,
        region_name=region or None,
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
        use_ssl=use_ssl,
        verify=verify and (ca or _system_authorities() or True),  # True: those of certifi
        config=Config(
            connect_timeout=3,
            read_timeout=answer_s,
            retries={"total_max_attempts": 2, "mode": "standard"},
            max_pool_connections=16,
            # A self-hosted server usually has no host name per bucket.
            s3={"addressing_style": "path"} if endpoint_url else {},
            # With None, botocore would use the proxies of the environment.
            proxies={},
            ignore_configured_endpoint_urls=True,
        ),
    )
    client.meta.events.register("before-call.s3", _stay_in_region)
    request_count.watch(client)
    return client


def connect_to(connection: "S3Connection") -> Any:
    """Return a client for the server of the settings."""
    permanent = connection.source == "keys" and not connection.session_token.get_secret_value()
    return connect(
        connection.endpoint_url,
        connection.region,
        connection.access_key.get_secret_value() if permanent else "",
        connection.secret_key.get_secret_value() if permanent else "",
        use_ssl=connection.use_ssl,
        ca=connection.ca,
        verify=connection.verify,
        credentials=None if permanent else s3_credentials.for_botocore(connection),
    )


def shared(connection: "S3Connection", now: Callable[[], float] = time.monotonic) -> Any:
    """Return a client for the server of the settings, which the runs of this process share for a minute.

    Creating a client takes 25 ms, and its first request connects. The credentials are those of each request, but keys
    of the settings belong to the client: other keys have another client, and so has a file of authorities that was
    replaced. After a minute there is a new one, for three reasons. botocore limits the retries of each client, and
    after an outage none are left. The server may have another address. A firewall may have dropped idle connections.

    Args:
        now: The seconds of a monotonic clock.
    """
    file = Path(connection.ca or _system_authorities() or "")
    found = file.stat() if file.is_file() else None
    key = (connection, found and (found.st_ino, found.st_mtime_ns))
    with _lock:
        for other in [other for other, (made_at, _) in _kept.items() if now() - made_at >= RENEWED_AFTER_S]:
            del _kept[other]
        if key not in _kept:
            _kept[key] = now(), connect_to(connection)
        return _kept[key][1]


class _Provider:
    """The chain of a session of botocore, replaced by credentials that are known."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        return self._credentials


def _defaults() -> Any:
    """Return botocore's default for each of its settings, without environment and files."""
    from botocore import configprovider

    variables = configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
    ignored = dict.fromkeys(("config_file", "credentials_file"))
    values = {name: default for name, (_, _, default, _) in variables.items()} | ignored
    return configprovider.ConfigValueStore(
        {name: configprovider.ConstantProvider(value) for name, value in values.items()}
    )


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    """Return errors about the region. botocore would sign again for another region, which Polars cannot do."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _system_authorities() -> str | None:
    """Return the file of authorities that Polars uses too; None on a system without one."""
    found = ssl.get_default_verify_paths().cafile  # honors SSL_CERT_FILE
    return found or next((file for file in _SYSTEM_AUTHORITIES if Path(file).is_file()), None)


@functools.cache
def _data_loader() -> Any:
    """Return botocore's description of S3, read once per process: four fifths of the time to create a client."""
    from botocore.loaders import Loader

    class OfS3(Loader):  # type: ignore[misc]  # botocore has no types
        def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002  (the parameter of botocore)
            # botocore looks into the folders of its four hundred services, twice: a third of the time.
            return ["s3"]

    # Not from ~/.aws/models or AWS_DATA_PATH.
    return OfS3([Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


def _timestamp(value: Any) -> datetime:
    """Parse a time of a listing, a hundred times faster than botocore; other forms are left to botocore."""
    from botocore.utils import parse_timestamp

    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = parse_timestamp(value)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
