"""TODO lake.claim."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pg_bronze.core.watermark import FORMAT, Watermark, check_format
from pg_bronze.core.window_sql import Region
from pg_bronze.errors import LakeDamaged


@dataclass(frozen=True)
class Claim:
    """The intent to write object ``after.seq`` at ``after.key``: what a redoer needs to do the same.

    ``region`` None means an empty object (a new generation, a heartbeat, a changed history). ``relfilenodes`` are those
    of the region's leaves when it was read. ``nonce`` tells our own retried request from another writer's.
    """

    nonce: str
    before: Watermark
    after: Watermark
    region: Region | None
    relfilenodes: Mapping[int, int]
    reason: str | None = None

    def to_text(self) -> str:
        """The claim object's content."""
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
        """Raises LakeDamaged naming ``key`` for anything else, FormatTooNew for a later format."""
        data = load_object(text, key)
        check_format(data, f"the claim {key}")
        try:
            return cls(
                nonce=data["nonce"],
                before=Watermark.from_json(data["before"]),
                after=Watermark.from_json(data["after"]),
                region=Region.from_json(data["region"]) if data["region"] else None,
                relfilenodes={int(oid): node for oid, node in data["relfilenodes"].items()},
                reason=data["reason"],
            )
        except (AttributeError, KeyError, LakeDamaged, TypeError, ValueError) as error:
            raise LakeDamaged(
                f"{key} is not a claim of pg_bronze ({type(error).__name__}). Look at it, then delete it."
            ) from error


def load_object(text: str | bytes, key: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise LakeDamaged(f"{key} does not hold JSON of pg_bronze. Look at it, then move it out of the way.") from error
    if not isinstance(data, dict):
        raise LakeDamaged(f"{key} does not hold an object of pg_bronze. Look at it, then move it out of the way.")
    return data
