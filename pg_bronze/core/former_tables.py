"""Former tables: those that were copied and are not copied any more, and why.

Belongs here: how they follow from two readings of the catalog. Does not belong here: where they are stored. Without
them, a table that was renamed, dropped or revoked disappears with its last state, which was good.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pg_bronze.core.table import SourceTable, shell_argument


@dataclass(frozen=True)
class FormerTable:
    """A table that was copied and is not copied any more.

    Attributes:
        schema: Its schema.
        name: Its name when it was copied.
        oid: Its oid.
        since: When that was noticed, in seconds since 1970.
        reason: Why it is not copied, as a sentence with the remedy.
        gone: It does not exist under this name; such an entry ends after a time.
    """

    schema: str
    name: str
    oid: int
    since: float
    reason: str
    gone: bool

    @property
    def table(self) -> SourceTable:
        """The table with its name alone, for labels and asset keys."""
        return SourceTable(self.oid, self.schema, self.name, False, None, (), (), (), 0.0, None, "")


def find(
    before: Iterable[SourceTable],
    known: Iterable[FormerTable],
    now: Mapping[str, SourceTable],
    skipped: Mapping[str, str],
    at: float,
) -> list[FormerTable]:
    """Return the tables that were copied and are not copied any more.

    Args:
        before: The tables that were copied when the catalog was last stored.
        known: The former tables that were stored with it.
        now: The tables of the catalog, by label.
        skipped: Why some of these are not copied, by label.
        at: Seconds since 1970.
    """
    former = {item.table.label: item for item in known}
    for table in before:
        former.setdefault(table.label, FormerTable(table.schema, table.name, table.oid, at, "", False))
    names = {table.oid: label for label, table in now.items()}
    return [
        _explained(item, label, names, skipped.get(label))
        for label, item in sorted(former.items())
        if label not in now or label in skipped
    ]


def unexpired(former: Iterable[FormerTable], at: float, keep_s: float) -> list[FormerTable]:
    """Return the former tables without those that do not exist any more, after a time.

    Args:
        at: Seconds since 1970.
        keep_s: How long a table that was dropped or renamed stays, in seconds.
    """
    return [item for item in former if not item.gone or at - item.since < keep_s]


def _explained(item: FormerTable, label: str, names: Mapping[int, str], skipped: str | None) -> FormerTable:
    since = f"{datetime.fromtimestamp(item.since, UTC):%Y-%m-%d %H:%M} UTC"
    forget = f"`pg-bronze forget {shell_argument(label)}` removes this entry"
    if skipped is not None:
        reason = f"{label} has not been copied since {since}: {skipped}. It continues after the fix; {forget}."
        return replace(item, reason=reason, gone=False)
    renamed = f"was renamed to {names[item.oid]}, which is copied as a new table" if item.oid in names else None
    reason = f"{label} {renamed or 'was dropped'}, noticed at {since}. Its objects stay in the bucket; {forget}."
    return replace(item, reason=reason, gone=True)
