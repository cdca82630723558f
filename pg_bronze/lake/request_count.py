"""The request count: how many requests the S3 clients of this process sent, by operation, retries included.

Polars reads objects with a client of its own, whose requests are not counted.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

# What servers charge for separately; the others are in `other`.
_NAMES = {
    "PutObject": "put",
    "CopyObject": "copy",
    "GetObject": "get",
    "HeadObject": "head",
    "HeadBucket": "head",
    "ListObjectsV2": "list",
    "ListObjects": "list",
    "DeleteObject": "delete",
    "DeleteObjects": "delete",
}
_lock = threading.Lock()
_counts: Counter[str] = Counter()


def watch(client: Any) -> None:
    """Count the requests of a botocore client from now on: each attempt, before it is sent."""
    client.meta.events.register("before-send.s3", _count)


def _count(event_name: str, **_: Any) -> None:
    with _lock:
        _counts[_NAMES.get(event_name.rpartition(".")[2], "other")] += 1


def current() -> Counter[str]:
    """Return the requests of this process so far, by operation."""
    with _lock:
        return Counter(_counts)


def to_text(counts: Mapping[str, int]) -> str:
    """Return counts as one text, the most frequent operation first: ``put 2, list 1``."""
    return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common() if count)


def from_text(text: str) -> Counter[str]:
    """Return the counts that ``to_text`` wrote; what cannot be one is left out, because a person can edit a tag."""
    pairs = (part.partition(" ") for part in text.split(", "))
    return Counter({name: int(count) for name, _, count in pairs if name and count.isdecimal()})
