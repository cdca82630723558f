"""Footers: what a bronze object says about itself, and claims: what an object that is about to be written will say.

Both are JSON, a footer as the Parquet key-value entry ``pg_bronze``. No I/O, no clock, no Dagster.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pg_bronze import __version__
from pg_bronze.core.drift import Description
from pg_bronze.core.value_policies import Exceptional
from pg_bronze.core.watermark import FORMAT, Watermark, check_format
from pg_bronze.core.window_sql import Region, in_words
from pg_bronze.errors import LakeDamaged
from pg_bronze.lake.claim import Claim, load_object

ENTRY = "pg_bronze"


@dataclass(frozen=True)
class Footer:
    """What one object says about itself: the watermarks before and after it, its rows and where they came from.

    ``columns`` describe the source columns (attnum, name, type, typmod …); ``xid_column`` is the name of the added
    column, ``primary_key`` the names of the key's columns in key order, ``table`` and ``database`` say where they came
    from. ``window`` is the region in words. ``drift`` says what changed since the object before, one sentence each.
    ``repaired`` marks an object written again by verification. ``reason`` says why an object without a region exists.
    ``exceptional`` counts values that a policy was applied to.
    """

    nonce: str
    before: Watermark
    after: Watermark
    region: Region | None
    row_count: int
    columns: Sequence[Mapping[str, Any]]
    xid_column: str
    server_version: int
    repaired: bool = False
    reason: str | None = None
    primary_key: Sequence[str] = ()
    exceptional: Sequence[Exceptional] = ()
    table: Mapping[str, Any] = field(default_factory=dict)
    database: Mapping[str, Any] = field(default_factory=dict)
    window: str | None = None
    drift: Sequence[str] = ()

    def to_text(self) -> str:
        """The value of the Parquet key-value entry."""
        return json.dumps(
            {
                "format": FORMAT,
                "pg_bronze": __version__,
                "nonce": self.nonce,
                "seq": self.after.seq,
                "prev_key": self.before.key,
                "before": self.before.to_json(),
                "after": self.after.to_json(),
                "region": self.region.to_json() if self.region else None,
                "window": self.window,
                "row_count": self.row_count,
                "drift": list(self.drift),
                "columns": list(self.columns),
                "primary_key": list(self.primary_key),
                "xid_column": self.xid_column,
                "table": dict(self.table),
                "database": dict(self.database),
                "server_version": self.server_version,
                "time_zone": "UTC",
                "encoding": "UTF8",
                "repaired": self.repaired,
                "reason": self.reason,
                "exceptional": [item._asdict() for item in self.exceptional],
            }
        )

    @classmethod
    def from_text(cls, text: str | bytes, key: str) -> Self:
        """Raises LakeDamaged naming ``key`` for anything else, FormatTooNew for a later format."""
        data = load_object(text, key)
        check_format(data, f"the footer of {key}")
        try:
            return cls(
                nonce=data["nonce"],
                before=Watermark.from_json(data["before"]),
                after=Watermark.from_json(data["after"]),
                region=Region.from_json(data["region"]) if data["region"] else None,
                row_count=data["row_count"],
                columns=data["columns"],
                xid_column=data["xid_column"],
                server_version=data["server_version"],
                repaired=data["repaired"],
                reason=data["reason"],
                primary_key=tuple(data.get("primary_key", ())),
                exceptional=tuple(Exceptional(**item) for item in data.get("exceptional", ())),
                table=data.get("table", {}),
                database=data.get("database", {}),
                window=data.get("window"),
                drift=tuple(data.get("drift", ())),
            )
        except (AttributeError, KeyError, LakeDamaged, TypeError, ValueError) as error:
            raise LakeDamaged(
                f"{key}: its footer is not one of pg_bronze's ({type(error).__name__}). Move the object out of "
                "the folder."
            ) from error

    @property
    def described(self) -> Description:
        """What the rows of the object look like."""
        return Description(tuple(self.columns), tuple(self.primary_key), self.xid_column, self.table)

    def continues(self, watermark: Watermark) -> bool:
        """Whether this object is the next after the one that committed ``watermark``."""
        return self.before.key == watermark.key and self.after.seq == watermark.seq + 1


def footer_of(
    claim: Claim,
    row_count: int,
    described: Description,
    server_version: int,
    database: Mapping[str, Any],
    exceptional: Sequence[Exceptional] = (),
    drift: Sequence[str] = (),
) -> Footer:
    """The footer that says of an object what its claim intended."""
    return Footer(
        nonce=claim.nonce,
        before=claim.before,
        after=claim.after,
        region=claim.region,
        row_count=row_count,
        columns=described.columns,
        xid_column=described.xid_column,
        server_version=server_version,
        reason=claim.reason,
        primary_key=described.primary_key,
        exceptional=exceptional,
        table=described.table,
        database=database,
        window=in_words(claim.region) if claim.region else None,
        drift=drift,
    )
