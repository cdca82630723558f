"""Planted faults of pg_bronze.postgres; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = (
    Fault(
        "the horizon of a primary is used before the log is flushed",
        "postgres/activity.py",
        "if not standby:",
        "if standby:",
        "postgres/test_faults.py::test_a_horizon_is_not_used_before_the_log_is_flushed",
    ),
    Fault(
        "the horizon of a tick is kept although a claim goes beyond it",
        "postgres/connection.py",
        "if self._horizon is None or self._horizon < (at_least or 0):",
        "if self._horizon is None:",
        "postgres/test_horizon.py::test_all_tables_of_a_tick_share_a_horizon_unless_a_claim_goes_beyond_it",
    ),
    Fault(
        "the timeline of a primary is that of its last checkpoint",
        "postgres/server_identity.py",
        "else pg_catalog.bit_in(pg_catalog.textout(pg_catalog.concat('x', {_LOG_FILE})), 0, 32)::pg_catalog.int4",
        "else (select timeline_id from pg_control_checkpoint())",
        "sync/test_history.py::test_a_promoted_standby_stops_the_table_before_its_first_checkpoint",
    ),
    Fault(
        "the fingerprint of a table is the same after a change that was undone",
        "postgres/catalog.py",
        '[[node["oid"], node["relfilenode"], node["versions"]] for node in nodes],',
        '[[node["oid"], node["relfilenode"]] for node in nodes],',
        "postgres/test_catalog.py::test_the_fingerprint_changes_even_if_the_change_is_undone",
    ),
    Fault(
        "tables that inherit from an ordinary table count as its partitions",
        "postgres/catalog_query.py",
        "join pg_class p on p.oid = tree.oid and p.relkind = 'p'",
        "join pg_class p on p.oid = tree.oid",
        "postgres/test_catalog.py::test_the_catalog_has_every_table_once_with_the_reason_for_skipping_it",
    ),
    Fault(
        "updates are not counted as changes of a table",
        "postgres/activity.py",
        "pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)",
        "pg_stat_get_tuples_inserted(c.oid)",
        "defs/test_sensors.py::test_an_update_makes_its_table_due",
    ),
    Fault(
        "a row security policy filters the rows that are read",
        "postgres/session_settings.py",
        '"row_security": "off",',
        '"row_security": "on",',
        "sync/test_table_sync.py::test_a_row_security_policy_stops_the_table",
    ),
    Fault(
        "two runs can hold the lock of a table at the same time",
        "postgres/connection.py",
        'return bool(self.ask("select pg_try_advisory_lock(%(space)s, %(oid)s)", table_lock.key(table_oid))[0][0])',
        (
            'return bool(self.ask("select pg_try_advisory_lock_shared(%(space)s, %(oid)s)", '
            "table_lock.key(table_oid))[0][0])"
        ),
        "sync/test_two_writers.py::test_a_table_that_another_run_is_copying_is_left_to_that_run",
    ),
    Fault(
        "settings outlast the transaction in a session that a pooler shares",
        "postgres/connection.py",
        'connection.execute(f"select {self._settings(local=True)}".encode())',
        'connection.execute(f"select {self._settings(local=False)}".encode())',
        "postgres/test_pooler.py::test_no_setting_or_lock_is_left_in_a_shared_session",
    ),
    Fault(
        "rows are read from another host than the one that returned the horizon",
        "postgres/connection.py",
        'conninfo = pinned({**self._conninfo, "application_name": name}, kept)',
        'conninfo = {**self._conninfo, "application_name": name}',
        "postgres/test_access.py::test_rows_come_from_the_host_that_the_horizon_came_from",
    ),
)
