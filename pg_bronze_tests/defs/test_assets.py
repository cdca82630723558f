"""Materializations: the rows in the bucket, the metadata, and the effect of a failing table on the others."""

import json
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from pg_bronze.defs import metadata, resources
from pg_bronze.defs.sensors import tick
from pg_bronze.postgres.control_table import Control
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, messages, sentences, set_dagsters_clock, values


def days_ago(days: int) -> date:
    """Return a day in UTC. Not a constant, because the tests of one process may run past midnight."""
    return datetime.now(UTC).date() - timedelta(days=days)


def _events(result: dg.ExecuteInProcessResult, table: str) -> list[dg.AssetMaterialization]:
    found = result.asset_materializations_for_node("__".join(key(table).path))
    return [item for item in found if isinstance(item, dg.AssetMaterialization)]


def _observations(project: Project, table: str) -> list[dg.AssetObservation]:
    found = [
        item.event_log_entry.asset_observation for item in project.instance.fetch_observations(key(table), 10).records
    ]
    return [item for item in found if item is not None]


def _days(project: Project, table: str) -> set[str]:
    return project.instance.get_materialized_partitions(key(table))


def _copy_on(project: Project, day: date, table: str = "movie", second: int = 0) -> None:
    """Copy with the clock of another day: the object is of that day, and is recorded under the partition of today."""
    with project.monkeypatch.context() as patch:
        patch.setattr(resources, "_now", lambda: datetime(day.year, day.month, day.day, 12, 0, second, tzinfo=UTC))
        assert project.copy(table).success


def test_new_rows_are_one_materialization_with_all_numbers(cinema: Project):
    result = cinema.copy("movie")

    assert result.success
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    (event,) = _events(result, "movie")
    (object_key,) = lake.keys(cinema.bucket, "movie")
    entries = values(event)
    assert event.partition == days_ago(0).isoformat()
    assert entries["pg_bronze/rows"] == 5
    assert (entries["dagster/row_count"], entries["dagster/partition_row_count"]) == (5, 5)
    assert (entries["pg_bronze/late_rows"], entries["pg_bronze/late_rows_total"]) == (0, 0)
    assert entries["pg_bronze/bytes"] == len(cinema.bucket.store().get(object_key) or b"")
    assert entries["pg_bronze/cursor_age_s"] > 0
    assert entries["dagster/uri"] == f"s3://{cinema.bucket.name}/{object_key}"
    watermark = cinema.watermark("movie")
    assert watermark is not None
    assert watermark.key == object_key
    assert entries["pg_bronze/copied_up_to"] == (
        f"updated_at = 2026-01-02 03:04:05+00, transaction {watermark.highest_horizon}"
    )
    assert metadata.cursor_of(entries) == ("updated_at", "2026-01-02 03:04:05+00")


def test_a_person_finds_rows_first_and_the_watermark_last_and_only_quantities_are_plotted(cinema: Project):
    """Dagster's page keeps this order, and draws a plot of every number."""
    cinema.copy("movie")
    cinema.database.execute("insert into movie values (6, 'new', now())")
    cinema.copy("movie")
    event = cinema.latest("movie")
    assert event is not None
    assert list(event.metadata) == [
        "pg_bronze/rows",
        "pg_bronze/bytes",
        "pg_bronze/duration_s",
        "pg_bronze/late_rows",
        "dagster/uri",
        "dagster/row_count",
        "dagster/partition_row_count",
        "pg_bronze/late_rows_total",
        "pg_bronze/cursor_age_s",
        "pg_bronze/copied_up_to",
        "pg_bronze/watermark",
    ]
    plotted = {name for name, value in event.metadata.items() if isinstance(value.value, int | float)}
    assert plotted == {
        *("pg_bronze/rows", "pg_bronze/bytes", "pg_bronze/duration_s", "pg_bronze/late_rows"),
        *("dagster/row_count", "dagster/partition_row_count", "pg_bronze/late_rows_total", "pg_bronze/cursor_age_s"),
    }
    assert "\n" not in str(event.metadata["pg_bronze/watermark"].value)


