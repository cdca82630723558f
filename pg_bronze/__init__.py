"""Copies PostgreSQL tables incrementally and exactly into Parquet objects on MinIO or any S3 bucket."""

__version__ = "0.1.0"
