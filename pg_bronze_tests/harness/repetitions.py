"""Repetitions: cases that show again, on other servers or in other combinations, what a case of `make test` shows.

They have the marker ``repetition`` and run with ``--repetitions``, as in `make proof`.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from pg_bronze_tests.harness.servers import older_servers

repetition = pytest.mark.repetition


def also(*values: Any) -> list[Any]:
    """Return values of one parameter that are repetitions."""
    return [pytest.param(value, marks=repetition) for value in values]


def newest_alone() -> Any:
    """Mark a test of ``any_database``: on the newest version of PostgreSQL; on all others it is a repetition."""
    return pytest.mark.parametrize("any_postgres_server", ["18", *also(*older_servers())], indirect=True)


def on_seaweed_alone() -> Any:
    """Mark a test of ``any_bucket``: on MinIO it is a repetition."""
    return pytest.mark.parametrize("any_bucket", ["seaweed", *also("minio")], indirect=True)


def combinations(*values: Iterable[Any]) -> list[Any]:
    """Return all combinations of the values of several parameters.

    Each value is in at least one combination that is no repetition: with lists of 6 and 3 values, 6 of the 18.
    """
    lists: list[Sequence[Any]] = [list(found) for found in values]
    longest = max(map(len, lists))
    chosen = {tuple(number % len(found) for found in lists) for number in range(longest)}
    return [
        pytest.param(*(found[place] for found, place in zip(lists, places, strict=True)), marks=marks)
        for places in itertools.product(*(range(len(found)) for found in lists))
        for marks in [() if places in chosen else repetition]
    ]
