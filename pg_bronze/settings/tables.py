"""Tables: which tables are copied, and the options that may differ between them."""

import datetime
import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from pg_bronze.settings.choices import Bands, Takeover, Untracked
from pg_bronze.settings.section import Section
from pg_bronze.settings.table_options import TableOptions
from pg_bronze.settings.text_formats import comma_separated, parse_json, shell_patterns

# Dagster lists the days since then in a second.
_FIRST_DAY = datetime.date(1970, 1, 1)


class TableSettings(Section):
    """Which tables are copied, and the options per table."""

    name: str | None = Field(
        default=None,
        description="Name of the source database in Dagster, such as `shop`, if several are copied with one Dagster "
        "instance: part of asset keys (`bronze/shop/movie`) and of the names of groups, pools, sensors and jobs. "
        "At most 30 lower-case letters, digits and single underscores. Not set: none of them has a name.",
    )
    include: tuple[str, ...] = Field(
        default=(),
        description="Tables to copy: comma-separated list of shell patterns. A table is named `movie`, or "
        "`sales.movie` outside the schema `public`; `*` also matches dots. Not set: all tables.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Tables not to copy: comma-separated list of shell patterns. Overrides `PG_BRONZE_INCLUDE`.",
    )
    cursor_names: tuple[str, ...] = Field(
        default=("created_at", "updated_at", "timestamp", "fecha", "date", "datetime"),
        description="Names of date or timestamp columns to use as the cursor column; the first match is used. "
        "Comma-separated or JSON list, replaces the default; `[]` disables the search by name.",
    )
    untracked: Untracked = Field(
        default="sweep", description="Tables without a cursor column: `sweep` copies them, `skip` does not."
    )
    bands: Bands = Field(
        default="auto",
        description="Large tables: `auto` reads their newest rows in every tick and sweeps the others as often as a "
        "budget of 1 % allows, `off` reads each table completely in every tick.",
    )
    tables: dict[str, TableOptions] = Field(
        default_factory=dict,
        description="Options per table as a JSON object, such as "
        '`{"movie": {"cursor_column": "updated_at", "slice_rows": 5000}}`. The options are those of '
        "[`pg_bronze.toml`](#the-file-pg_bronzetoml), and take precedence over it.",
    )
    config: Path | None = Field(
        default=None,
        description="File with options per table. Not set: `pg_bronze.toml` in the folder of `.env`, if it exists.",
    )
    takeover: Takeover | None = Field(
        default=None,
        description="Objects and `etl_control` rows of the original system: `adopt-seed` continues after them, `fresh` "
        "copies every table from the start. Not set: such a table fails until this is set.",
    )
    latest: tuple[str, ...] = Field(
        default=(),
        description="Tables, as a comma-separated list, that get a downstream asset `silver/<table>_latest`: one "
        "Parquet object with the newest version of each row, rewritten after new rows, at most every five minutes. A "
        "primary key is required.",
    )
    forget_after_h: float = Field(
        default=24.0,
        gt=0,
        le=87600,
        description="Hours for which a table that was dropped or renamed stays an asset that fails its check.",
    )
    drift_warn_h: float = Field(
        default=24.0,
        ge=0,
        le=87600,
        description="Hours for which the check `drift` of a table warns after its columns changed; 0: no such check.",
    )
    start_date: datetime.date | None = Field(
        default=None,
        description="First daily partition, `YYYY-MM-DD` (UTC), from 1970-01-01 to today. Not set: the day of "
        "the first start.",
    )

    @field_validator("cursor_names", mode="before")
    @classmethod
    def _parse_names(cls, value: object) -> object:
        if not isinstance(value, str) or not value.startswith("["):
            return comma_separated(value)
        names = parse_json(value)
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ValueError('a JSON list must contain column names, such as ["created_at", "fecha"]')
        return tuple(names)

    @field_validator("name")
    @classmethod
    def _validate_name(cls, value: str | None) -> str | None:
        if value is not None and (len(value) > 30 or not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", value)):
            raise ValueError(
                "it must have at most 30 lower-case letters, digits and single underscores, beginning with a letter"
            )
        return value

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _parse_patterns(cls, value: object) -> object:
        return shell_patterns(value)

    @field_validator("latest", mode="before")
    @classmethod
    def _parse_list(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("include", "exclude", "latest", "tables")
    @classmethod
    def _validate_labels(cls, value: Any) -> Any:
        for label in value:
            if label.startswith("public."):
                name = label.removeprefix("public.")
                raise ValueError(f"tables of the schema public are named without it: {name}")
        return value

    @field_validator("start_date", mode="before")
    @classmethod
    def _parse_date(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # pydantic alone reads 20260102 as seconds since 1970, and fromisoformat alone accepts it as a day.
        try:
            day = datetime.date.fromisoformat(value)
        except ValueError:
            day = None
        if day is None or day.isoformat() != value:
            raise ValueError("it must be a date as YYYY-MM-DD")
        if day < _FIRST_DAY:
            raise ValueError(f"it must be at least {_FIRST_DAY}")
        return day

    @field_validator("tables", mode="before")
    @classmethod
    def _parse_tables(cls, value: object) -> object:
        tables = parse_json(value) if isinstance(value, str) else value
        if not isinstance(tables, dict):
            raise ValueError('it must be a JSON object with options per table, such as {"movie": {"slice_rows": 5000}}')
        return tables

    def unmatched(self, labels: Collection[str]) -> list[str]:
        """Return the patterns of ``PG_BRONZE_INCLUDE`` that match no table, such as a name with a typing error."""
        return [pattern for pattern in self.include if not any(fnmatchcase(label, pattern) for label in labels)]

    def wants(self, label: str) -> bool:
        """Return whether ``PG_BRONZE_INCLUDE`` and ``PG_BRONZE_EXCLUDE`` select the table."""
        if any(fnmatchcase(label, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(label, pattern) for pattern in self.include)
