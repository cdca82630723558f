"""The numbers of the stored formats, and the check that a number is known.

A number increases when an older version of pg_bronze would misread what a newer one writes. Entries that an older
version may ignore are added without a new number. docs/format.md describes each number.
"""

from collections.abc import Mapping
from typing import Any

from pg_bronze.errors import FormatTooNew, LakeDamaged

# Objects, watermarks, claims and stops: the format that is written, and the newest that is read. 2 added the line of a
# pending block; 3 added Parquet field ids, so that its objects can be told from those without them, and bands.
FORMAT = 3
# `_pg_bronze/catalog.json`. Without a number it is format 1.
CATALOG_FORMAT = 1
# Hints: the cursor of `bronze_tick` and `create_only.json`, without a number format 1 too. With another number, they
# count as lost.
CURSOR_FORMAT = 1
PROBE_FORMAT = 1


def check_format(data: Any, what: str, newest: int = FORMAT) -> None:
    """Check the format number of something stored; ``what`` names it in the message.

    Raises:
        FormatTooNew: A newer pg_bronze wrote it.
        LakeDamaged: It is not a JSON object, or no version writes this number.
    """
    if not isinstance(data, Mapping):
        raise LakeDamaged(f"not {what} of pg_bronze: it is a {type(data).__name__}, not a JSON object")
    found = data.get("format")
    if type(found) is not int or found < 1:
        raise LakeDamaged(f"{what} has no format number of pg_bronze")
    if found > newest:
        raise FormatTooNew(
            f"{what} has format {found}, and this version of pg_bronze reads up to {newest}: a newer version wrote it. "
            "Upgrade pg_bronze. Nothing was changed."
        )
