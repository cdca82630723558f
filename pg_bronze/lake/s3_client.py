"""The S3 client: botocore, configured so that a tick does not hang and unrelated AWS settings have no effect."""

import functools
from datetime import UTC, datetime
from typing import Any


def connect(
    endpoint_url: str | None,
    region: str,
    access_key: str,
    secret_key: str,
    use_ssl: bool = True,
    verify: bool | str | None = None,
    answer_s: float = 10.0,
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
        verify: False disables the verification of certificates; a path names a file of authorities.
        answer_s: Seconds until a response must arrive.
    """
    import botocore.session
    from botocore.config import Config

    # All settings are arguments. Without this line an unknown AWS_PROFILE in the environment raises an error.
    session = botocore.session.Session(session_vars={"profile": (None, [], None, None)})
    # One session per client, because a session caches keys from files. All share the description of S3.
    session.register_component("data_loader", _data_loader())
    # As in the AWS command line: botocore's own parser takes two thirds of the time of a LIST.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return session.create_client(
        "s3",
        endpoint_url=endpoint_url or None,
        region_name=region or None,
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
        use_ssl=use_ssl,
        verify=verify,
        config=Config(
            connect_timeout=3,
            read_timeout=answer_s,
            retries={"total_max_attempts": 2, "mode": "standard"},
            max_pool_connections=16,
            # A self-hosted server usually has no host name per bucket.
            s3={"addressing_style": "path"} if endpoint_url else {},
        ),
    )


@functools.cache
def _data_loader() -> Any:
    """Return botocore's description of S3, read once per process: four fifths of the time to create a client."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _timestamp(value: Any) -> datetime:
    """Parse a time of a listing, a hundred times faster than botocore; other forms are left to botocore."""
    from botocore.utils import parse_timestamp

    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = parse_timestamp(value)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
