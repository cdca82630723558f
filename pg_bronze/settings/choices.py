"""TODO settings.choices."""

from typing import Literal

Compression = Literal["zstd", "snappy", "gzip", "lz4", "uncompressed"]
ReaderName = Literal["auto", "connectorx", "copy"]
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
Takeover = Literal["adopt-seed", "fresh"]
Untracked = Literal["sweep", "skip"]
Infinity = Literal["sentinel", "text", "null", "error"]
LateDates = Literal["error", "text", "null"]
Nan = Literal["error", "text", "null"]
