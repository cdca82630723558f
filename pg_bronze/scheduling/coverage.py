"""Coverage: the moment up to which the changes of a table are known to be in the lake.

Belongs here: what follows from samples of the next transaction id. Does not belong here: clocks, and how a table was
copied. Every change that was committed before a sample has a lower transaction id than the sample. So a table that is
copied up to a transaction is covered up to the last sample whose next id is not above that transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

# All samples of the last minute are kept. Of older ones, the distance grows with the age: a lag is at most this factor
# too long, never too short.
_KEEP_ALL_S = 60.0
_SPACING = 1.4
_MOST = 64


@dataclass(frozen=True)
class Sample:
    """The next transaction id of the cluster at one moment.

    Attributes:
        at: Seconds since 1970.
        next_xid: Every transaction that committed before has a lower id.
    """

    at: float
    next_xid: int


@dataclass(frozen=True)
class Coverage:
    """Samples of the last weeks, oldest first; the ids never fall.

    Attributes:
        samples: At most 64.
    """

    samples: tuple[Sample, ...] = ()

    def with_sample(self, at: float, next_xid: int, horizon: int) -> "Coverage":
        """Return the coverage with one more sample.

        A lower id than before is another cluster, or one that was restored: what was known of it is dropped. The last
        sample that is not above the horizon is kept, because a blocked table is covered exactly up to it.
        """
        before = [sample for sample in self.samples if sample.at < at]
        if before and before[-1].next_xid > next_xid:
            before = []
        if before and before[-1].next_xid == next_xid:
            before.pop()
        return Coverage(_thinned([*before, Sample(at, next_xid)], horizon))

    def until(self, swept: int) -> float | None:
        """Return up to when a table is covered that is copied up to a transaction, in seconds since 1970.

        Returns:
            None if that was before the first sample.
        """
        return max((sample.at for sample in self.samples if sample.next_xid <= swept), default=None)

    @property
    def since(self) -> float | None:
        """When the first sample was taken, in seconds since 1970; None without a sample."""
        return self.samples[0].at if self.samples else None

    def to_numbers(self) -> list[int]:
        """Return the samples as whole numbers, each as its distance from the one before; times are rounded down."""
        flat = [(int(sample.at), sample.next_xid) for sample in self.samples]
        return [
            number
            for (at, xid), (at0, xid0) in zip(flat, [(0, 0), *flat], strict=False)
            for number in (at - at0, xid - xid0)
        ]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> "Coverage":
        """Return the coverage that ``to_numbers`` wrote; numbers that cannot be one count as no sample."""
        times, ids = accumulate(numbers[::2]), accumulate(numbers[1::2])
        found = [Sample(float(at), xid) for at, xid in zip(times, ids, strict=False)]
        ordered = all(a.at <= b.at and a.next_xid < b.next_xid for a, b in pairwise(found))
        return cls(tuple(found[-_MOST:])) if ordered else cls()


def _thinned(samples: Sequence[Sample], horizon: int) -> tuple[Sample, ...]:
    newest = samples[-1].at
    pinned = max((sample.at for sample in samples if sample.next_xid <= horizon), default=None)
    kept: list[Sample] = []
    for sample in reversed(samples):
        age = newest - sample.at
        due = not kept or age <= _KEEP_ALL_S or age >= (newest - kept[-1].at) * _SPACING
        if due or sample.at == pinned:
            kept.append(sample)
    return tuple(reversed(kept[:_MOST]))
