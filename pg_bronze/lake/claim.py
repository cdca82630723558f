"""Claims: what an object that is about to be written will commit, stored in the bucket before the object.

JSON in both directions. No I/O, no clock, no Dagster.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pg_bronze.core.formats import FORMAT, check_format
from pg_bronze.core.region import Region
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import LakeDamaged

_REMEDY = "Inspect it, then move it out of the folder. Nothing of the table is copied until then."


@dataclass(frozen=True)
class Claim:
    """The intent to write object number ``after.seq`` under ``after.key``, complete enough for a redo.

    Attributes:
        nonce: A random text that distinguishes the writer's own repeated request from another writer's.
        before: The watermark that the object follows.
        after: The watermark that the object commits.
        region: The row versions of the object; None for an empty one (a new generation, a changed history).
        relfilenodes: The files of the region's leaves when it was read, by oid.
        reason: Why an object without a region is written.
    """

    nonce: str
    before: Watermark
    after: Watermark
    region: Region | None
    relfilenodes: Mapping[int, int]
    reason: str | None = None

    def to_text(self) -> str:
        """Return the content of the claim's object."""
        return json.dumps(
            {
                "format": FORMAT,
                "nonce": self.nonce,
                "before": self.before.to_json(),
                "after": self.after.to_json(),
                "region": self.region.to_json() if self.region else None,
                "relfilenodes": {str(oid): node for oid, node in self.relfilenodes.items()},
                "reason": self.reason,
            }
        )

    @classmethod
    def from_text(cls, text: str | bytes, key: str) -> Self:
        """Parse the content of the claim at ``key``.

        Raises:
            LakeDamaged: The content is not a claim.
            FormatTooNew: A later version of pg_bronze wrote it.
        """
        data = load_object(text, key)
        check_format(data, f"the claim {key}")
        inner = f"a watermark in the claim {key}"
        try:
            return cls(
                nonce=data["nonce"],
                before=Watermark.from_json(data["before"], inner),
                after=Watermark.from_json(data["after"], inner),
                region=Region.from_json(data["region"]) if data["region"] else None,
                relfilenodes={int(oid): node for oid, node in data["relfilenodes"].items()},
                reason=data["reason"],
            )
        except (AttributeError, KeyError, LakeDamaged, TypeError, ValueError) as error:
            raise LakeDamaged(
                f"{key} is not a claim of pg_bronze ({type(error).__name__}). Inspect it, then delete it. Nothing of "
                "the table is copied until then."
            ) from error


def load_object(text: str | bytes, key: str) -> dict[str, Any]:
    """Parse a JSON object stored at ``key``; anything else raises LakeDamaged."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise LakeDamaged(f"{key} does not contain the JSON of pg_bronze. {_REMEDY}") from error
    if not isinstance(data, dict):
        raise LakeDamaged(f"{key} contains JSON, but not an object of pg_bronze. {_REMEDY}")
    return data
