"""The outcome of one batch: what it copied, what failed, and the exit status. No I/O."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pg_bronze.cli.terminal import of_a_command
from pg_bronze.errors import Retry
from pg_bronze.scheduling.health import State

# 2 is a wrong argument, as in other commands.
FAILED, BLOCKED, NOT_COPIED = 1, 3, 4


@dataclass(frozen=True)
class Copied:
    """What a batch copied of one table; 0 rows and objects for one without new rows.

    Attributes:
        uri: The newest of its objects.
    """

    row_count: int = 0
    object_count: int = 0
    size_bytes: int = 0
    uri: str | None = None


@dataclass(frozen=True)
class Failed:
    """Why a table failed, and what a retry requires."""

    sentence: str
    retry: Retry = "automatic"


@dataclass(frozen=True)
class StateAfter:
    """The state of a table after a batch, as `pg-bronze status` shows it, and its lag in seconds."""

    state: State
    lag_s: float


@dataclass(frozen=True)
class Outcome:
    """What one batch did.

    Attributes:
        copied: What it copied of each table that it read and that did not fail, by label.
        failed: The tables that failed, by label.
        not_copied: A sentence for each table that was copied before and is not any more, by label.
        revoked: Those of them whose right was revoked, which count as failed.
        blocked: Which open transaction keeps new rows from being copied, as a sentence; None if none does.
        states: The state of each table that it read or that failed, by label; empty if nobody asked for it.
    """

    copied: Mapping[str, Copied] = field(default_factory=dict)
    failed: Mapping[str, Failed] = field(default_factory=dict)
    not_copied: Mapping[str, str] = field(default_factory=dict)
    revoked: Collection[str] = ()
    blocked: str | None = None
    states: Mapping[str, StateAfter] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether no table failed, and the right on none that was copied before was revoked."""
        return not self.failed and not self.revoked

    def exit_code(self, strict: bool) -> int:
        """Return the exit status.

        Args:
            strict: Distinguish tables that are not copied any more from failed ones, and report blocked rows.
        """
        if self.failed or (self.revoked and not strict):
            return FAILED
        if self.not_copied and strict:
            return NOT_COPIED
        return BLOCKED if strict and self.blocked else 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "ok": bool(self),
            "rows": sum(item.row_count for item in self.copied.values()),
            "objects": sum(item.object_count for item in self.copied.values()),
            "tables": [
                {
                    "table": label,
                    "rows": item.row_count,
                    "objects": item.object_count,
                    "bytes": item.size_bytes,
                    "object": item.uri,
                    **self._state(label),
                }
                for label, item in sorted(self.copied.items())
            ],
            "failed": [
                {
                    "table": label,
                    "sentence": of_a_command(item.sentence),
                    "retry": item.retry,
                    **self._state(label),
                }
                for label, item in sorted(self.failed.items())
            ],
            "not_copied": [
                {"table": label, "sentence": of_a_command(sentence)}
                for label, sentence in sorted(self.not_copied.items())
            ],
            "blocked": self.blocked,
        }

    def _state(self, label: str) -> dict[str, Any]:
        found = self.states.get(label)
        return {"state": found.state if found else None, "lag_s": round(found.lag_s, 1) if found else None}
