"""The width of rows: how many bytes a row takes at least, and the SQL that measures it.

Belongs here: what the type of a column reveals about the size of its values. Does not belong here: the limits that
these bytes are compared with (``slice_size``) and the queries that add them up (``window_sql``).
"""

from collections.abc import Sequence

from pg_bronze.core.column_types import rule
from pg_bronze.core.table import Column, quote

_FIXED_BYTES = {
    "bool": 1, "int2": 2, "int4": 4, "oid": 4, "float4": 4, "date": 4, "int8": 8, "float8": 8, "timestamp": 8,
    "timestamptz": 8, "time": 8, "timetz": 12, "interval": 16, "uuid": 16, "money": 8, "macaddr": 6, "macaddr8": 8,
    "point": 16, "lseg": 32, "box": 32, "line": 24, "circle": 24, "name": 64, "char": 1, "xid": 4, "xid8": 8, "cid": 4,
    "tid": 6, "pg_lsn": 8,
}  # fmt: skip
_SHORT_TYPMOD = 64
_HASH_BYTES = 64  # in hexadecimal digits


def min_row_bytes(columns: Sequence[Column]) -> int:
    """Return the bytes that one row takes at least, in a frame or in transfer, even if all columns are NULL."""
    return sum(4 + _fixed_bytes(column) for column in columns)


def _fixed_bytes(column: Column) -> int:
    if column.mask:
        return _HASH_BYTES if column.mask.kind == "sha256" else 0
    return _FIXED_BYTES.get(column.base, 12)


def width_expressions(columns: Sequence[Column]) -> list[str]:
    """Return the SQL for the number of bytes of each column that has no fixed or small width; NULL for NULL."""
    return [_width_expression(column) for column in columns if not _is_narrow(column)]


def _is_narrow(column: Column) -> bool:
    if column.mask:
        return True
    if column.base in {"varchar", "bpchar"}:
        return 0 <= column.typmod - 4 <= _SHORT_TYPMOD
    return column.base in _FIXED_BYTES or (column.base == "numeric" and column.typmod >= 0)


def _width_expression(column: Column) -> str:
    name = f"t.{quote(column.name)}"
    if column.base in {"text", "varchar", "bpchar", "bytea"}:
        return f"pg_catalog.octet_length({name})"  # does not fetch or decompress the value
    return f"pg_catalog.octet_length({rule(column).expression.format(c=name)})"
