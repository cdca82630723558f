"""A simulated PostgreSQL cluster with one table: ids, open transactions and row versions in blocks.

It returns what PostgreSQL would. It does not execute SQL: a ``Region`` is evaluated in Python, and
core/test_window_sql.py compares the SQL with the same meaning.
"""

import itertools
import math
from dataclasses import dataclass, field

from pg_bronze.core.cells import Cell
from pg_bronze.core.leaf import Order
from pg_bronze.core.region import Region
from pg_bronze.core.table import Column, Relation, SourceTable
from pg_bronze.errors import (
    TableChanged,
)


@dataclass
class Version:
    """One row version. ``xmax`` 0 means that no transaction has updated or deleted it; ``line`` is its line pointer.

    ``moment`` is the value of the indexed column: None for NULL, or an infinite number or NaN.
    """

    id: int
    xmin: int
    block: int
    line: int
    xmax: int = 0
    moment: float | None = 0.0

    @property
    def place(self) -> tuple[int, int]:
        return self.block, self.line


@dataclass
class File:
    """One physical table."""

    oid: int
    name: str
    node: int
    pages: int = 0
    versions: list[Version] = field(default_factory=list)

    def free_line(self, block: int) -> int:
        """Return the lowest line pointer of a block that no version uses; vacuum makes them available again."""
        taken = {version.line for version in self.versions if version.block == block}
        return next(line for line in itertools.count(1) if line not in taken)


@dataclass
class Transaction:
    """An open transaction: the ids of its levels, which are its savepoints that were not released."""

    levels: list[list[int]] = field(default_factory=lambda: [[]])
    touched: set[int] = field(default_factory=set)

    @property
    def ids(self) -> set[int]:
        return set(itertools.chain(*self.levels))


