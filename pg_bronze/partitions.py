"""Partitions and keys: how tables and ingestion days are called in Dagster."""

import hashlib
import re
from datetime import UTC, date, datetime

import dagster as dg

from pg_bronze.schema import SourceTable

_PLAIN = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")


def daily(first_day: date) -> dg.DailyPartitionsDefinition:
    """Partitions by ingestion day in UTC, today included."""
    return dg.DailyPartitionsDefinition(
        start_date=datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC), end_offset=1, timezone="UTC"
    )


def _part(name: str) -> str:
    """A name as part of a key; anything Dagster's op names cannot hold is replaced, and a digest keeps names apart.

    Doubled underscores are not plain either: Dagster joins the parts of a key with them to name the op.
    """
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9]+', '_', name).strip('_') or 'table'}_{digest}"


def bronze_key(table: SourceTable) -> dg.AssetKey:
    """``bronze/movie``, or ``bronze/sales/movie`` outside ``public``."""
    return dg.AssetKey(["bronze", *_path(table)])


def latest_key(table: SourceTable) -> dg.AssetKey:
    """``silver/movie_latest``: the newest row versions of a table."""
    *above, name = _path(table)
    return dg.AssetKey(["silver", *above, f"{name}_latest"])


def source_key(table: SourceTable, database: str) -> dg.AssetKey:
    """``postgres/cine/movie``: the source table a bronze asset is made from."""
    return dg.AssetKey(["postgres", _part(database), *_path(table)])


def pool(table: SourceTable) -> str:
    """The pool that keeps runs of one table apart."""
    return "_".join(["pg_bronze", *_path(table)])


def _path(table: SourceTable) -> list[str]:
    return [_part(table.name)] if table.schema == "public" else [_part(table.schema), _part(table.name)]
