"""Model: all settings in one validated value.

Does not read the environment; ``load_settings`` does. The description of a field is its documentation.
"""

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import get_args

from pydantic import Field, SecretStr

from pg_bronze.settings.bucket import BucketSettings
from pg_bronze.settings.history import HistorySettings
from pg_bronze.settings.monitoring import MonitoringSettings
from pg_bronze.settings.objects import ObjectSettings
from pg_bronze.settings.section import variable
from pg_bronze.settings.source import SourceSettings
from pg_bronze.settings.table_options import TableOptions, merged
from pg_bronze.settings.tables import TableSettings
from pg_bronze.settings.ticks import TickSettings


# pydantic validates the fields of the last base class first.
class Settings(
    MonitoringSettings, HistorySettings, ObjectSettings, TickSettings, TableSettings, BucketSettings, SourceSettings
):
    """All settings, validated. Constructing one reads nothing but its arguments."""

    file_options: dict[str, TableOptions] = Field(
        default_factory=dict, description="Options of `pg_bronze.toml`, by the name of a table or a pattern of names."
    )

    def table_options(self, label: str) -> TableOptions:
        """Return the options of a table, with the global values for what is not set.

        What is set for several names takes precedence in this order: ``PG_BRONZE_TABLES``, the name of the table in
        ``pg_bronze.toml``, then its patterns, the last one first.
        """
        own = [options for name, options in self._patterns if name != label and fnmatchcase(label, name)]
        own += self._of_name(label)
        return TableOptions.model_validate(self._common | merged(own)) if own else self._without_own

    @property
    def control_source(self) -> str | None:
        """The name of the source in the rows of a control table that several sources may share; None otherwise."""
        return self.name if self.control_mirror == "url" else None

    @cached_property
    def names_assets(self) -> bool:
        """Whether any table has a key of its own in Dagster, so that its options must be read for it."""
        every = [*self.file_options.values(), *self.tables.values()]
        return any(options.asset_key or options.key_prefix for options in every)

    def with_asset_keys(self, keys: Mapping[str, str]) -> "Settings":
        """Return the settings with other keys of bronze assets, by the name of the table."""
        tables = dict(self.tables)
        for label, key in keys.items():
            parts = [tables.get(label, TableOptions()), TableOptions(asset_key=key)]
            tables[label] = TableOptions.model_validate(merged(parts))
        # Everything else is validated. A copy would have the cached properties of this object.
        return Settings.model_construct(**dict(self) | {"tables": tables})

    @cached_property
    def has_own_targets(self) -> bool:
        """Whether any table has targets or a severity of its own."""
        each = [*self.file_options.values(), *self.tables.values()]
        return any(options.model_fields_set & {"lag_target_s", "sweep_target_s", "severity"} for options in each)

    def named_columns(self, label: str) -> frozenset[str]:
        """Return the columns that the options name for this table alone, which must exist."""
        return frozenset(name for options in self._of_name(label) for name in options.named_columns)

    def unknown_tables(self, labels: Collection[str]) -> list[str]:
        """Return a sentence for each name or pattern in ``pg_bronze.toml`` that no table has."""
        unknown = [name for name in self.file_options if name not in labels and not _is_pattern(name)]
        unknown += [name for name, _ in self._patterns if not any(fnmatchcase(label, name) for label in labels)]
        return [
            f"pg_bronze.toml has options of {name}, and there is no such table{_similar(name, labels)}"
            for name in unknown
        ]

    def _of_name(self, label: str) -> list[TableOptions]:
        return [options[label] for options in (self.file_options, self.tables) if label in options]

    @cached_property
    def _patterns(self) -> list[tuple[str, TableOptions]]:
        return [item for item in self.file_options.items() if _is_pattern(item[0])]

    @cached_property
    def _common(self) -> dict[str, object]:
        # The others have no equal among the global settings, or one that is not valid for a single table.
        names = ("slice_rows", "untracked", "takeover", "infinity", "late_dates", "bands", "nan")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _without_own(self) -> TableOptions:
        return TableOptions.model_validate(self._common)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with every setting but secrets and the format of log lines."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        left_out = {"log", *(field for field in Settings.model_fields if variable(field) in SECRET_NAMES)}
        text = json.dumps([self.model_dump(mode="json", exclude=left_out), self.control_mirror], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def mark(self) -> str:
        """Return 16 hexadecimal digits that change with every setting, and with which secrets are set."""
        known = [name for name in Settings.model_fields if variable(name) in SECRET_NAMES and getattr(self, name)]
        return hashlib.sha256(f"{self.fingerprint()} {known}".encode()).hexdigest()[:16]


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _similar(name: str, labels: Collection[str]) -> str:
    found = difflib.get_close_matches(name, labels, n=1)
    return f". Did you mean {found[0]}?" if found else ""


FIELDS = {variable(name): field for name, field in Settings.model_fields.items() if name != "file_options"}
SECRET_NAMES = {name for name, field in FIELDS.items() if SecretStr in (field.annotation, *get_args(field.annotation))}
