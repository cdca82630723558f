"""What the tick sensor returned and the daemon did not record: it is returned again."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.due_tables import Check
from pg_bronze.defs.quiet_days import QuietDays
from pg_bronze.defs.tick_events import TickEvents
from pg_bronze.scheduling.health import TableHealth
from pg_bronze.scheduling.memory import Memory
from pg_bronze_tests.harness.project import Project, key, requested, settle

NOW = datetime.now(UTC)
DAY_BEFORE, YESTERDAY = ((NOW.date() - timedelta(days=days)).isoformat() for days in (2, 1))


@pytest.fixture
def eventful(cinema: Project) -> Project:
    """The next tick has an event of each kind: states, a quiet day of person, and a changed column of movie."""
    cinema.set(PG_BRONZE_START_DATE=(NOW - timedelta(days=4)).date().isoformat())
    cinema.reload()
    settle(cinema)
    copied = cinema.latest("person")
    assert copied is not None
    event = dg.AssetMaterialization(key("person"), partition=DAY_BEFORE, metadata=copied.metadata)
    cinema.instance.report_runless_asset_event(event)
    cinema.database.execute("alter table movie add column seats int")
    cinema.reload()
    return cinema


def names(events: Sequence[Any]) -> set[str]:
    """Return each event as its table with its check or partition."""
    return {f"{event.asset_key.path[-1]} {getattr(event, 'check_name', None) or event.partition}" for event in events}


def evaluate(project: Project, recorded: int | None) -> list[Any]:
    """Evaluate the sensor, and record its first events as the daemon does; all of them, and the cursor, if None."""
    cursor = project.cursor
    events = list(project.evaluate().asset_events)
    for event in events[:recorded]:
        project.instance.report_runless_asset_event(event)
    if recorded is not None:
        project.cursor = cursor
    return events


STATES = {"movie up_to_date", "person up_to_date"}
EVERYTHING = STATES | {f"person {YESTERDAY}", "movie drift"}


def test_events_that_the_daemon_did_not_record_are_returned_again(eventful: Project) -> None:
    """A state, a quiet day or a warning would be missing in the UI until it changes."""
    assert names(evaluate(eventful, recorded=0)) == EVERYTHING
    assert names(evaluate(eventful, recorded=3)) == EVERYTHING

    # A state is recorded once more if its table was copied in the same second.
    left = names(evaluate(eventful, recorded=None)) - STATES
    assert left == {"movie drift"}, "the daemon ended in between"
    assert names(evaluate(eventful, recorded=None)) - STATES == set(), "each event once"


def test_events_of_a_tick_that_fails_are_returned_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    events, at = TickEvents(None, CatalogState(None, NOW.date())), NOW.timestamp()
    good = TableHealth("movie", "up_to_date", "ok", "", at, at)
    bad = replace(good, state="failing", severity="error")

    def returned(before: str, tick: str, state: TableHealth) -> list[Any]:
        found = events.due(instance, before, tick, Check([], Memory(), ""), [(key("movie"), state)], NOW)
        return [event.passed for event in found]

    def fail(*_: Any) -> None:
        raise OSError("database is locked")

    with dg.DagsterInstance.ephemeral() as instance:
        assert returned("", "first", good) == [True]
        assert returned("first", "second", good) == []
        with monkeypatch.context() as patched:
            patched.setattr(QuietDays, "due", fail)
            with pytest.raises(OSError, match="locked"):
                returned("second", "failed", bad)
        assert returned("second", "third", bad) == [False]


def test_a_preview_that_finds_the_same_as_the_tick_before_loses_nothing(eventful: Project) -> None:
    """A person tests the sensor in the UI: what it returns is shown, and not recorded."""
    evaluate(eventful, recorded=None)
    eventful.database.execute("alter table person add column born date")
    eventful.reload()
    cursors = set()
    for _ in range(2):
        cursor = eventful.cursor
        assert "person drift" in names(eventful.evaluate().asset_events)
        cursors.add(eventful.cursor)
        eventful.cursor = cursor
    assert len(cursors) == 2


def test_the_warning_of_a_tick_that_the_daemon_did_not_record_is_logged_again(cinema: Project) -> None:
    lines = cinema.warnings_of_a_failing_table()

    for _ in range(2):
        cursor = cinema.cursor
        assert requested(cinema.evaluate())
        cinema.cursor = cursor

    assert len(lines) == 2
