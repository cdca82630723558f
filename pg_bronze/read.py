"""Reading: the slices of one table as one Polars LazyFrame."""

from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING, Any

from pg_bronze.layout import Layout
from pg_bronze.store import Store

if TYPE_CHECKING:
    import polars as pl


def keys(store: Store, layout: Layout, days: Collection[date] | None = None) -> list[str]:
    """The object keys of a table's slices, oldest first; of the given UTC days only, if any are given."""
    found = []
    for prefix, _ in layout.listings(None):
        for item in store.list(prefix):
            time = layout.time(item.key)
            if time is not None and (days is None or time.date() in days):
                found.append((time, item.key))
    return [key for _, key in sorted(found)]


def frame(store: Store, object_keys: Collection[str], storage_options: dict[str, Any]) -> "pl.LazyFrame":
    """The slices as one LazyFrame; columns that only some of them have are filled with NULL.

    Without any object the frame has no column.
    """
    import polars as pl

    if not object_keys:
        return pl.LazyFrame()
    # Objects of one table may differ by added and dropped columns; each is scanned with its own schema.
    uris = [store.uri(key) for key in object_keys]
    return pl.concat([pl.scan_parquet(uri, storage_options=storage_options) for uri in uris], how="diagonal_relaxed")


def storage_options(endpoint_url: str | None, region: str, access_key: str, secret_key: str) -> dict[str, Any]:
    """Connection settings as Polars' own S3 reader wants them."""
    options = {"aws_region": region, "aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
    if endpoint_url:
        options["aws_endpoint_url"] = endpoint_url
        options["aws_allow_http"] = "true" if endpoint_url.startswith("http://") else "false"
    return options
