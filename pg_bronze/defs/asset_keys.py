"""Partitions and keys: how tables and ingestion days are called in Dagster."""

import re
from datetime import UTC, date, datetime
from itertools import chain, zip_longest

import dagster as dg

from pg_bronze.core.table import SourceTable

_WORD = re.compile(r"[A-Za-z0-9]+")
_PLAIN = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_CODE = re.compile(r"0|([0-9A-F]{2})+")


def daily(first_day: date) -> dg.DailyPartitionsDefinition:
    """Partitions by ingestion day in UTC, today included."""
    return dg.DailyPartitionsDefinition(
        start_date=datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC), end_offset=1, timezone="UTC"
    )


def _part(name: str) -> str:
    """A name as part of a key, which may hold letters, digits and single underscores between them.

    ``año 2026`` becomes ``a_o_2026_x0_C3B1_20_0``: its letters and digits, then ``x`` and what stood before, between
    and behind them, as UTF-8 in hexadecimal, 0 for nothing. Doubled underscores are not plain either: Dagster joins
    the parts of a key with them to name the op.
    """
    if _PLAIN.fullmatch(name) and _taken_apart(name) is None:
        return name
    codes = [between.encode().hex().upper() or "0" for between in _WORD.split(name)]
    return "_".join([*_WORD.findall(name), f"x{codes[0]}", *codes[1:]])


def _taken_apart(part: str) -> str | None:
    """The name that ``_part`` took apart; None for one that it left alone."""
    tokens = part.split("_")
    count = len(tokens) // 2
    words, codes = tokens[:count], tokens[count:]
    if len(codes) != count + 1 or not codes[0].startswith("x"):
        return None
    codes[0] = codes[0][1:]
    if not all(_CODE.fullmatch(code) for code in codes):
        return None
    try:
        separators = ["" if code == "0" else bytes.fromhex(code).decode() for code in codes]
    except UnicodeDecodeError:
        return None
    return "".join(chain.from_iterable(zip_longest(separators, words, fillvalue="")))


def name_of(part: str) -> str:
    """The name that a part of a key stands for: the inverse of what keys are made with."""
    apart = _taken_apart(part)
    return part if apart is None else apart


def bronze_key(table: SourceTable) -> dg.AssetKey:
    """``bronze/movie``, or ``bronze/sales/movie`` outside ``public``."""
    return dg.AssetKey(["bronze", *_path(table)])


def latest_key(table: SourceTable) -> dg.AssetKey:
    """``silver/movie_latest``: the newest row versions of a table."""
    *above, name = _path(table)
    return dg.AssetKey(["silver", *above, f"{name}_latest"])


def table_of(key: dg.AssetKey) -> tuple[str, str]:
    """``(schema, name)`` of a bronze asset's table: the inverse of ``bronze_key``."""
    _, *path = key.path
    *schema, name = (name_of(part) for part in path)
    return (schema[0] if schema else "public", name)


def source_key(table: SourceTable, database: str) -> dg.AssetKey:
    """``postgres/cine/movie``: the source table a bronze asset is made from."""
    return dg.AssetKey(["postgres", _part(database), *_path(table)])


def pool(table: SourceTable) -> str:
    """The pool that keeps runs of one table apart."""
    # Doubled, as between the parts of an op's name: sales.movie and sales_movie are two tables.
    return "__".join(["pg_bronze", *_path(table)])


def _path(table: SourceTable) -> list[str]:
    return [_part(table.name)] if table.schema == "public" else [_part(table.schema), _part(table.name)]
