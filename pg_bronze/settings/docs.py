"""Documentation: the tables of ``docs/settings.md`` and the JSON Schema, rendered from the fields of the models."""

import json
from typing import Any

from pydantic import ByteSize, SecretStr

from pg_bronze.settings.bucket import BucketSettings
from pg_bronze.settings.history import HistorySettings
from pg_bronze.settings.mc_alias import EXPLICIT
from pg_bronze.settings.monitoring import MonitoringSettings
from pg_bronze.settings.objects import ObjectSettings
from pg_bronze.settings.section import Section, variable
from pg_bronze.settings.source import SourceSettings
from pg_bronze.settings.table_options import TableOptions
from pg_bronze.settings.tables import TableSettings
from pg_bronze.settings.ticks import TickSettings

SECTIONS: dict[str, type[Section]] = {
    "Source database": SourceSettings,
    "Bucket": BucketSettings,
    "Tables": TableSettings,
    "Ticks": TickSettings,
    "Objects": ObjectSettings,
    "History": HistorySettings,
    "Monitoring": MonitoringSettings,
}


def settings_tables() -> str:
    """Return every setting in Markdown: a heading for each section, and a table of name, default and meaning."""
    return "\n".join(f"## {title}\n\n{_table(section)}" for title, section in SECTIONS.items())


def option_table() -> str:
    """Return every option of a table in Markdown: name, default and meaning."""
    lines = ["| Option | Meaning |", "|---|---|"]
    lines += [f"| `{name}` | {field.description} |" for name, field in TableOptions.model_fields.items()]
    return "\n".join(lines) + "\n"


def schema_text() -> str:
    """Return the JSON Schema of ``pg_bronze.toml``, for editors."""
    options = TableOptions.model_json_schema()["properties"]
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "pg_bronze.toml",
        "description": "Options per table of pg_bronze.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "tables": {
                "type": "object",
                "description": "Tables by name, such as movie or sales.movie, or by a shell pattern of names.",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {name: _without_null(option) for name, option in options.items()},
                },
            }
        },
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _without_null(option: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an option without null, which TOML does not have, and without the default of the model.

    What a table does not set has the value of a pattern or the global one.
    """
    kept = {name: value for name, value in option.items() if name not in ("default", "title", "anyOf")}
    choices = [choice for choice in option.get("anyOf", ()) if choice != {"type": "null"}]
    return {**(choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {}), **kept}


def _table(section: type[Section]) -> str:
    lines = ["| Name | Default | Meaning |", "|---|---|---|"]
    for field_name, field in section.model_fields.items():
        name = variable(field_name)
        if name in EXPLICIT:
            default = "required without `MINIO_ALIAS`, except on AWS"
        else:
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    if isinstance(value, SecretStr) or value in (None, "", (), {}):
        return "not set"
    if isinstance(value, ByteSize):
        return f"`{value // 2**20}MiB`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
