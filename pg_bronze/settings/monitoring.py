"""Monitoring: where alerts are sent, and the format of log lines."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from pg_bronze.settings.section import Section


class MonitoringSettings(Section):
    """What people and programs that watch pg_bronze receive."""

    alert_url: SecretStr | None = Field(
        default=None,
        description="`http://` or `https://` URL to which `pg-bronze monitor` sends alerts as JSON, such as an "
        "incoming webhook of Slack. Never logged.",
    )
    log: Literal["text", "json"] = Field(
        default="text",
        description="Format of the lines that `pg-bronze tick`, `run` and `monitor` print: `text`, or `json` for one "
        "object per line.",
    )

    @field_validator("alert_url")
    @classmethod
    def _validate_alert_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_web_url(value.get_secret_value()):
            raise ValueError(
                "it must be http://host/path or https://host/path without user, with special characters percent-encoded"
            )
        return value


def _is_web_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    # A fragment and a user are not sent, and an HTTP client rejects everything but printable ASCII.
    plain = re.fullmatch(r"[!-~]+", text) is not None and not parts.fragment and "@" not in parts.netloc
    host = parts.hostname or ""
    named = ":" in host or (len(host) <= 255 and all(re.fullmatch(r"[\w-]{1,63}", part) for part in host.split(".")))
    return plain and named and parts.scheme in ("http", "https") and port != 0
