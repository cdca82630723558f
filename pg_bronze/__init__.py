"""Copies PostgreSQL tables incrementally and exactly into Parquet objects on MinIO or any S3 bucket."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pg_bronze.lake.reading.scan import scan as scan

__version__ = "0.1.0"
__all__ = ["__version__", "scan"]


def __getattr__(name: str) -> Any:
    # Every Dagster process imports this package first, and none of them needs to wait for what reads.
    if name == "scan":
        from pg_bronze.lake.reading.scan import scan

        return scan
    raise AttributeError(f"module 'pg_bronze' has no attribute {name!r}")
