"""Table options: what can be set for one table, in ``pg_bronze.toml`` and in ``PG_BRONZE_TABLES``."""

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from pg_bronze.settings.choices import (
    Bands,
    Compression,
    Infinity,
    LateDates,
    Mask,
    Nan,
    Severity,
    Takeover,
    Untracked,
)
from pg_bronze.settings.compression import check_level

SLICE_ROWS_MAX = 1_000_000_000
# A smaller share would sweep a table of 20 MB less often than every hour.
SWEEP_BUDGET_MIN = 0.001
_MASK_FORMS = "it must be 'null', 'sha256' or { value = … } with the fixed value"
_MASK_SCHEMA = {
    "anyOf": [
        {"enum": ["null", "sha256"]},
        {
            "type": "object",
            "properties": {"value": {"type": ["string", "number", "boolean"]}},
            "required": ["value"],
            "additionalProperties": False,
        },
    ]
}
_BYTES_SCHEMA = {"type": ["integer", "string"], "minimum": 64 * 2**10, "maximum": 2**30}
# As Dagster validates owners and tags; test_choices_of_tables.py compares the two.
_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,7}\b")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
# The parts of an asset key, of which Dagster makes the name of an op.
_KEY = r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$"
_PLACEHOLDERS = {"table", "comment", "description"}
_RESERVED = ("dagster/", "pg_bronze/")


def _mask(value: object) -> Mask:
    if isinstance(value, Mask):
        return value
    if value == "null":
        return Mask("null")
    if value == "sha256":
        return Mask("sha256")
    if isinstance(value, Mapping) and set(value) == {"value"} and (text := _fixed_text(value["value"])) is not None:
        return Mask("fixed", text)
    similar = difflib.get_close_matches(value, ["null", "sha256"], n=1) if isinstance(value, str) else []
    raise ValueError(f"{_MASK_FORMS}. Did you mean {similar[0]!r}?" if similar else _MASK_FORMS)


