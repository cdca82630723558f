"""The commit: how a slice becomes one object exactly once.

A timestamp in a key is no compare-and-swap. So a small claim, named by the watermark's ``seq``, is created first, only
if it does not exist. The PUT of the data is the commit: rows and watermark become visible in one atomic step.

This module does not know where slices come from: it writes what an iterator yields and sends the outcome back.
"""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pg_bronze.errors import LakeDamaged, Superseded
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.ledger import Committed, Ledger, committed_by
from pg_bronze.lake.parquet import Codec, Sized, encode, has_larger_rows

if TYPE_CHECKING:
    import polars as pl

BULKY_ROW_BYTES = 256 * 1024
# connectorx and Polars have buffers for each column: two slices of 1,600 columns take 209 MB, one after the other less.
BULKY_COLUMNS = 1000
Step = Callable[[str], None]
ReportT = TypeVar("ReportT")


def ignore_step(_name: str) -> None:
    """Do nothing after a step of a commit. Tests replace this to stop a writer there."""


def is_bulky(rows: Sized) -> bool:
    """Return whether the rows are so large that nothing else should be read while they are in memory."""
    return rows.width > BULKY_COLUMNS or has_larger_rows(rows, BULKY_ROW_BYTES)


@dataclass
class Slice:
    """One object to be written: its claim, its rows as they will be stored, and its footer.

    Attributes:
        claim: What the object commits, stored in the bucket before the object.
        frame: The rows. It is emptied once they are encoded, because two slices and their encodings are in memory.
        footer: What the object says about itself.
        redo: The claim was found in the bucket, left by another writer, and is not created again.
        seconds: How long the rows took to read.
        cursor_column: The column that shows progress, for the log line; None if there is none.
        row_count: Rows in the slice, also after the frame was emptied.
        bulky: The rows are so large that nothing else should be read during encoding, which takes seven times the
            largest value for a moment.
        body: The Parquet bytes, from ``encode_ahead`` to ``encoded``.
    """

    claim: Claim
    frame: "pl.DataFrame"
    footer: Footer
    redo: bool = False
    seconds: float = 0.0
    cursor_column: str | None = None
    row_count: int = field(init=False)
    bulky: bool = field(init=False)
    body: bytes | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.row_count = self.frame.height
        self.bulky = is_bulky(self.frame)

    def encode_ahead(self, codec: Codec) -> None:
        """Make the Parquet bytes now, and empty the frame."""
        self.body = self.encoded(codec)

    def encoded(self, codec: Codec) -> bytes:
        """Return the Parquet bytes and empty the frame; call it once."""
        body, self.body = self.body, None
        if body is None:
            body = encode(self.frame, self.footer, codec)
            self.frame = self.frame.clear()
        return body


Slices = Generator[Slice, Committed | None, ReportT]


class SliceWriter:
    """Writes the slices of one table into the bucket of its ledger.

    ``on_step`` is called with ``claim``, ``list``, ``put`` and ``unclaim`` after each of these requests.
    """

    def __init__(self, ledger: Ledger, codec: Codec, on_step: Step = ignore_step) -> None:
        self.ledger = ledger
        self.codec = codec
        self.on_step = on_step

    def write(self, piece: Slice) -> Committed:
        """Write one slice: claim, list again, PUT, remove the claim.

        Raises:
            Superseded: Another writer committed first. Recovery adopts what it wrote.
        """
        return self.commit(piece.claim, piece.encoded(self.codec), piece.footer, piece.redo)

    def commit(self, claim: Claim, body: bytes, footer: Footer, redo: bool = False) -> Committed:
        """Make an encoded slice an object; see ``write``."""
        store, claim_key, key = self.ledger.store, self.ledger.layout.claim(claim.after.seq), claim.after.key
        if not redo:
            self._claim(claim, claim_key)
        created = store.create(key, body)
        self.on_step("put")
        committed = committed_by(footer, key, len(body), own=True) if created else self._resolve_conflict(claim, key)
        store.delete(claim_key)
        self.on_step("unclaim")
        return committed

    def _claim(self, claim: Claim, claim_key: str) -> None:
        store, label = self.ledger.store, self.ledger.layout.label
        body = claim.to_text().encode()
        if not store.create(claim_key, body):
            # Only compared, not read: recovery decides what an unreadable claim means.
            existing = store.get(claim_key)
            if existing != body:
                raise Superseded(f"{label}: another writer has claimed object number {claim.after.seq}.")
        self.on_step("claim")
        # The claim alone does not prove that the number is free: an object may have been committed under it, and its
        # claim removed, since this writer's watermark was read.
        # Rows are only added after an object that exists; a reset or `continue` may follow a missing one.
        if not self.ledger.is_last(claim.before, must_exist=claim.region is not None):
            store.delete(claim_key)
            raise Superseded(f"{label}: this watermark is not the one of the table's last object.")
        self.on_step("list")

    def _resolve_conflict(self, claim: Claim, key: str) -> Committed:
        """Return the object that already exists under our key.

        It was written by our own repeated request, or by a writer that redid our claim. Its state and counts are valid.
        """
        footer = self.ledger.footer(key)
        if footer is None or not footer.continues(claim.before):
            raise LakeDamaged(
                f"{self.ledger.layout.label}: {self.ledger.store.uri(key)} existed before it was written, and does not "
                "continue the table's watermark. Move it out of the folder. Nothing of the table is copied until then."
            )
        return committed_by(footer, key, 0, own=footer.nonce == claim.nonce)


def write_all(
    slices: Slices[ReportT],
    writer: SliceWriter,
    on_written: Callable[[Slice, Committed | None, float], None] | None = None,
) -> ReportT:
    """Write each slice as its own object and return the report of the generator that yields them.

    The outcome of each write is sent into the generator before it yields the next slice: what was committed, or None
    if another writer committed first. ``on_written`` is called with each slice, its outcome and the seconds it took.
    """
    outcome: Committed | None = None
    with contextlib.closing(slices):
        try:
            piece = next(slices)
            while True:
                started = time.monotonic()
                try:
                    outcome = writer.write(piece)
                except Superseded:
                    outcome = None
                if on_written is not None:
                    on_written(piece, outcome, time.monotonic() - started)
                piece = slices.send(outcome)
        except StopIteration as end:
            report: ReportT = end.value
            return report
