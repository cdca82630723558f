"""What one command keeps between its batches, and what it does not print twice."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pg_bronze.cli.terminal import terminal
from pg_bronze.scheduling import backoff
from pg_bronze.scheduling.backoff import Failure

if TYPE_CHECKING:
    from pg_bronze.core.former_tables import FormerTable
    from pg_bronze.defs.due_tables import Check
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.scheduling.memory import Memory


@dataclass
class Batches:
    """The state that one command keeps between batches.

    Attributes:
        unattended: True for `pg-bronze run` and `tick --due`, which copy the tables that are due, as the sensor does.
            False is a batch that a person requested: it copies every committed row, and retries failing tables at once.
        once: True for `pg-bronze tick`, the only batch of its process.
        with_states: Ask for the state of the tables after the batch.
        printed: Sentences that are not repeated.
        notices: What the runs of this batch said about the control table and the reader.
        former_notices: What those of the last batch with runs said; it is not repeated.
        reported: The time of the last failure of each table that was printed.
        memory: What the last check returned; None before the first one.
        process: What this process keeps between checks.
        stored: The former tables of the catalog that was stored in the bucket; None if none was.
        pruned_at: When Dagster's storage was last pruned, in seconds since 1970.
        large_tables: The number of tables that are swept by a schedule, as the last check found it.
        large: The tables of this batch whose first load takes long.
        slow: The other tables of this batch whose last copy took long.
        never_copied: The tables that are skipped and were not copied before, as the last batch found them.
        revoked: The sentence of each table that is skipped and was copied before, as the last batch found them.
        blocked: New rows were blocked in the last batch, which was printed.
        server: The server that the last check asked; see ``run_watchdog``.
    """

    unattended: bool = False
    once: bool = False
    with_states: bool = False
    printed: set[str] = field(default_factory=set)
    notices: set[str] = field(default_factory=set)
    former_notices: set[str] = field(default_factory=set)
    reported: dict[str, float] = field(default_factory=dict)
    memory: "Memory | None" = None
    process: "Process | None" = None
    stored: "tuple[FormerTable, ...] | None" = None
    pruned_at: float = 0.0
    large_tables: int = 0
    large: Collection[str] = ()
    slow: Collection[str] = ()
    never_copied: Collection[str] = ()
    revoked: Mapping[str, str] = field(default_factory=dict)
    blocked: bool = False
    server: str = ""

    @property
    def is_scheduled(self) -> bool:
        """Whether it is the batch of `pg-bronze tick --due`, of which a scheduler reads the exit status."""
        return self.unattended and self.once

    @property
    def kind(self) -> str:
        """What requested the runs, as their tag names it. A large first load gets the time that the sensor gives it."""
        if not self.unattended:
            return "command"
        return "tick" if self.is_scheduled else "run"

    def print_once(self, sentence: str) -> None:
        """Print a sentence unless this command has printed it before."""
        if sentence not in self.printed:
            self.printed.add(sentence)
            terminal.print(sentence)

    def remember(self, found: "Check") -> None:
        """Keep what the check of this batch found, for its runs and for the next batch."""
        self.memory, self.large_tables = found.memory, found.large_tables
        self.large = {item.table.label for item in found.due if item.large}
        self.slow = {item.table.label for item in found.due if item.slow and not item.large}

    def knows(self, notice: str) -> bool:
        """Return whether the batch before this one, or a run of this one, has said the same."""
        known = notice in self.former_notices | self.notices
        self.notices.add(notice)
        return known

    def repeated(self, revoked: Mapping[str, str]) -> set[str]:
        """Return the tables whose sentence the batch before this one has printed too, by label."""
        former, self.revoked = self.revoked, revoked
        return {label for label, sentence in revoked.items() if former.get(label) == sentence}

    def report(self, failing: Mapping[str, tuple[Failure, float]]) -> None:
        """Print one sentence for each cause of failures that were not printed yet.

        Args:
            failing: The failure of each table and the time of its next retry, by label.
        """
        new = {name: found for name, found in failing.items() if self.reported.get(name) != found[0].last}
        self.reported |= {name: failure.last for name, (failure, _) in new.items()}
        for sentence in backoff.sentences(new, datetime.now(UTC).timestamp()):
            terminal.complain(sentence)

    def report_blocked(self, sentence: str | None) -> None:
        """Print once that new rows are blocked, and once that they are not any more."""
        if sentence and not self.blocked:
            terminal.complain(sentence)
        elif self.blocked and not sentence:
            terminal.complain("new rows are not blocked any more.")
        self.blocked = bool(sentence)