def _fixed_text(value: object) -> str | None:
    """Return the text of a fixed value, as PostgreSQL prints it; None for a value that cannot be one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and "\0" not in value:
        return value
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    return str(value) if isinstance(value, int | float | datetime.date) else None


# TOML and JSON have lists only.
_Names = Annotated[tuple[str, ...], Field(strict=False)]
_Mask = Annotated[Mask, BeforeValidator(_mask), WithJsonSchema(_MASK_SCHEMA)]


class TableOptions(BaseModel):
    """Options of one table. ``Settings.table_options`` returns them with the global values filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)

    cursor_column: str | None = Field(
        default=None, min_length=1, description="Cursor column. Not set: chosen from the columns of the table."
    )
    include_columns: _Names | None = Field(
        default=None,
        description="Columns to copy; not those added to the table later. Not set: all. Must contain the primary key.",
    )
    exclude_columns: _Names = Field(
        default=(), description="Columns not to copy. Overrides `include_columns`; the primary key cannot be excluded."
    )
    masks: dict[str, _Mask] = Field(
        default_factory=dict,
        description='Columns whose values are replaced on the server: `"null"`, `"sha256"` (64 hexadecimal digits), or '
        "`{ value = … }`, the same value in every row.",
    )
    slice_rows: int | None = Field(
        default=None,
        ge=1,
        le=SLICE_ROWS_MAX,
        description="Maximum number of rows in a slice, 1 to 1000000000. Not set: `PG_BRONZE_SLICE_ROWS`.",
    )
    slice_bytes: Annotated[ByteSize, Field(ge=64 * 2**10, le=2**30), WithJsonSchema(_BYTES_SCHEMA)] | None = Field(
        default=None, description="Maximum size of a slice, 64KiB to 1GiB. Not set: `PG_BRONZE_SLICE_BYTES`."
    )
    compression: Compression | None = Field(
        default=None,
        description="Parquet codec: `zstd`, `snappy`, `gzip`, `lz4` or `uncompressed`. Not set: "
        "`PG_BRONZE_COMPRESSION` and its level.",
    )
    compression_level: int | None = Field(
        default=None,
        description="1 to 22 for `zstd`, 0 to 9 for `gzip`; only together with `compression`. Not set: the default of "
        "the codec.",
    )
    infinity: Infinity = Field(
        default="sentinel", description="±infinity in dates and timestamps, as `PG_BRONZE_INFINITY`."
    )
    late_dates: LateDates = Field(
        default="error", description="Dates and timestamps after the year 262142, as `PG_BRONZE_LATE_DATES`."
    )
    nan: Nan = Field(default="error", description="`NaN` in a `numeric` with a precision, as `PG_BRONZE_NAN`.")
    untracked: Untracked = Field(
        default="sweep", description="If the table has no cursor column, as `PG_BRONZE_UNTRACKED`: `sweep` or `skip`."
    )
    takeover: Takeover | None = Field(
        default=None, description="Data of the original system, as `PG_BRONZE_TAKEOVER`: `adopt-seed` or `fresh`."
    )
    bands: Bands = Field(
        default="auto",
        description="Whether a large table is divided into bands, as `PG_BRONZE_BANDS`: `auto` or `off`.",
    )
    sweep_budget: float | None = Field(
        default=None,
        ge=SWEEP_BUDGET_MIN,
        le=1.0,
        strict=False,
        description="Share of time that sweeps of the table may take if it is large, 0.001 to 1. Not set: 0.01, and "
        "all tables without a budget of their own share 0.05.",
    )
    asset_key: str | None = Field(
        default=None,
        pattern=_KEY,
        description="Key of the bronze asset, such as `sales/orders`: letters, digits and underscores, with slashes "
        "between the parts. For one table. Not set: `bronze`, `PG_BRONZE_NAME`, and the name of the table.",
    )
    key_prefix: str | None = Field(
        default=None,
        pattern=_KEY,
        description="First parts of the key of the bronze asset, such as `raw/shop`, instead of `bronze` and "
        "`PG_BRONZE_NAME`. Not for a table with an `asset_key`.",
    )
    group: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="Group of the bronze asset: letters, digits and underscores. Not set: `bronze`, with "
        "`PG_BRONZE_NAME` if that is set.",
    )
    description: str | None = Field(
        default=None,
        min_length=1,
        description="Description of the bronze asset, in Markdown. `{table}` is the name of the table, `{comment}` its "
        "comment, and `{description}` the description that it has without this option.",
    )
    lag_target_s: float | None = Field(
        default=None,
        ge=10,
        le=604800,
        strict=False,
        description="Seconds of which changes may not be copied before the check `up_to_date` fails, 10 to 604800. Not "
        "set: `PG_BRONZE_LAG_TARGET_S`.",
    )
    sweep_target_s: float | None = Field(
        default=None,
        ge=10,
        le=2592000,
        strict=False,
        description="Large tables: age of the oldest change that may not be copied above which a sweep is overdue, in "
        "seconds, 10 to 2592000. Not set: a minute more than twice the time between two sweeps.",
    )
    severity: Severity = Field(
        default="error", description="The most severe result of the check `up_to_date`: `error` or `warn`."
    )
    owners: _Names = Field(
        default=(), description="Owners of the bronze asset: e-mail addresses, or `team:` and the name of a team."
    )
    tags: dict[str, str] = Field(
        default_factory=dict,
        description="Tags of the bronze asset: letters, digits and `_ . -`, at most 63 characters.",
    )

    @field_validator("include_columns", "exclude_columns")
    @classmethod
    def _validate_columns(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value == () and info.field_name == "include_columns":
            raise ValueError("it must contain at least one column")
        _check_names(value or ())
        return value

    @field_validator("masks")
    @classmethod
    def _validate_masks(cls, value: dict[str, Mask]) -> dict[str, Mask]:
        _check_names(value)
        return value

    @field_validator("compression_level")
    @classmethod
    def _validate_level(cls, value: int | None, info: ValidationInfo) -> int | None:
        codec = info.data.get("compression")
        if value is None or "compression" not in info.data:
            return value
        if codec is None:
            raise ValueError("it needs compression in the same place")
        check_level(codec, value)
        return value

    @field_validator("description")
    @classmethod
    def _validate_description(cls, value: str | None) -> str | None:
        try:
            found = {name for _, name, _, _ in Formatter().parse(value or "") if name is not None}
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces") from None
        if unknown := sorted(found - _PLACEHOLDERS):
            raise ValueError(
                f"{{{unknown[0]}}} is not one of {{table}}, {{comment}} and {{description}}; write {{{{ and }}}} for "
                "braces"
            )
        return value

    @field_validator("owners")
    @classmethod
    def _validate_owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for owner in value:
            if not (_EMAIL.fullmatch(owner) or (owner.startswith("team:") and len(owner) > len("team:"))):
                raise ValueError(f"an owner must be an e-mail address or team:<name>, and {owner!r} is neither")
        return value

    @field_validator("tags")
    @classmethod
    def _validate_tags(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if not _TAG_KEY.fullmatch(key) or key.startswith(_RESERVED):
                raise ValueError(
                    f"the tag {key!r} must have 1 to 63 letters, digits and _ . - after an optional prefix and a "
                    "slash; the prefixes dagster/ and pg_bronze/ are reserved"
                )
            if not _TAG_VALUE.fullmatch(text):
                raise ValueError(f"the value of the tag {key!r} must have at most 63 letters, digits and _ . -")
        return value

    @property
    def named_columns(self) -> frozenset[str]:
        """The columns that are named to be copied, excluded or masked."""
        return frozenset((*(self.include_columns or ()), *self.exclude_columns, *self.masks))


def merged(parts: Iterable[TableOptions]) -> dict[str, Any]:
    """Return what is set in any of the parts; a later part takes precedence.

    Masks and tags are merged by name, and excluded columns add up: a part that names other columns must not uncover one
    that an earlier part hides. A compression is set together with its level.
    """
    found: dict[str, Any] = {}
    for part in parts:
        own = {name: getattr(part, name) for name in part.model_fields_set}
        if "compression" in own:
            found.pop("compression_level", None)
        for name, value in own.items():
            if name in ("masks", "tags"):
                found[name] = found.get(name, {}) | value
            elif name == "exclude_columns":
                found[name] = tuple(dict.fromkeys((*found.get(name, ()), *value)))
            else:
                found[name] = value
    return found


def _check_names(names: Iterable[str]) -> None:
    if any(not name or "\0" in name for name in names):
        raise ValueError("a column name must not be empty")