def test_rows_and_late_rows_of_several_runs_add_up_and_those_of_a_day_too(cinema: Project):
    """The UI shows these numbers of the last event as those of the table and of the partition."""
    _copy_on(cinema, days_ago(1))
    cinema.database.execute("insert into movie values (6, 'new', now())")
    cinema.copy("movie")
    cinema.database.execute("insert into movie values (7, 'new', now()); update movie set title = 'x' where id < 3")
    cinema.copy("movie")

    found = values(cinema.latest("movie"))
    assert (found["dagster/row_count"], found["dagster/partition_row_count"]) == (9, 4)
    assert (found["pg_bronze/late_rows"], found["pg_bronze/late_rows_total"]) == (2, 2)


def test_a_table_without_a_cursor_column_shows_no_late_rows(project: Project):
    project.database.execute("create table rule (code text primary key); insert into rule values ('a')")
    project.reload()
    project.copy("rule")
    project.database.execute("insert into rule values ('b')")
    project.copy("rule")
    found = values(project.latest("rule"))
    assert found["dagster/row_count"] == 2
    assert not [name for name in found if "late" in name]


def test_events_stay_small(cinema: Project):
    """Dagster stores each event twice, every ten seconds. Column schemas are part of the definition."""
    event = cinema.copy("movie") and cinema.instance.get_latest_materialization_event(key("movie"))

    assert len(dg._serdes.serialize_value(event)) < 5000


def test_a_change_of_columns_is_in_the_log_and_in_the_event_of_the_first_rows_after_it(cinema: Project):
    """A removed column breaks assets downstream, and their owner searches here for the reason."""
    cinema.copy("movie")
    cinema.database.execute("alter table movie rename title to name; insert into movie values (6, 'film 6')")

    result = cinema.copy("movie")

    assert "movie: column 'title' was renamed to 'name'" in messages(cinema, result)
    assert values(cinema.latest("movie"))["pg_bronze/drift"] == "column 'title' was renamed to 'name'"
    cinema.database.execute("insert into movie values (7, 'film 7')")
    cinema.copy("movie")
    assert "pg_bronze/drift" not in values(cinema.latest("movie"))


def test_values_that_a_policy_was_applied_to_are_counted_in_the_event(project: Project):
    """An analyst who finds the year 262142 needs an explanation."""
    project.database.execute("create table movie (id int primary key, price numeric(10,2), until date)")
    project.database.execute("insert into movie values (1, 'NaN', 'infinity'), (2, 'NaN', '2024-01-01'), (3, 1, null)")
    project.set(PG_BRONZE_TABLES='{"movie": {"nan": "null"}}')
    project.reload()

    assert project.copy("movie").success

    assert values(project.latest("movie"))["pg_bronze/exceptional_values"] == {
        "price": {"nan as null": 2},
        "until": {"infinity as sentinel": 1},
    }


def test_a_value_that_cannot_be_stored_fails_its_table_and_the_message_contains_the_setting(cinema: Project):
    cinema.database.execute("alter table movie add price numeric(10,2); update movie set price = 'NaN' where id = 3")
    cinema.reload()

    result = cinema.copy()

    (sentence,) = sentences(result).values()
    assert sentence.startswith("movie: column 'price' (numeric(10,2)) contains NaN")
    assert "PG_BRONZE_TABLES='" + '{"movie": {"nan": "text"}}' + "'" in sentence
    assert lake.ids(cinema.bucket, "person") == [1, 2, 3]


def test_a_run_without_new_rows_succeeds_and_records_the_transaction_up_to_which_it_read(cinema: Project):
    """A materialization without rows would hide the time of the last rows; a failure would be a false alarm."""
    cinema.copy("movie")
    before = cinema.watermark("movie")
    cinema.database.execute("create table noise ()")

    result = cinema.copy("movie")

    assert result.success
    assert _events(result, "movie") == []
    observed = cinema.instance.fetch_observations(key("movie"), limit=5).records
    assert len(observed) == 1
    generation, upto = metadata.quiet_upto(observed[0].event_log_entry.asset_observation)
    assert before is not None
    assert generation == before.generation
    assert upto > max(leaf.swept or 0 for leaf in before.leaves.values())
    assert cinema.watermark("movie") == before


