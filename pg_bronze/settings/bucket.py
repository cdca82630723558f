"""Bucket: the S3 server, its keys, and the prefix of every object key."""

import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from pg_bronze.settings.section import Section
from pg_bronze.settings.text_formats import server_url

_PREFIX_MAX_BYTES = 400
_NO_TOKEN = SecretStr("")
CredentialSource = Literal["keys", "aws"]


@dataclass(frozen=True)
class S3Connection:
    """How to connect to the S3 server.

    Attributes:
        ca: A file with the authorities of the server's certificate; None for the system's.
        verify: The server's certificate is checked.
        session_token: The token of temporary keys; empty for permanent ones.
        source: ``keys`` are the two keys and the token. With ``aws``, these are empty, and botocore finds others.
        profile: The profile that botocore takes them from, with ``aws``; empty for all of its sources.
        is_chosen: A setting names the server, or where its credentials come from.
    """

    endpoint_url: str
    access_key: SecretStr
    secret_key: SecretStr
    region: str
    use_ssl: bool
    ca: str | None = None
    verify: bool = True
    session_token: SecretStr = _NO_TOKEN
    source: CredentialSource = "keys"
    profile: str = ""
    is_chosen: bool = True

    @property
    def credentials_name(self) -> str:
        """What the credentials are, for messages: the settings, or the source that botocore asks."""
        if self.profile:
            return f"profile {self.profile!r} (MINIO_PROFILE)"
        if self.source == "aws":
            return "AWS (MINIO_CREDENTIALS=aws)" if self.is_chosen else "AWS (because no S3 server is set)"
        if self.session_token.get_secret_value():
            return "MINIO_ACCESS_KEY, MINIO_SECRET_KEY and MINIO_SESSION_TOKEN (or MINIO_ALIAS)"
        return "MINIO_ACCESS_KEY and MINIO_SECRET_KEY (or MINIO_ALIAS)"


