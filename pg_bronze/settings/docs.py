"""Documentation: the tables of ``docs/settings.md``, rendered from the descriptions of the fields."""

from pydantic import ByteSize, SecretStr

from pg_bronze.settings.bucket import BucketSettings
from pg_bronze.settings.history import HistorySettings
from pg_bronze.settings.mc_alias import EXPLICIT
from pg_bronze.settings.monitoring import MonitoringSettings
from pg_bronze.settings.objects import ObjectSettings
from pg_bronze.settings.section import Section, variable
from pg_bronze.settings.source import SourceSettings
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


def _table(section: type[Section]) -> str:
    lines = ["| Name | Default | Meaning |", "|---|---|---|"]
    for field_name, field in section.model_fields.items():
        name = variable(field_name)
        if name in EXPLICIT:
            default = "required without `MINIO_ALIAS`"
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