def test_only_new_row_versions_are_copied(cinema: Project):
    cinema.copy("movie")
    cinema.database.execute(
        "insert into movie values (6, 'new', now()); update movie set title = 'changed' where id = 2"
    )

    cinema.copy("movie")

    assert lake.ids(cinema.bucket, "movie") == [1, 2, 2, 3, 4, 5, 6]
    assert lake.compare(cinema.database, cinema.bucket, "movie") == lake.SAME
    assert values(cinema.latest("movie"))["pg_bronze/rows"] == 2


@pytest.mark.parametrize("how", ["wiped", "reported by hand", "another instance"])
def test_without_a_recorded_watermark_no_row_is_copied_again(cinema: Project, how: str):
    """The footers are the truth. A lost event must not duplicate rows."""
    cinema.copy("movie")
    if how == "wiped":
        cinema.instance.wipe_assets([key("movie")])
    elif how == "reported by hand":
        cinema.instance.report_runless_asset_event(
            dg.AssetMaterialization(key("movie"), partition=days_ago(0).isoformat())
        )
    else:
        cinema.instance = dg.DagsterInstance.ephemeral()

    result = cinema.copy("movie")

    assert result.success
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    assert sum("It was rebuilt from the objects" in line for line in messages(cinema, result)) == 1
    assert cinema.watermark("movie") is not None, "an unrecorded watermark would be rebuilt in every run"
    assert cinema.copy("movie").success
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]


def test_a_table_without_permission_does_not_stop_the_others(cinema: Project):
    cinema.database.execute(
        "create role narrow login password 'narrow'; grant select on movie, person to narrow;"
        "grant create on schema public to narrow"
    )
    cinema.set(PG_USER="narrow", PG_PASS="narrow")
    try:
        cinema.reload()
        cinema.database.execute("revoke select on movie from narrow")

        result = cinema.copy()

        assert not result.success
        failed = sentences(result)
        assert list(failed) == ["bronze__movie"]
        assert "grant select" in failed["bronze__movie"]
        assert lake.ids(cinema.bucket, "person") == [1, 2, 3]
        cinema.database.execute("grant select on movie to narrow")
        assert cinema.copy().success
        assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    finally:
        cinema.database.execute("drop owned by narrow; drop role narrow")


def test_an_invalid_cursor_setting_fails_only_its_table(cinema: Project):
    cinema.set(PG_BRONZE_TABLES=json.dumps({"movie": {"cursor_column": "updatet_at"}}))
    graph = cinema.reload().resolve_asset_graph()

    result = cinema.copy()

    assert "**Invalid setting**" in graph.get(key("movie")).description
    failed = sentences(result)
    assert list(failed) == ["bronze__movie"]
    assert "updatet_at" in failed["bronze__movie"]
    assert lake.ids(cinema.bucket, "person") == [1, 2, 3]


def test_a_failure_is_one_sentence_with_what_a_retry_requires(cinema: Project):
    cinema.database.execute("drop table movie")

    result = cinema.copy("movie")

    (failed,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    data = failed.step_failure_data.user_failure_data
    assert data.description.startswith("movie: the table does not exist any more")
    assert data.metadata["pg_bronze/retry"].value == "automatic"


def test_a_run_requested_before_midnight_copies_after_it(cinema: Project):
    """It would otherwise copy nothing, and all tables would wait for the tick after it."""
    midnight = datetime.combine(days_ago(0), datetime.min.time(), UTC)
    before, after = midnight - timedelta(seconds=2), midnight + timedelta(seconds=5)
    with cinema.monkeypatch.context() as patch:
        patch.setattr(tick, "datetime", SimpleNamespace(now=lambda _zone: before))
        set_dagsters_clock(patch, lambda: before)
        (request,) = cinema.evaluate().run_requests
    with cinema.monkeypatch.context() as patch:
        patch.setattr(resources, "_now", lambda: after)
        result = cinema.copy("movie", day=request.partition_key, tags=request.tags)

    assert request.partition_key == days_ago(1).isoformat()
    assert result.success
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    assert [key[-22:-14] for key in lake.keys(cinema.bucket, "movie")] == [f"{days_ago(0):%Y%m%d}"]
    assert _days(cinema, "movie") == {days_ago(1).isoformat(), days_ago(0).isoformat()}
    assert cinema.copy("movie").success
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]


