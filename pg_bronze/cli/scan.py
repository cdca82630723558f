"""`pg-bronze scan`: the first copied rows of a table. Rows are printed on standard output only, and never logged."""

import math
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pg_bronze.cli.instance import enter_project
from pg_bronze.cli.tables import print_table
from pg_bronze.cli.terminal import terminal

if TYPE_CHECKING:
    import polars as pl


def run_scan(table: str, row_count: int, latest: bool, as_json: bool) -> None:
    """Print the first rows of a table, of each key the newest version if ``latest``."""
    from pg_bronze.lake.reading.scan import scan
    from pg_bronze.settings.process import tune_process

    tune_process()
    enter_project()  # which holds .env
    frame = scan(table, versions="latest" if latest else "all").head(row_count).collect()
    if as_json:
        terminal.document(document(table, frame))
        return
    numbers = {place for place, dtype in enumerate(frame.dtypes) if dtype.is_numeric()}
    print_table(frame.columns, [[_cell(value) for value in row] for row in frame.iter_rows()], numbers)


def document(table: str, frame: "pl.DataFrame") -> dict[str, Any]:
    """Return rows as JSON."""
    types = {name: str(dtype) for name, dtype in frame.schema.items()}
    rows = [{name: json_value(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]
    return {"table": table, "columns": types, "rows": rows}


def json_value(value: Any) -> Any:
    """Return a value of a row as JSON has it: bytes in hexadecimal as PostgreSQL prints them, decimals as text."""
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _cell(value: Any) -> str:
    return "" if value is None else str(json_value(value))
