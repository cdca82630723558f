"""Quiet days: a day without new rows is complete when it has ended, and the copy does not notice."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg
import pytest

from pg_bronze.defs import catalog_state
from pg_bronze.defs.due_tables import Check, TableCheck
from pg_bronze.defs.quiet_days import QuietDays
from pg_bronze.scheduling.due import Decision
from pg_bronze.scheduling.health import TableHealth
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, settle, values

NOW = datetime.now(UTC)
TODAY, YESTERDAY = NOW.date(), (NOW - timedelta(days=1)).date().isoformat()
LONG_AGO, DAY_BEFORE = ((TODAY - timedelta(days=days)).isoformat() for days in (3, 2))


@pytest.fixture
def quiet(cinema: Project) -> Project:
    """The table movie was copied three days ago, and both today."""
    cinema.set(PG_BRONZE_START_DATE=(TODAY - timedelta(days=4)).isoformat())
    cinema.reload()
    settle(cinema)
    report = cinema.instance.report_runless_asset_event
    report(dg.AssetMaterialization(key("movie"), partition=LONG_AGO, metadata=cinema.latest("movie").metadata))
    return cinema


def marked(project: Project, data: Any) -> list[tuple[str, str]]:
    """Store what the sensor returned, as the daemon does; return the partitions by table."""
    found = [event for event in data.asset_events if isinstance(event, dg.AssetMaterialization)]
    for event in found:
        project.instance.report_runless_asset_event(event)
    return [(event.asset_key.path[-1], event.partition) for event in found]


def test_the_days_since_the_last_one_with_rows_are_complete(quiet: Project) -> None:
    """person was first copied today, so it has no earlier day."""
    quiet.reload()  # a new process, as on the next day

    assert marked(quiet, quiet.evaluate()) == [("movie", DAY_BEFORE), ("movie", YESTERDAY)]

    assert values(quiet.latest("movie"))["pg_bronze/rows"] == 0
    days = {LONG_AGO, DAY_BEFORE, YESTERDAY, TODAY.isoformat()}
    assert quiet.instance.get_materialized_partitions(key("movie")) == days
    quiet.reload()
    assert marked(quiet, quiet.evaluate()) == [], "once"
    quiet.database.execute("insert into movie values (91, 'new', now())")
    assert quiet.copy("movie").success
    assert lake.compare(quiet.database, quiet.bucket, "movie") == lake.SAME


def test_a_table_that_may_have_rows_of_yesterday_is_complete_only_when_it_is_covered(quiet: Project) -> None:
    (table,) = [item for item in catalog_state.live(load_settings()).tables if item.name == "movie"]
    ended = datetime.combine(TODAY, time(), UTC).timestamp()
    state = TableHealth("movie", "up_to_date", "ok", "", NOW.timestamp(), ended - 1)
    unchanged, due = Decision(False, "unchanged"), Decision(True, "may have new rows")
    days = QuietDays(TODAY - timedelta(days=2))

    def marked_as(decision: Decision, state: TableHealth) -> bool:
        return bool(
            days.due(
                quiet.instance, Check([TableCheck(table, key("movie"), decision)], Memory(), "", health=[state]), NOW
            )
        )

    assert not marked_as(unchanged, state)
    assert not marked_as(due, replace(state, covered_at=ended))
    assert not marked_as(unchanged, replace(state, covered_at=ended, state="blocked"))
    assert marked_as(unchanged, replace(state, covered_at=ended))


def test_the_first_day_has_no_day_before(cinema: Project) -> None:
    cinema.set(PG_BRONZE_START_DATE=TODAY.isoformat())
    cinema.reload()
    settle(cinema)
    cinema.reload()
    assert marked(cinema, cinema.evaluate()) == []
