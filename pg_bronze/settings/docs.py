"""TODO settings.docs."""

from pydantic import (
    ByteSize,
    SecretStr,
)

from pg_bronze.settings.mc_alias import EXPLICIT
from pg_bronze.settings.model import FIELDS


def settings_table() -> str:
    """Render every setting as a Markdown table: name, default, meaning."""
    lines = ["| Name | Default | Meaning |", "|---|---|---|"]
    for name, field in FIELDS.items():
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