class BucketSettings(Section):
    """The bucket that the objects are written to."""

    minio_bucket: str = Field(description="Bucket to write to. S3's naming rules apply.")
    minio_alias: str | None = Field(
        default=None,
        description="Alias created with `mc alias set`. It replaces the next four settings: server and keys are read "
        "from `MC_HOST_<alias>`, otherwise from `config.json` in `MC_CONFIG_DIR` (default: `~/.mc`).",
    )
    minio_endpoint: str = Field(
        default="",
        description="`http://` or `https://` URL of the server, without a path; `host:port` means `http://`. AWS: "
        "`https://s3.<region>.amazonaws.com`, which is the default without keys.",
    )
    minio_access_key: SecretStr = Field(default=SecretStr(""), description="Access key. Never logged.")
    minio_secret_key: SecretStr = Field(default=SecretStr(""), description="Secret key. Never logged.")
    minio_session_token: SecretStr = Field(
        default=SecretStr(""),
        description="Session token that belongs to temporary keys. They are not renewed: with `MINIO_PROFILE` or "
        "`MINIO_CREDENTIALS=aws` they are. Never logged.",
    )
    minio_credentials: CredentialSource | None = Field(
        default=None,
        description="`keys`: the keys above or of the alias. `aws`: [found as by other programs for "
        "AWS](operations.md#credentials): `AWS_*` variables, web identity, `~/.aws`, container or instance. Not set: "
        "`aws` if neither keys nor an alias are set and the server is AWS, otherwise `keys`.",
    )
    minio_profile: str | None = Field(
        default=None,
        description="Profile of `~/.aws/config` and `~/.aws/credentials` that the credentials are taken from, also by "
        "`credential_process`. Server and region are those of the settings.",
    )
    minio_region: str = Field(default="us-east-1", min_length=1, description="Region for which requests are signed.")
    minio_ca: Path | None = Field(
        default=None,
        description="PEM file with the certificate of the private authority that signed the server's certificate. "
        "Default: the authorities of the system, or of `SSL_CERT_FILE`.",
    )
    prefix: str = Field(
        default="",
        description="Folders before every object key, such as `shop/eu`, to store several databases in one bucket. "
        "Letters, digits and `_ . = -`; leading and trailing slashes are removed.",
    )
    unfenced: bool = Field(
        default=False,
        description="`true` accepts a bucket that ignores `If-None-Match`. Concurrent writers may then duplicate rows.",
    )

    @field_validator("minio_bucket")
    @classmethod
    def _validate_bucket(cls, value: str) -> str:
        reserved = value.startswith(("xn--", "sthree-")) or value.endswith(("-s3alias", "--ol-s3"))
        if (
            not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value)
            or ".." in value
            or reserved
            or _is_address(value)
        ):
            raise ValueError(
                "a bucket name must have 3 to 63 lower-case letters, digits, hyphens and single dots, begin and end "
                "with a letter or digit, and must not be an IP address or have a prefix or suffix reserved by S3"
            )
        return value

    @field_validator("minio_endpoint")
    @classmethod
    def _validate_endpoint(cls, value: str) -> str:
        return server_url(value)

    @field_validator("minio_access_key", "minio_secret_key", "minio_session_token")
    @classmethod
    def _validate_key(cls, value: SecretStr) -> SecretStr:
        # With a line break in a key, an HTTP library raises "invalid header" and quotes the key.
        if not value.get_secret_value().isprintable() or " " in value.get_secret_value():
            raise ValueError("it must not contain spaces, line breaks or control characters")
        return value

    @field_validator("minio_region")
    @classmethod
    def _validate_region(cls, value: str) -> str:
        # As in botocore, which would otherwise raise its error in every tick.
        if not re.fullmatch(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)", value):
            raise ValueError("it must consist of letters, digits and hyphens, such as us-east-1")
        return value

    @field_validator("minio_ca")
    @classmethod
    def _validate_ca(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=str(value))
            except ssl.SSLError:
                raise ValueError("it must be a file of certificates in PEM format") from None
            except OSError:
                pass  # a missing file is reported when the settings are loaded
        return value

    @field_validator("prefix")
    @classmethod
    def _validate_prefix(cls, value: str) -> str:
        value = value.strip("/")
        for folder in value.split("/") if value else ():
            if folder in ("", ".", "..") or not all(c.isalnum() or c in "_.=-" for c in folder):
                raise ValueError("folders must consist of letters, digits and _ . = - with one slash between them")
            if folder.startswith("_pg_bronze"):
                raise ValueError("folders that begin with _pg_bronze are reserved for claims and old generations")
        if len(value.encode()) > _PREFIX_MAX_BYTES:
            raise ValueError(f"it must have at most {_PREFIX_MAX_BYTES} bytes, because S3 limits the length of keys")
        return value

    @property
    def credential_source(self) -> CredentialSource:
        """Where the credentials come from: the setting, or AWS if there are no keys and the server is one of AWS."""
        if self.minio_profile:
            return "aws"
        no_keys = not self.minio_access_key.get_secret_value()
        of_aws = no_keys and (not self.minio_endpoint or is_aws(self.minio_endpoint))
        return self.minio_credentials or ("aws" if of_aws else "keys")

    @property
    def s3(self) -> S3Connection:
        """The connection to the S3 server."""
        endpoint_url = self.minio_endpoint or _aws_url(self.minio_region)
        return S3Connection(
            endpoint_url=endpoint_url,
            access_key=self.minio_access_key,
            secret_key=self.minio_secret_key,
            region=self.minio_region,
            use_ssl=endpoint_url.startswith("https://"),
            ca=str(self.minio_ca) if self.minio_ca else None,
            session_token=self.minio_session_token,
            source=self.credential_source,
            profile=self.minio_profile or "",
            is_chosen=bool(self.minio_endpoint or self.minio_profile or self.minio_credentials),
        )


def is_aws(endpoint_url: str) -> bool:
    """Return whether a URL names a server of AWS."""
    try:
        host = urlsplit(endpoint_url).hostname or ""
    except ValueError:
        return False  # the setting is reported as invalid
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _aws_url(region: str) -> str:
    # Explicit, because Polars would otherwise take the server from AWS_ENDPOINT_URL.
    return f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _is_address(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True
