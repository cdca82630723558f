"""Choices: the values of settings that accept a fixed set of words.

Kept apart from the models because ``core`` imports them and must not import pydantic.
"""

from typing import Literal, NamedTuple

Compression = Literal["zstd", "snappy", "gzip", "lz4", "uncompressed"]
Layout = Literal["flat", "date"]
ReaderName = Literal["auto", "connectorx", "copy"]
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
Takeover = Literal["adopt-seed", "fresh"]
Bands = Literal["auto", "off"]
Untracked = Literal["sweep", "skip"]
Infinity = Literal["sentinel", "text", "null", "error"]
LateDates = Literal["error", "text", "null"]
Nan = Literal["error", "text", "null"]
Severity = Literal["error", "warn"]


class Mask(NamedTuple):
    """What is stored instead of the values of a column.

    Attributes:
        kind: ``null`` stores NULL, ``sha256`` the hash of each value, ``fixed`` the same value in every row.
        value: The text of the fixed value.
    """

    kind: Literal["null", "sha256", "fixed"]
    value: str | None = None
