"""Planted faults of pg_bronze.defs; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = (
    Fault(
        "a run of the day before copies nothing",
        "defs/assets.py",
        "if not isinstance(outcome, Quiet):",
        'if not isinstance(outcome, Quiet) and context.partition_key >= f"{sync.now():%F}":',
        "defs/test_assets.py::test_a_run_requested_before_midnight_copies_after_it",
    ),
    Fault(
        "a run without new rows does not record up to which transaction it read",
        "defs/assets.py",
        "entries = metadata.of_quiet(outcome.reason, sync.horizon, sync.generation)",
        "entries = metadata.of_quiet(outcome.reason, 0, sync.generation)",
        "defs/test_sensors.py::test_an_empty_table_is_requested_only_once",
    ),
    Fault(
        "adopted objects of another day do not materialize that day",
        "defs/assets.py",
        "days = {day_of(item.key) for item in report.objects} - _days_of(context)",
        "days = {day_of(item.key) for item in report.committed} - _days_of(context)",
        "defs/test_assets.py::test_yesterday_is_materialized_when_one_of_its_objects_is_adopted_today",
    ),
    Fault(
        "a table is requested again while a run copies it",
        "defs/table_facts.py",
        "is_running = running is None or key in running",
        "is_running = False",
        "defs/test_sensors.py::test_a_table_is_not_requested_while_a_run_copies_it",
    ),
    Fault(
        "a run that reads for minutes is ended although its session exists",
        "defs/run_watchdog.py",
        "if now - last < SILENT_S or source.has_session(session_name(run.run_id)):",
        "if now - last < SILENT_S:",
        "defs/test_run_watchdog.py::test_a_run_that_reads_for_minutes_without_an_event_is_not_ended",
    ),
    Fault(
        "a new table is not copied if the definitions cannot be reloaded",
        "defs/sensors/catalog.py",
        "if found and not new_tables.in_progress(context.instance, current):",
        "if False:",
        "defs/test_new_tables.py::test_a_new_table_is_copied_and_recorded_although_the_definitions_do_not_have_it",
    ),
)
