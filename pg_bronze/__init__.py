"""Copies PostgreSQL tables incrementally and exactly into Parquet objects on MinIO or any S3 bucket."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pg_bronze.defs.component import BronzeTables as BronzeTables
    from pg_bronze.lake.reading.scan import scan as scan

__version__ = "0.1.0"
__all__ = ["BronzeTables", "__version__", "scan"]


def __getattr__(name: str) -> Any:
    # Imported on first use: every Dagster process imports this package, and the reader takes 0.17 CPU seconds.
    if name == "scan":
        from pg_bronze.lake.reading.scan import scan

        return scan
    if name == "BronzeTables":
        from pg_bronze.defs.component import BronzeTables

        return BronzeTables
    raise AttributeError(f"module 'pg_bronze' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
