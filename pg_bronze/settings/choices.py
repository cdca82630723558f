"""Choices: the values of settings that accept a fixed set of words.

Kept apart from the models because ``core`` imports them and must not import pydantic.
"""

from typing import Literal

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