def test_a_day_with_new_objects_is_materialized_although_the_run_is_of_another_day(cinema: Project):
    """A run that crosses midnight writes objects of two days. One of them would be shown as missing."""
    _copy_on(cinema, days_ago(1))

    assert _days(cinema, "movie") == {days_ago(1).isoformat(), days_ago(0).isoformat()}


def test_yesterday_is_materialized_when_one_of_its_objects_is_adopted_today(cinema: Project):
    """A run was killed between its object and its event, and the first run of the next day finds the object."""
    _copy_on(cinema, days_ago(1))
    first = cinema.watermark("movie")
    assert first is not None
    cinema.database.execute("insert into movie values (6, 'not recorded', now())")
    _copy_on(cinema, days_ago(1), second=10)
    cinema.instance = dg.DagsterInstance.ephemeral()  # only the first object is recorded there
    cinema.instance.report_runless_asset_event(
        dg.AssetMaterialization(key("movie"), metadata=metadata.of_watermark(first))
    )

    result = cinema.copy("movie")

    assert result.success
    assert _days(cinema, "movie") == {days_ago(1).isoformat(), days_ago(0).isoformat()}
    assert '"seq":2' in values(cinema.latest("movie"))["pg_bronze/watermark"]
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5, 6]


def test_adopted_objects_are_recorded_in_a_run_without_new_rows(cinema: Project):
    cinema.copy("movie")
    cinema.instance = dg.DagsterInstance.ephemeral()

    result = cinema.copy("movie")

    assert len(_events(result, "movie")) == 1
    assert cinema.watermark("movie") is not None


def test_one_run_of_several_days_copies_once_and_materializes_each_day(cinema: Project):
    """A backfill over months would otherwise be one run and one copy for each day."""
    days = [days_ago(2), days_ago(1), days_ago(0)]
    tags = {
        "dagster/asset_partition_range_start": days[0].isoformat(),
        "dagster/asset_partition_range_end": days[-1].isoformat(),
    }

    result = cinema.copy("movie", tags=tags)

    assert result.success, sentences(result)
    assert {event.partition for event in _events(result, "movie")} == {day.isoformat() for day in days}
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    assert all('"seq":1,' in values(event)["pg_bronze/watermark"] for event in _events(result, "movie"))


def test_a_run_without_a_partition_copies_into_today(cinema: Project):
    """The Launchpad of a job lets a person start one, and it would fail after the first slice."""
    job = cinema.definitions.resolve_job_def("bronze")

    result = job.execute_in_process(instance=cinema.instance, asset_selection=[key("movie")], raise_on_error=False)

    assert result.success, sentences(result)
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    assert days_ago(0).isoformat() in _days(cinema, "movie")
    assert cinema.watermark("movie") is not None


def test_the_number_of_new_rows_is_in_the_log_and_in_a_tag_of_the_run(cinema: Project):
    cinema.copy("movie")
    cinema.database.execute("insert into person values (4, 'new')")

    result = cinema.copy()

    run = cinema.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert (run.tags["rows"], run.tags["tables"], "failed" in run.tags) == ("4", "movie, person", False)
    assert "batch: 4 new rows in 1 table, 1 unchanged" in messages(cinema, result)


def test_each_slice_is_one_line_in_the_log(cinema: Project):
    result = cinema.copy("movie")

    (line,) = [message for message in messages(cinema, result) if message.startswith("copied ")]
    (object_key,) = lake.keys(cinema.bucket, "movie")
    assert line.startswith("copied movie: 5 rows, transactions [first, ")
    assert f"updated_at up to 2026-01-02 03:04:05+00 -> s3://{cinema.bucket.name}/{object_key} in " in line


def test_every_copied_table_has_a_control_row(cinema: Project):
    cinema.copy()

    rows = cinema.database.execute(
        "select table_name, last_extracted_value, tracking_column from etl_control order by 1"
    )

    assert rows[0] == ("movie", "2026-01-02 03:04:05+00", "updated_at")
    assert [row[0] for row in rows] == ["movie", "person"]


