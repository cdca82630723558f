"""The watermark: how far a table has been copied, and its JSON.

Belongs here: the state of a table as a value, and the JSON that is stored in the metadata of a materialization, in the
footer of every object and in every claim. Does not belong here: deciding what to read next (``planning``) and whether
the state still belongs to this database (``history_check``). The keys of the JSON are a stored format; older objects
must stay readable.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from pg_bronze.core.band_rules import Sweeps
from pg_bronze.core.formats import FORMAT, check_format
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.row_counts import RowCounts
from pg_bronze.errors import LakeDamaged


@dataclass(frozen=True)
class Seed:
    """What the original system had copied, and first loads exclude: rows whose column is at or below ``value``."""

    attnum: int
    value: str


@dataclass(frozen=True)
class ControlVersion:
    """One version of a table's row in ``etl_control``: the oids of its database and table, and its transaction."""

    database: int
    table: int
    xid: int


@dataclass(frozen=True)
class Origin:
    """The database, the point in its history, and the bucket that a watermark belongs to.

    Attributes:
        system_id: The system identifier of the database cluster.
        timeline: The timeline, which changes with every failover and every restore.
        lsn: The log position ``X/Y``: flushed on a primary, last replayed on a standby.
        database: The oid of the database.
        bucket: ``bucket/prefix``.
        started: When the server was started, as text; None on a standby and in watermarks from before this entry.
        checkpoint: The log position of the last checkpoint; None in the same cases.
        control: The version of the control row that pg_bronze wrote after the horizon and before the object; None if
            it wrote none.
    """

    system_id: str
    timeline: int
    lsn: str
    database: int
    bucket: str
    started: str | None = None
    checkpoint: str | None = None
    control: ControlVersion | None = None


