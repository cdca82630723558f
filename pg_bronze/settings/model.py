"""Model: all settings in one validated value.

Does not read the environment; ``load_settings`` does. The description of a field is its documentation.
"""

import hashlib
import json
from typing import get_args

from pydantic import SecretStr

from pg_bronze.settings.bucket import BucketSettings
from pg_bronze.settings.history import HistorySettings
from pg_bronze.settings.monitoring import MonitoringSettings
from pg_bronze.settings.objects import ObjectSettings
from pg_bronze.settings.section import variable
from pg_bronze.settings.source import SourceSettings
from pg_bronze.settings.tables import TableOptions, TableSettings
from pg_bronze.settings.ticks import TickSettings


# pydantic validates the fields of the last base class first.
class Settings(
    MonitoringSettings, HistorySettings, ObjectSettings, TickSettings, TableSettings, BucketSettings, SourceSettings
):
    """All settings, validated. Constructing one reads nothing but its arguments."""

    def table_options(self, label: str) -> TableOptions:
        """Return the options of a table: those in ``PG_BRONZE_TABLES``, and the global values for the others."""
        common = {name: getattr(self, name) for name in TableOptions.model_fields if name != "cursor_column"}
        own = self.tables.get(label, TableOptions())
        return TableOptions.model_validate(common | own.model_dump(exclude_unset=True))

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with every setting but secrets and the format of log lines."""
        left_out = {"log", *(field for field in Settings.model_fields if variable(field) in SECRET_NAMES)}
        text = json.dumps([self.model_dump(mode="json", exclude=left_out), self.control_mirror], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def mark(self) -> str:
        """Return 16 hexadecimal digits that change with every setting, and with which secrets are set."""
        known = [name for name in Settings.model_fields if variable(name) in SECRET_NAMES and getattr(self, name)]
        return hashlib.sha256(f"{self.fingerprint()} {known}".encode()).hexdigest()[:16]


FIELDS = {variable(name): field for name, field in Settings.model_fields.items()}
SECRET_NAMES = {name for name, field in FIELDS.items() if SecretStr in (field.annotation, *get_args(field.annotation))}
