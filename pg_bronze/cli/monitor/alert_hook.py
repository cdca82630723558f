"""The alert hook: sends messages to ``PG_BRONZE_ALERT_URL``. The URL is a secret: it is in no text of this module."""

import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3

from pg_bronze import __version__

# For the connection, the request and the status of the response, in total.
TIME_LIMIT_S = 10.0


class AlertHook:
    """The receiver of alerts.

    Args:
        url: ``PG_BRONZE_ALERT_URL``. The proxy that the environment names for it is used.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        bypassed = urllib.request.proxy_bypass(parts.hostname or "")
        self._pool = urllib3.ProxyManager(proxy) if proxy and not bypassed else urllib3.PoolManager()

    def send(self, message: Mapping[str, Any]) -> str | None:
        """Send one message. Return None, or what was found instead of an acknowledgment, as a noun."""
        try:
            response = self._pool.request(
                "POST",
                self._url,
                json=message,
                headers={"Content-Type": "application/json", "User-Agent": f"pg_bronze/{__version__}"},
                timeout=urllib3.Timeout(total=TIME_LIMIT_S),
                # urllib3 logs the URL with each of its own attempts, and a redirect would send the message elsewhere.
                retries=False,
                # A body is not read: it could arrive one byte at a time.
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return type(error).__name__
        response.close()
        return None if 200 <= response.status < 300 else f"HTTP status {response.status}"
