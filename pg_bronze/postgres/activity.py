"""TODO postgres.activity."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """What the cluster looks like to a probe: horizon, next transaction id, and the database's tables right now.

    ``oids`` maps ``(schema, name)`` to an oid, ``children`` a partitioned table's oid to its partitions', ``tuples`` an
    oid to the row versions inserted and updated so far, as far as the statistics know.
    """

    horizon: int
    next_xid: int
    standby: bool
    oids: Mapping[tuple[str, str], int]
    children: Mapping[int, tuple[int, ...]]
    tuples: Mapping[int, int]

    def leaves(self, oid: int) -> tuple[int, ...]:
        """The physical tables behind a table, in ascending order."""
        below = self.children.get(oid)
        if below is None:
            return (oid,)
        return tuple(sorted(leaf for child in below for leaf in self.leaves(child)))
