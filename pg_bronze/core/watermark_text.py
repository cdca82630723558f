"""The text of a watermark in Dagster's metadata: its JSON on one line, without entries that say nothing.

Footers and claims contain the whole JSON (``watermark``). Dagster's pages show a text as it is, and JSON of this size
as a tree of 30 lines.
"""

import json
from collections.abc import Mapping
from typing import Any

from pg_bronze.core.band_rules import Sweeps
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import LakeDamaged

_EMPTY: dict[str, Any] = {
    "started": None,
    "checkpoint": None,
    "control": None,
    "key": "",
    "first_key": "",
    "cursor": None,
    "seed": None,
    "columns_key": "",
    "columns_digest": "",
    "detached": [],
    "next_layout": "",
    "sweeps": None,
    "counts": None,
    "leaves": [],
}
_EMPTY_LEAF = {"order": None, "sweep": None, "swept_at": None}


def to_text(watermark: Watermark) -> str:
    """Return the text. There is a space after each entry, where a page can break the line."""
    data = watermark.to_json()
    data["leaves"] = [_without(leaf, _EMPTY_LEAF) for leaf in data["leaves"]]
    if data["sweeps"] is not None:
        data["sweeps"] = _without(data["sweeps"], Sweeps().to_json())
    kept = _without(data, _EMPTY).items()
    entries = (f'"{name}":{json.dumps(value, separators=(",", ":"))}' for name, value in kept)
    return "{" + ", ".join(entries) + "}"


def from_text(text: str) -> Watermark:
    """Read what ``to_text`` returned.

    Raises:
        FormatTooNew: A newer pg_bronze wrote it.
        LakeDamaged: It is not the text of a watermark.
    """
    try:
        data = {**_EMPTY, **json.loads(text)}
        data["leaves"] = [{**_EMPTY_LEAF, **leaf} for leaf in data["leaves"]]
        if data["sweeps"] is not None:
            data["sweeps"] = {**Sweeps().to_json(), **data["sweeps"]}
    except (TypeError, ValueError) as error:
        raise LakeDamaged(f"not the text of a watermark: {type(error).__name__}") from error
    return Watermark.from_json(data)


def _without(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in defaults or value != defaults[name]}
