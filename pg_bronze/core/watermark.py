"""The watermark: how far a table has been copied, and the JSON it travels as.

The same JSON stands in a materialization's metadata, in every object's footer and in every claim.
No connection, no clock, no Dagster.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from pg_bronze.errors import FormatTooNew, LakeDamaged

# The format that is written, and the newest that is read. 2 added the line of a pending block; 3 added Parquet field
# ids, so that its objects can be told from those without them.
FORMAT = 3


@dataclass(frozen=True)
class Box:
    """What fresh reads have delivered beyond ``swept``: cursor values above ``floor``, transactions below ``upto``.

    ``attnum`` is the cursor column's; ``floor`` is PostgreSQL's text of a value, or None before the first sweep ends.
    """

    attnum: int
    floor: str | None
    upto: int


@dataclass(frozen=True)
class Pending:
    """A window being read in block ranges: of transactions below ``upto``, blocks ``[0, block)`` are delivered.

    So are the line pointers below ``line`` of ``block`` itself: a row version keeps its block and line for as long as
    it lives, within one ``relfilenode``. A rewrite moves every row.
    """

    upto: int
    block: int
    relfilenode: int
    line: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """Block and line, which sort like PostgreSQL's ``ctid``."""
        return self.block, self.line


@dataclass(frozen=True)
class Leaf:
    """What is delivered of one physical table.

    That is exactly: transactions below ``swept`` (None: nothing yet), plus the box, plus the pending blocks.
    """

    swept: int | None = None
    box: Box | None = None
    pending: Pending | None = None


@dataclass(frozen=True)
class Seed:
    """First loads leave out rows whose column is at or below ``value`` (PostgreSQL's text), taken over as copied."""

    attnum: int
    value: str


@dataclass(frozen=True)
class Place:
    """Which database at which moment of its history, and which bucket: a watermark means nothing elsewhere.

    ``timeline`` counts a cluster's failovers and restores; ``lsn`` is the write-ahead log position (``X/Y``)
    current on a primary or last replayed on a standby; ``database`` is its oid; ``bucket`` is ``bucket/prefix``.
    """

    system_id: str
    timeline: int
    lsn: str
    database: int
    bucket: str


@dataclass(frozen=True)
class Watermark:
    """How far one source table has been copied.

    ``table`` is the oid behind the name. ``generation`` starts at 0 and rises when what was copied so far no longer
    counts. ``seq`` is the number of the object that committed this watermark, ``key`` its object key; 0 and the key of
    the newest foreign object (or ``""``) before the first commit. ``first_key`` opened the generation (``""``: none).
    ``cursor`` is the largest cursor value copied, for people and ``etl_control`` only. ``leaves`` maps the oid of each
    physical table ever seen to what is delivered of it; it keeps detached partitions. ``seed`` is what the original
    system had copied, where that was taken over.

    ``columns_key`` is the oldest object of the generation from which on all objects have the same columns, and
    ``columns_digest`` tells those columns from others; both are ``""`` before the first object, and in a state written
    before there were these entries. ``detached`` are leaves that were not part of the table when the object was read.
    """

    place: Place
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

    @property
    def highest(self) -> int | None:
        """The highest horizon anything was delivered up to; None if nothing was."""
        swept = [leaf.swept for leaf in self.leaves.values() if leaf.swept is not None]
        pending = [leaf.pending.upto for leaf in self.leaves.values() if leaf.pending is not None]
        return max([*swept, *pending], default=None)

    def leaf(self, oid: int) -> Leaf:
        """What is delivered of a physical table; nothing, for one never seen."""
        return self.leaves.get(oid, Leaf())

    def with_leaves(self, changed: Mapping[int, Leaf]) -> Self:
        """The same watermark with some leaves replaced."""
        return dataclasses.replace(self, leaves=MappingProxyType({**self.leaves, **changed}))

    def with_columns(self, digest: str, before: "Watermark") -> Self:
        """The same watermark, committed by an object whose columns have this digest and which follows ``before``."""
        same = digest == before.columns_digest and self.generation == before.generation and before.columns_key
        return dataclasses.replace(self, columns_digest=digest, columns_key=before.columns_key if same else self.key)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; leaves of equal state share one entry, so that 500 partitions stay small."""
        groups: dict[Leaf, list[int]] = {}
        for oid in sorted(self.leaves):
            groups.setdefault(self.leaves[oid], []).append(oid)
        return {
            "format": FORMAT,
            **dataclasses.asdict(self.place),
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
            "leaves": [{"oids": _ranges(oids), **_leaf_json(leaf)} for leaf, oids in groups.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises FormatTooNew for a later format, LakeDamaged for anything that is not a watermark."""
        check_format(data, "a watermark")
        try:
            leaves: dict[int, Leaf] = {}
            for group in data["leaves"]:
                box, pending = group["box"], group["pending"]
                leaf = Leaf(group["swept"], box and Box(**box), pending and Pending(**pending))
                leaves.update(dict.fromkeys(_unrange(group["oids"]), leaf))
            return cls(
                place=Place(**{name: data[name] for name in Place.__dataclass_fields__}),
                table=data["table"],
                generation=data["generation"],
                seq=data["seq"],
                key=data["key"],
                first_key=data["first_key"],
                cursor=data["cursor"],
                seed=Seed(**data["seed"]) if data["seed"] else None,
                leaves=MappingProxyType(leaves),
                columns_key=data.get("columns_key", ""),
                columns_digest=data.get("columns_digest", ""),
                detached=frozenset(_unrange(data.get("detached", ()))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LakeDamaged(f"this is not a watermark of pg_bronze: {type(error).__name__} {error}") from error


def check_format(data: Any, what: str) -> None:
    """Raises FormatTooNew if ``data`` was written by a later pg_bronze, LakeDamaged if it is no JSON object at all."""
    if not isinstance(data, Mapping):
        raise LakeDamaged(f"this is not {what} of pg_bronze: a {type(data).__name__}, not an object")
    found = data.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise FormatTooNew(
            f"{what} has format {found}, and this pg_bronze reads up to {FORMAT}: "
            "a newer pg_bronze wrote it. Update this one; nothing was changed."
        )


def _leaf_json(leaf: Leaf) -> dict[str, Any]:
    data = dataclasses.asdict(leaf)
    if leaf.pending and not leaf.pending.line:
        del data["pending"]["line"]
    return data


def _ranges(oids: Iterable[int]) -> list[list[int]]:
    """Ascending oids as closed ranges ``[first, last, step]``.

    Partitions made together are a few oids apart, always as many: row types and indexes take oids too.
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