@dataclass(frozen=True)
class Watermark:
    """How far one source table has been copied.

    Attributes:
        origin: Where it was copied from and to.
        table: Its oid.
        generation: Starts at 0 and increases when the rows copied so far no longer count.
        seq: The number of the object that committed this watermark; 0 before the first commit.
        key: The key of that object; before the first commit, of the original system's newest object, or ``""``.
        first_key: The key of the generation's first object; ``""`` if there is none.
        cursor: The largest cursor value copied, for people and ``etl_control`` only.
        leaves: What is delivered of each leaf ever seen, by oid; a detached leaf keeps its entry.
        seed: What the original system had copied, if its state was taken over.
        columns_key: The key of the generation's oldest object since which the columns are the same; ``""`` before the
            first object and in watermarks that were written before this entry existed.
        columns_digest: The digest of these columns; ``""`` in the same cases.
        detached: The oids of leaves that were not part of the table when the object was read.
        next_layout: The layout (``flat`` or ``date``) that the next object may have besides that of ``key``; ``""`` for
            none. A writer with another layout announces it here first, so that every writer knows where to list.
        sweeps: What the reads of a table with bands found, to schedule the next ones; None for other tables.
        counts: What the objects of the generation add up to; None if the last one was written by a version of pg_bronze
            that did not count, and before the first one.
    """

    origin: Origin
    table: int
    generation: int = 0
    seq: int = 0
    key: str = ""
    first_key: str = ""
    cursor: str | None = None
    leaves: Mapping[int, Leaf] = field(default_factory=lambda: MappingProxyType({}))
    seed: Seed | None = None
    columns_key: str = ""
    columns_digest: str = ""
    detached: frozenset[int] = frozenset()
    next_layout: str = ""
    sweeps: Sweeps | None = None
    counts: RowCounts | None = None

    @property
    def highest_horizon(self) -> int | None:
        """The highest horizon that any leaf is delivered up to; None if nothing is delivered."""
        highest = [leaf.highest for leaf in self.leaves.values()]
        return max((upto for upto in highest if upto is not None), default=None)

    def leaf(self, oid: int) -> Leaf:
        """Return what is delivered of a leaf: nothing, if it was never seen."""
        return self.leaves.get(oid, Leaf())

    def with_leaves(self, changed: Mapping[int, Leaf]) -> Self:
        """Return the watermark with some leaves replaced."""
        return dataclasses.replace(self, leaves=MappingProxyType({**self.leaves, **changed}))

    def with_columns(self, digest: str, before: "Watermark") -> Self:
        """Return the watermark as committed after ``before`` by an object whose columns have this digest."""
        same = digest == before.columns_digest and self.generation == before.generation and before.columns_key
        return dataclasses.replace(self, columns_digest=digest, columns_key=before.columns_key if same else self.key)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON. Leaves with the same state share one entry, so that 500 partitions take less than 1 KB."""
        groups: dict[Leaf, list[int]] = {}
        for oid in sorted(self.leaves):
            groups.setdefault(self.leaves[oid], []).append(oid)
        return {
            "format": FORMAT,
            **dataclasses.asdict(self.origin),
            "table": self.table,
            "generation": self.generation,
            "seq": self.seq,
            "key": self.key,
            "first_key": self.first_key,
            "cursor": self.cursor,
            "seed": dataclasses.asdict(self.seed) if self.seed else None,
            "columns_key": self.columns_key,
            "columns_digest": self.columns_digest,
            "detached": _ranges(sorted(self.detached)),
            "next_layout": self.next_layout,
            "sweeps": self.sweeps.to_json() if self.sweeps else None,
            "counts": self.counts.to_json() if self.counts else None,
            "leaves": [{"oids": _ranges(oids), **leaf.to_json()} for leaf, oids in groups.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], what: str = "a watermark") -> Self:
        """Read the JSON of ``to_json``, or of an older version; ``what`` names it in an error.

        Raises:
            FormatTooNew: A newer pg_bronze wrote it.
            LakeDamaged: It is not a watermark.
        """
        check_format(data, what)
        try:
            return cls(
                origin=_origin(data),
                table=data["table"],
                generation=data["generation"],
                seq=data["seq"],
                key=data["key"],
                first_key=data["first_key"],
                cursor=data["cursor"],
                seed=Seed(**data["seed"]) if data["seed"] else None,
                leaves=MappingProxyType(_leaves(data["leaves"])),
                columns_key=data.get("columns_key", ""),
                columns_digest=data.get("columns_digest", ""),
                detached=frozenset(_unrange(data.get("detached", ()))),
                next_layout=data.get("next_layout", ""),
                sweeps=Sweeps.from_json(data["sweeps"]) if data.get("sweeps") else None,
                counts=RowCounts.from_json(data["counts"]) if data.get("counts") is not None else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LakeDamaged(f"not a watermark of pg_bronze: {type(error).__name__} {error}") from error


def _origin(data: Mapping[str, Any]) -> Origin:
    control = data.get("control")
    return Origin(
        system_id=data["system_id"],
        timeline=data["timeline"],
        lsn=data["lsn"],
        database=data["database"],
        bucket=data["bucket"],
        started=data.get("started"),
        checkpoint=data.get("checkpoint"),
        control=ControlVersion(**control) if control else None,
    )


def _leaves(groups: Iterable[Mapping[str, Any]]) -> dict[int, Leaf]:
    leaves: dict[int, Leaf] = {}
    for group in groups:
        leaves.update(dict.fromkeys(_unrange(group["oids"]), Leaf.from_json(group)))
    return leaves


def _ranges(oids: Iterable[int]) -> list[list[int]]:
    """Return ascending oids as closed ranges ``[first, last, step]``.

    Partitions created together are the same number of oids apart: row types and indexes take oids too.
    """
    ranges: list[list[int]] = []
    for oid in oids:
        if not ranges:
            ranges.append([oid, oid, 1])
            continue
        first, last, step = ranges[-1]
        if first == last:
            ranges[-1] = [first, oid, oid - first]
        elif oid - last == step:
            ranges[-1][1] = oid
        else:
            ranges.append([oid, oid, 1])
    return ranges


def _unrange(ranges: Iterable[Iterable[int]]) -> list[int]:
    return [oid for first, last, step in ranges for oid in range(first, last + 1, step)]