def test_the_first_run_logs_once_where_the_mirror_is(cinema: Project):
    """A person who searches the control table in another database finds no row."""
    place = f"etl_control is mirrored in database {cinema.database.name}, schema public"

    first = messages(cinema, cinema.copy())
    cinema.database.execute("insert into movie values (6, 'new')")
    second = messages(cinema, cinema.copy())

    assert first.count(place) == 1
    assert place not in second


def test_a_login_that_connectorx_lacks_is_named_once_in_the_log_of_a_run(cinema: Project, monkeypatch):
    """Reading takes twice the CPU from then on, and nothing else would show it."""
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")

    logged = messages(cinema, cinema.copy())

    assert logged.count("Slices are read with COPY: connectorx does not use PGREQUIREAUTH.") == 1


def test_the_control_table_follows_a_connection_that_was_replaced(cinema: Project, monkeypatch):
    """Otherwise nothing is mirrored for the rest of a run in which the server ended the idle session once."""
    where = Control.where

    def end_session_after(control):
        found = where(control)
        cinema.database.execute(f"select pg_terminate_backend({control.connection.info.backend_pid}, 5000)")
        return found

    monkeypatch.setattr(Control, "where", end_session_after)

    logged = messages(cinema, cinema.copy())

    assert not any("is not mirrored" in message for message in logged)
    assert cinema.database.execute("select count(*) from etl_control") == [(2,)]


def test_an_edited_control_row_has_no_effect_and_is_written_again(cinema: Project):
    """Users of the original system set the value back to copy again; here that would duplicate rows."""
    cinema.copy("movie")
    cinema.database.execute("update etl_control set last_extracted_value = '1999-01-01'")
    cinema.database.execute("insert into movie values (6, 'new', '2026-02-03 00:00+00')")

    result = cinema.copy("movie")

    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5, 6]
    assert cinema.database.execute("select last_extracted_value from etl_control") == [("2026-02-03 00:00:00+00",)]
    edited = "etl_control: the row of movie was edited or deleted"
    assert any(edited in message for message in messages(cinema, result))


def test_many_slices_in_one_run_are_many_objects_and_one_event(project: Project):
    project.set(PG_BRONZE_SLICE_ROWS="300")
    project.database.execute("create table movie (id int); insert into movie select generate_series(1, 1000)")
    project.reload()

    result = project.copy("movie")

    assert result.success
    assert len(lake.keys(project.bucket, "movie")) >= 4
    assert len(_events(result, "movie")) == 1
    assert lake.ids(project.bucket, "movie") == list(range(1, 1001))
    assert values(project.latest("movie"))["pg_bronze/rows"] == 1000


def _downstream(project: Project, **options):
    """Return a job with a user's asset whose input is the bronze table, and the frames that it received."""
    seen: list[pl.DataFrame] = []

    @dg.asset(ins={"movie": dg.AssetIn(key("movie"))}, **options)
    def report(movie) -> None:
        assert isinstance(movie, pl.LazyFrame)
        seen.append(movie.collect())

    merged = dg.Definitions.merge(project.definitions, dg.Definitions([report]))
    return merged.resolve_implicit_global_asset_job_def(), seen


def test_an_asset_downstream_receives_the_rows_of_its_day(cinema: Project):
    _copy_on(cinema, days_ago(1))
    cinema.database.execute("insert into movie values (6, 'new', now())")
    cinema.copy("movie")
    days = cinema.definitions.resolve_asset_graph().get(key("movie")).partitions_def
    job, seen = _downstream(cinema, partitions_def=days)

    for day in (days_ago(0), days_ago(1), days_ago(2)):
        result = job.execute_in_process(
            instance=cinema.instance, asset_selection=[dg.AssetKey("report")], partition_key=day.isoformat()
        )
        assert result.success

    assert [frame["id"].to_list() for frame in seen] == [[6], [1, 2, 3, 4, 5], []]


