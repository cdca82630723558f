"""The create-only probe: whether exactly one of several simultaneous writers of a key succeeds.

Two requests in a row do not prove it: RustFS (issue 1659) and VersityGW (issue 2288) refused the second of two
requests, and let both succeed when they were sent at the same time.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from pg_bronze.core.formats import PROBE_FORMAT

WRITERS = 8
# More rounds find a rare failure, but SeaweedFS delays the losers of each by 1 to 4 s. MinIO needs 0.07 s.
MAX_ROUNDS = 3
MAX_SECONDS = 1.0
VALID_FOR = timedelta(days=1)
# As large as a claim.
_BODY_BYTES = 1024
_START_TIMEOUT_S = 10.0


def count_winners(connect: Callable[[], object], create: Callable[[str, bytes], bool], key: str) -> int:
    """Create one key from several threads at the same moment, and return how many of them succeeded.

    Each thread calls ``connect`` first, so that its connection is open and no handshake delays its request.
    """
    barrier = threading.Barrier(WRITERS, timeout=_START_TIMEOUT_S)

    def write(number: int) -> bool:
        connect()
        barrier.wait()
        return create(key, str(number).encode() * _BODY_BYTES)

    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(write, range(WRITERS)))


def record(endpoint: str, now: datetime) -> bytes:
    """Return the text that is stored in the bucket after a successful probe."""
    checked_at = now.isoformat(timespec="seconds")
    return json.dumps({"format": PROBE_FORMAT, "endpoint": endpoint, "checked_at": checked_at}).encode()


def is_valid(text: bytes | None, endpoint: str, now: datetime) -> bool:
    """Return whether a stored record replaces the probe: of the same server, in a known format, less than a day old.

    A copy of the bucket on another server contains the record too, so the endpoint must be the same.
    """
    try:
        data = json.loads(text or b"{}")
        checked_at = datetime.fromisoformat(data["checked_at"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return False
    known = data.get("format", PROBE_FORMAT) == PROBE_FORMAT
    return bool(known and data.get("endpoint") == endpoint and abs(now - checked_at) < VALID_FOR)
