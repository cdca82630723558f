"""Footers: the description of an object, stored in it as the Parquet key-value entry ``pg_bronze``.

JSON in both directions. No I/O, no clock, no Dagster.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pg_bronze import __version__
from pg_bronze.core.drift import Description
from pg_bronze.core.formats import FORMAT, check_format
from pg_bronze.core.region import Region, describe_region
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import LakeDamaged
from pg_bronze.lake.claim import Claim, load_object

ENTRY = "pg_bronze"


@dataclass(frozen=True)
class Footer:
    """The description of one object: the watermarks before and after it, its rows, and their source.

    Attributes:
        nonce: The nonce of its claim; ``repaired`` if verification wrote it.
        before: The watermark that the object follows.
        after: The watermark that the object commits.
        region: Its row versions; None for an object that only changes the watermark, and for a repaired one.
        row_count: Rows in the object.
        columns: The source columns: attnum, name, type and more, as ``core.drift.describe`` returns them.
        xid_column: The name of the added column with the transaction id.
        server_version: PostgreSQL's version as a number; 180001 is 18.1.
        repaired: Verification wrote the object again, with the row versions that were still current.
        reason: Why an object without a region exists.
        primary_key: The names of the key's columns, in key order.
        exceptional: Counts of values that a policy was applied to.
        table: The source table.
        database: The source database.
        window: The region in words.
        drift: What changed since the object before, one sentence each.
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
    exceptional: Sequence[ExceptionalCount] = ()
    table: Mapping[str, Any] = field(default_factory=dict)
    database: Mapping[str, Any] = field(default_factory=dict)
    window: str | None = None
    drift: Sequence[str] = ()

    def to_text(self) -> str:
        """Return the value of the Parquet key-value entry."""
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
        """Parse the entry of the object at ``key``.

        Raises:
            LakeDamaged: The entry is not a footer of pg_bronze.
            FormatTooNew: A later version of pg_bronze wrote it.
        """
        data = load_object(text, key)
        check_format(data, f"the footer of {key}")
        inner = f"a watermark in the footer of {key}"
        try:
            return cls(
                nonce=data["nonce"],
                before=Watermark.from_json(data["before"], inner),
                after=Watermark.from_json(data["after"], inner),
                region=Region.from_json(data["region"]) if data["region"] else None,
                row_count=data["row_count"],
                columns=data["columns"],
                xid_column=data["xid_column"],
                server_version=data["server_version"],
                repaired=data["repaired"],
                reason=data["reason"],
                primary_key=tuple(data.get("primary_key", ())),
                exceptional=tuple(ExceptionalCount(**item) for item in data.get("exceptional", ())),
                table=data.get("table", {}),
                database=data.get("database", {}),
                window=data.get("window"),
                drift=tuple(data.get("drift", ())),
            )
        except (AttributeError, KeyError, LakeDamaged, TypeError, ValueError) as error:
            raise LakeDamaged(
                f"{key}: its footer is not a footer of pg_bronze ({type(error).__name__}). Move the object out of the "
                "folder. Nothing of the table is copied until then."
            ) from error

    @property
    def described(self) -> Description:
        """The description of the rows: columns, primary key, transaction id and table."""
        return Description(tuple(self.columns), tuple(self.primary_key), self.xid_column, self.table)

    def continues(self, watermark: Watermark) -> bool:
        """Return whether this object directly follows the one that committed ``watermark``."""
        return self.before.key == watermark.key and self.after.seq == watermark.seq + 1


def footer_of(
    claim: Claim,
    row_count: int,
    described: Description,
    server_version: int,
    database: Mapping[str, Any],
    exceptional: Sequence[ExceptionalCount] = (),
    drift: Sequence[str] = (),
) -> Footer:
    """Return the footer of the object that a claim announced."""
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
        window=describe_region(claim.region) if claim.region else None,
        drift=drift,
    )