def test_an_asset_downstream_without_partitions_receives_all_days(cinema: Project):
    """Most days of a definition have no object, which is not an error."""
    cinema.copy("movie")
    job, seen = _downstream(cinema)

    assert job.execute_in_process(instance=cinema.instance, asset_selection=[dg.AssetKey("report")]).success

    assert seen[0]["id"].to_list() == [1, 2, 3, 4, 5]
    assert "_pg_xid" in seen[0].columns


def test_an_asset_downstream_receives_the_current_columns_for_every_day(cinema: Project):
    """It would fail with a missing column on every day before the change and every day without a row."""
    _copy_on(cinema, days_ago(1))
    cinema.database.execute("alter table movie rename title to name; alter table movie add note text default 'none'")
    cinema.database.execute("insert into movie (id, name) values (6, 'new')")
    cinema.copy("movie")
    job, seen = _downstream(
        cinema, partitions_def=cinema.definitions.resolve_asset_graph().get(key("movie")).partitions_def
    )

    for day in (days_ago(0), days_ago(1), days_ago(2)):
        options = {"instance": cinema.instance, "asset_selection": [dg.AssetKey("report")]}
        assert job.execute_in_process(partition_key=day.isoformat(), **options).success

    assert [frame["note"].to_list() for frame in seen] == [["none"], ["none"] * 5, []]
    assert {tuple(frame.columns) for frame in seen} == {("id", "name", "updated_at", "note", "_pg_xid")}


def test_a_table_whose_newest_object_is_missing_stops_and_the_message_contains_the_command(cinema: Project):
    """Continuing silently would hide that rows are missing from the lake."""
    cinema.copy()
    (object_key,) = lake.keys(cinema.bucket, "movie")
    cinema.bucket.store().delete(object_key)
    cinema.database.execute("insert into movie values (6, 'new', now()); insert into person values (4, 'new')")

    result = cinema.copy()

    failed = sentences(result)
    assert list(failed) == ["bronze__movie"]
    assert "pg-bronze reset movie" in failed["bronze__movie"]
    assert lake.ids(cinema.bucket, "person") == [1, 2, 3, 4]


def test_a_mirror_that_is_off_is_logged_once_a_run_and_is_in_every_materialization(cinema: Project):
    """A hundred tables would repeat the same line a hundred times."""
    cinema.set(PG_CONTROL_URL="off")
    cinema.reload()

    run = cinema.copy()

    assert len([line for line in messages(cinema, run) if "PG_CONTROL_URL is off" in line]) == 1
    for table in ("movie", "person"):
        assert "off" in values(cinema.latest(table))["pg_bronze/control_mirror"]


def test_an_error_of_the_mirror_is_logged_once_and_in_the_metadata_and_fails_no_table(cinema: Project):
    """A table that fails after its rows were copied is retried ever later, for a table that nobody needs."""
    cinema.database.execute(
        "create table etl_control (table_name text, last_extracted_value text, last_extracted_at timestamp, "
        "tracking_column text)"
    )
    cinema.reload()

    run = cinema.copy()

    assert sentences(run) == {}
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5]
    assert len([line for line in messages(cinema, run) if "etl_control is not mirrored" in line]) == 1
    shown = [
        values(event)[metadata.CONTROL_MIRROR]
        for table in ("movie", "person")
        for event in (cinema.latest(table), *_observations(cinema, table))
        if metadata.CONTROL_MIRROR in values(event)
    ]
    assert len(shown) == 2
    assert all("42P10" in reason for reason in shown)


def test_a_row_that_was_never_written_is_not_reported_as_edited(cinema: Project):
    """Somebody would look for the colleague who deleted it."""
    cinema.database.execute("create table etl_control (job int)")
    cinema.reload()
    cinema.copy()
    cinema.database.execute("drop table etl_control; insert into movie values (6, 'new', now())")
    cinema.database.execute("insert into person values (4, 'new')")

    run = cinema.copy()

    assert [line for line in messages(cinema, run) if "edited or deleted" in line] == []
    cinema.database.execute("delete from etl_control; insert into movie values (7, 'new', now())")
    later = cinema.copy("movie")
    assert len([line for line in messages(cinema, later) if "the row of movie was edited or deleted" in line]) == 1
