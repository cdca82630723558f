"""Notices: checks that only the assets have which they concern, and which of their results a tick records.

``drift`` warns for a time after the columns of a copied table changed. ``skipped`` warns while a table is not copied
that could be. A check of all tables would make the definitions of 1,000 tables a second slower each. No clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pg_bronze.scheduling.check_reports import REPEAT_BAD_S

# Of one tick. A result costs 4 ms.
MOST = 20


@dataclass(frozen=True)
class Notice:
    """A check of one asset.

    Attributes:
        asset: The key of the asset, as text.
        check: The name of the check.
        sentence: What a person should know, the remedy last.
        until: When the check passes again, in seconds since 1970; None while the asset has it.
    """

    asset: str
    check: Literal["drift", "skipped"]
    sentence: str
    until: float | None = None

    def passed(self, now: float) -> bool:
        """Return whether the check passes, at a time in seconds since 1970."""
        return self.until is not None and now >= self.until


@dataclass(frozen=True)
class Result:
    """A result that was recorded.

    Attributes:
        passed: Whether the check passed.
        sentence: What it said.
        at: When it was recorded, in seconds since 1970.
    """

    passed: bool
    sentence: str
    at: float


def due(notices: Iterable[Notice], recorded: Mapping[tuple[str, str], Result], now: float) -> Sequence[Notice]:
    """Return the notices whose result is recorded now.

    Args:
        recorded: The last result of each, by asset and check.
        now: Seconds since 1970.
    """
    return [item for item in notices if _is_due(item, recorded.get((item.asset, item.check)), now)][:MOST]


def _is_due(notice: Notice, last: Result | None, now: float) -> bool:
    passed = notice.passed(now)
    if last is None or last.passed != passed or last.sentence != notice.sentence:
        return True
    # Dagster shows no result of a check that is older than the newest copy of its asset.
    return notice.check == "drift" and not passed and now - last.at >= REPEAT_BAD_S
