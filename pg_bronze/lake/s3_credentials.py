"""S3 credentials: the keys that sign the next request.

They are those of the settings, or those that botocore finds: in ``AWS_*`` variables, in a profile, by a web identity,
or from the metadata of a container or an instance. The latter expire, so each request asks for the current ones. All
clients of a process share them, because finding them takes requests to other servers.
"""

import functools
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pg_bronze.errors import AccessDenied, PgBronzeError, StoreUnavailable
from pg_bronze.lake import credential_process
from pg_bronze.settings import commands

if TYPE_CHECKING:
    from pg_bronze.settings.bucket import S3Connection

# Keys without an expiry, as in a file: another program may have replaced them.
FOUND_S = 300.0
# How long Polars uses keys without asking again. botocore renews keys ten minutes before they expire.
POLARS_S = 60
_ASKED = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE, ~/.aws, and the metadata "
    "of the container and of the instance"
)


class Keys(NamedTuple):
    """The keys for one request. Never log them. ``token`` is empty for permanent keys."""

    access_key: str
    secret_key: str
    token: str

    def __repr__(self) -> str:
        return "Keys(…)"


class FoundCredentials:
    """What botocore finds for a profile, or from all of its sources. Safe to use from several threads.

    Args:
        profile: The name of the profile; empty for all sources.
        find: Returns botocore's credentials, or None if there are none.
        now: The seconds of a monotonic clock.
    """

    def __init__(self, profile: str, find: Callable[[str], Any], now: Callable[[], float] = time.monotonic) -> None:
        self._profile = profile
        self._find = find
        self._now = now
        self._lock = threading.Lock()
        self._found: Any = None
        self._found_at = 0.0

    def keys(self, name: str) -> Keys:
        """Return the current keys.

        Args:
            name: What the credentials are, for messages.

        Raises:
            AccessDenied: There are none. Retried after the fix.
            StoreUnavailable: Their source does not answer, or refuses them. Retried at the next tick.
        """
        try:
            # Not within the lock of botocore's credentials, which renew themselves in one thread.
            frozen = self._current(name).get_frozen_credentials()
        except PgBronzeError:
            raise
        except Exception as error:  # noqa: BLE001  (of botocore, of an HTTP library, or of a file)
            # Without its text and cause: the output of a credential_process is in it.
            raise _not_found(error, name) from None
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "")

    def forget(self) -> None:
        """Find credentials again for the next request, because the server rejected these."""
        with self._lock:
            self._found = None

    def _current(self, name: str) -> Any:
        with self._lock:
            is_old = self._now() - self._found_at >= FOUND_S
            if self._found is None or (is_old and not hasattr(self._found, "refresh_needed")):
                self._found = self._find(self._profile)
                self._found_at = self._now()
            if self._found is None:
                asked = f"in {name}" if self._profile else f"for {name}; asked were {_ASKED}"
                raise AccessDenied(
                    f"no credentials for the bucket were found {asked}. Provide them there, or set MINIO_ENDPOINT, "
                    "MINIO_ACCESS_KEY and MINIO_SECRET_KEY, or MINIO_ALIAS. It is retried after the fix."
                )
            return self._found


@functools.cache
def _shared(profile: str) -> FoundCredentials:
    return FoundCredentials(profile, _find)


def current(connection: "S3Connection") -> Keys:
    """Return the keys for the next request; see ``FoundCredentials.keys``."""
    if connection.source == "aws":
        return _shared(connection.profile).keys(connection.credentials_name)
    secrets = (connection.access_key, connection.secret_key, connection.session_token)
    return Keys(*(secret.get_secret_value() for secret in secrets))


def forget(connection: "S3Connection") -> None:
    """Find credentials again for the next request; does nothing for keys of the settings."""
    if connection.source == "aws":
        _shared(connection.profile).forget()


def for_botocore(connection: "S3Connection") -> Any:
    """Return credentials for a client of botocore, which have the current keys for each request."""
    from botocore.credentials import Credentials, ReadOnlyCredentials

    class Current(Credentials):  # type: ignore[misc]  # botocore has no types
        def get_frozen_credentials(self) -> Any:
            keys = current(connection)
            return ReadOnlyCredentials(keys.access_key, keys.secret_key, keys.token or None)

    return Current("", "")


def _find(profile: str) -> Any:
    """Return what botocore's own chain finds now, with its files and variables; None if it finds nothing."""
    import botocore.session
    from botocore.config import Config

    _without_causes()
    session = botocore.session.Session(profile=profile or None)
    # For the requests to STS and SSO; the metadata of a container or an instance has shorter limits.
    limits = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"})
    session.set_default_client_config(limits)
    credential_process.limit(session)
    return session.get_credentials()


def _not_found(error: Exception, name: str) -> PgBronzeError:
    kind = type(error).__name__
    if kind == "ProfileNotFound":
        return AccessDenied(
            f"the bucket's credentials come from {name}, and there is no such profile in ~/.aws/config and "
            "~/.aws/credentials, or in the files of AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE. Correct "
            "MINIO_PROFILE or AWS_PROFILE, or add the profile. It is retried after the fix."
        )
    if isinstance(error, subprocess.TimeoutExpired):
        return StoreUnavailable(
            f"the bucket's credentials come from {name}, whose credential_process did not end within "
            f"{commands.LIMIT_S:g} s and was ended. Run it as this user, without a terminal, to see why. It is retried "
            f"after {credential_process.PAUSE_S:g} s."
        )
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return StoreUnavailable(
        f"the bucket's credentials could not be read or renewed from {name} ({code or kind}). Check this source, as "
        "with `aws sts get-caller-identity`. It is retried at the next tick."
    )


@functools.cache
def _without_causes() -> None:
    """Remove the causes from the warnings of botocore: the output of a credential_process would be in the log."""
    logging.getLogger("botocore.credentials").addFilter(_without_cause)


def _without_cause(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True