class Cluster:
    """A PostgreSQL cluster with one table that is copied."""

    def __init__(self, partitioned: bool) -> None:
        self.partitioned = partitioned
        self.typmod = -1
        self.next_xid = 100
        self.committed: set[int] = set()
        self.open: list[Transaction] = []
        self.number = 16384
        self.row_id = 0
        self.definition = 0
        self.log = 0
        self.clock = 0
        self.written = 0
        self.attnum = 2
        self.indexed = True
        self.files: dict[int, File] = {}
        self.detached: list[int] = []
        self.attached: list[int] = []
        self._make_table()

    def _next(self) -> int:
        self.number += 3
        return self.number

    def _file(self, name: str = "") -> File:
        oid = self._next()
        file = File(oid, name or f"movie_{oid}", oid)
        self.files[oid] = file
        return file

    def _make_table(self) -> None:
        self.files, self.detached = {}, []
        if self.partitioned:
            self.oid = self._next()
            self.attached = [self._file().oid for _ in range(2)]
        else:
            self.oid = self._file("movie").oid
            self.attached = [self.oid]
        self.definition += 1

    # Transactions

    def assign(self, transaction: Transaction) -> int:
        """Return the id with which the innermost level writes; outer levels get their ids first."""
        for level in transaction.levels:
            if not level:
                level.append(self.next_xid)
                self.next_xid += 1
        return transaction.levels[-1][0]

    def end(self, transaction: Transaction, commit: bool) -> None:
        if commit:
            self.committed |= transaction.ids
        self.open.remove(transaction)

    def begin(self) -> Transaction:
        """Return a transaction that the caller ends at once."""
        self.open.append(Transaction())
        return self.open[-1]

    @property
    def horizon(self) -> int:
        return min((t.levels[0][0] for t in self.open if t.levels[0]), default=self.next_xid)

    def is_running(self, xid: int) -> bool:
        return any(xid in t.ids for t in self.open)

    def visible(self, file: File) -> list[Version]:
        return [v for v in file.versions if v.xmin in self.committed and v.xmax not in self.committed]

    def changeable(self, file: File, transaction: Transaction) -> list[Version]:
        """Return the rows that the transaction sees and that no other transaction has locked."""
        seen = self.committed | transaction.ids
        return [v for v in file.versions if v.xmin in seen and v.xmax not in seen and not self.is_running(v.xmax)]

    # Rows

    def insert(
        self,
        transaction: Transaction,
        file: File,
        block: int,
        row_id: int | None = None,
        moment: float | str | None = "now",
    ) -> None:
        if row_id is None:
            self.row_id += 1
            row_id = self.row_id
        xid = self.assign(transaction)
        transaction.touched.add(file.oid)
        file.pages = max(file.pages, block + 1)
        self.written += 1
        moment = self.now() if moment == "now" else moment
        file.versions.append(Version(row_id, xid, block, file.free_line(block), moment=moment))

    def now(self) -> float | None:
        """Return the value of the indexed column for a new row version: mostly the time, which rises."""
        self.clock += 1
        odd = {0: None, 1: math.inf, 2: math.nan, 3: 1.0, 4: -math.inf}
        return odd.get(self.clock % 17, float(self.clock // 2))

    def change(self, transaction: Transaction, file: File, nth: int, how: str) -> None:
        """Update a row in its block (``hot``), or into another block or partition (``moved``), or delete it."""
        rows = self.changeable(file, transaction)
        if not rows:
            return
        row = rows[nth % len(rows)]
        row.xmax = self.assign(transaction)
        transaction.touched.add(file.oid)
        if how == "hot":
            self.insert(transaction, file, row.block, row.id, row.moment)
        if how == "moved":
            target = self.leaf(nth) if file.oid in self.attached else file
            self.insert(transaction, target, nth % (target.pages + 1), row.id)

    def leaf(self, nth: int) -> File:
        """Return one of the physical tables; a detached one only if none is attached."""
        oids = self.attached or list(self.files)
        return self.files[oids[nth % len(oids)]]

    def anywhere(self, nth: int) -> File:
        """Return one of the physical tables, including detached ones."""
        return list(self.files.values())[nth % len(self.files)]

    # Changes of the definition. Each uses an id, and waits for writers; here it does not happen if it would wait.

    def _alter(self, *files: File) -> int | None:
        oids = {file.oid for file in files} or set(self.files)
        if any(oids & t.touched for t in self.open):
            return None
        xid = self.next_xid
        self.next_xid += 1
        self.committed.add(xid)
        self.definition += 1
        return xid

    def rewrite(self, nth: int) -> None:
        """Run VACUUM FULL: rows keep their ids and move to other blocks."""
        file = self.leaf(nth)
        if self._alter(file):
            rows = sorted(self.visible(file), key=lambda v: (v.id * 7) % 5)
            file.versions = [Version(v.id, v.xmin, n // 2, n % 2 + 1, 0, v.moment) for n, v in enumerate(rows)]
            file.pages, file.node = -(-len(rows) // 2), self._next()

    def vacuum(self, nth: int) -> None:
        """Remove dead versions; later rows use their line pointers again."""
        file = self.anywhere(nth)
        file.versions = [
            v
            for v in file.versions
            if (v.xmin in self.committed or self.is_running(v.xmin))
            and not (v.xmax in self.committed and v.xmax < self.horizon)
        ]

    def reload(self, nth: int) -> None:
        """TRUNCATE the table and COPY most of its keys in one transaction."""
        file = self.leaf(nth)
        if xid := self._alter(file):
            kept = [v.id for v in self.visible(file)][nth % 2 :]
            file.versions = [Version(row_id, xid, n // 2, n % 2 + 1) for n, row_id in enumerate(kept)]
            file.pages, file.node = -(-len(kept) // 2), self._next()

    def recreate(self, nth: int) -> None:
        """DROP the table and CREATE it under the same name, with some of the old keys."""
        old = [v.id for oid in self.attached for v in self.visible(self.files[oid])]
        if xid := self._alter():
            self._make_table()
            for n, row_id in enumerate(old[nth % 2 :]):
                file = self.leaf(n)
                file.versions.append(Version(row_id, xid, n // 3, file.free_line(n // 3)))
                file.pages = n // 3 + 1

    def retype(self, nth: int) -> None:
        """Change a column without changing rows or values; there are three possible definitions."""
        if self._alter():
            self.typmod = nth % 3

    def unindex(self, nth: int) -> None:
        """Drop the index, or create it again. Neither changes the definition of the table."""
        self.indexed = not self.indexed or bool(nth % 3)

    def replace_column(self, _nth: int) -> None:
        """Drop the indexed column and add one like it."""
        if self._alter():
            self.attnum += 1

    def detach(self, nth: int) -> None:
        if self.partitioned and self.attached and self._alter():
            oid = self.attached.pop(nth % len(self.attached))
            self.detached.append(oid)

    def attach(self, nth: int) -> None:
        """Attach a detached partition, or a new table that already contains rows."""
        if self.partitioned and (xid := self._alter()):
            if not self.detached:
                file = self._file()
                for block in range(nth % 4):
                    self.row_id += 1
                    file.versions.append(Version(self.row_id, xid, block, 1))
                    file.pages = block + 1
                self.detached.append(file.oid)
            self.attached.append(self.detached.pop(nth % len(self.detached)))
            self.attached.sort()

    def table(self) -> SourceTable:
        """Return the table as the catalog describes it."""
        files = [self.files[oid] for oid in self.attached]
        ordered_by = ("updated_at",) if self.indexed else ()
        relations = tuple(Relation(f.oid, "public", f.name, f.node, f.pages, 0, ordered_by) for f in files)
        rows = float(sum(len(self.visible(f)) for f in files))
        column = Column(1, "id", "bigint", "int8", self.typmod, not_null=True)
        moment = Column(self.attnum, "updated_at", "double precision", "float8", -1, not_null=False)
        fingerprint = f"{self.oid} {self.definition} {[(r.oid, r.relfilenode) for r in relations]}"
        key, columns = ("id",), (column, moment)
        return SourceTable(
            self.oid, "public", "movie", self.partitioned, None, columns, key, relations, rows, None, fingerprint
        )

    def newest(self, rank: int) -> str | None:
        """Return the finite value of the indexed column at a rank from the newest."""
        rows = [v.moment for oid in self.attached for v in self.visible(self.files[oid])]
        finite = sorted((value for value in rows if value is not None and math.isfinite(value)), reverse=True)
        return str(int(finite[rank])) if rank < len(finite) else None

    def select(self, region: Region) -> list[tuple[int, float | None, int]]:
        """Return ``(id, moment, xid)`` of the row versions in a region that a snapshot taken now contains."""
        if region.only:
            found = [f for f in self.files.values() if f.name == region.name]
            if not found:
                raise TableChanged(f"{region.name} does not exist")
        else:
            assert self.partitioned
            found = [self.files[oid] for oid in self.attached if oid in region.leaves]
        first, last = region.blocks or (0, None)
        return [
            (v.id, v.moment, v.xmin)
            for f in found
            for v in self.visible(f)
            if (region.start is None or v.xmin >= region.start) and v.xmin < region.end
            if v.place >= (first, region.lines[0]) and (last is None or v.place < (last, region.lines[1]))
            if not region.cells or any(_contains(cell, region.order, v) for cell in region.cells)
        ]


def _contains(cell: Cell, order: Order | None, version: Version) -> bool:
    assert order is not None
    return (
        (cell.start is None or version.xmin >= cell.start)
        and version.xmin < cell.end
        and (cell.floor is None or _is_above(order, cell.floor, version))
        and (cell.ceiling is None or not _is_above(order, cell.ceiling, version))
        and version.place >= cell.first
        and (cell.last is None or version.place < cell.last)
    )


def _is_above(order: Order, floor: str, version: Version) -> bool:
    """Compare as PostgreSQL does: NaN is above every number, and NULL is above nothing."""
    if order.attnum is None:
        return version.block >= int(floor)
    return version.moment is not None and (math.isnan(version.moment) or version.moment > float(floor))
