"""TODO lake.s3_client."""

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
    """A botocore S3 client that gives up soon enough for a tick.

    It takes 3 s to connect, ``answer_s`` for an answer, and 2 attempts.

    A server that takes connections and never answers is given up after 20 s. The next tick is a third attempt, and
    costs less than a run that hangs.
    """
    import botocore.session
    from botocore.config import Config

    # Everything is given here: an AWS_PROFILE that this machine does not know would be an error all the same.
    session = botocore.session.Session(session_vars={"profile": (None, [], None, None)})
    # A session each, because it keeps keys that it finds in files; what it knows of S3 is the same in all.
    session.register_component("data_loader", _data_loader())
    # As the AWS command line does: botocore's own parser takes two thirds of the time of a LIST.
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
            # A bucket name in front of the host cannot be resolved on a server of one's own.
            s3={"addressing_style": "path"} if endpoint_url else {},
        ),
    )


@functools.cache
def _data_loader() -> Any:
    """Botocore's description of S3, read once a process: that takes four times as long as the rest of a client."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _timestamp(value: Any) -> datetime:
    """A time as S3 writes it in a listing, read a hundred times faster; every other form as botocore reads it."""
    from botocore.utils import parse_timestamp

    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        found = parse_timestamp(value)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
