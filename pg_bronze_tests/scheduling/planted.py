"""Planted faults of pg_bronze.scheduling; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = (
    Fault(
        "counters that moved while the horizon was held back count as copied",
        "scheduling/due.py",
        "seen = dataclasses.replace(hint, signature=signature_now, next_xid=cluster.next_xid) if moved else hint",
        "seen = dataclasses.replace(hint, signature=signature_now) if moved else hint",
        "scheduling/test_due.py::test_counters_that_moved_while_the_horizon_was_held_do_not_count_as_copied",
    ),
    Fault(
        "a table whose counters do not change is never read again",
        "scheduling/due.py",
        "if now - hint.due_at >= ungated_after_s:",
        "if False:",
        "scheduling/test_due.py::test_a_table_is_read_once_in_a_while_however_quiet_it_seems",
    ),
    Fault(
        "the partition that is copied furthest decides whether a table is due",
        "scheduling/due.py",
        "swept = max(hint.quiet_upto, 0 if unread else min(state.top or 0 for state in states))",
        "swept = max(hint.quiet_upto, 0 if unread else max(state.top or 0 for state in states))",
        "scheduling/test_due.py::test_the_leaf_that_is_furthest_behind_decides",
    ),
    Fault(
        "a table that was reset still counts as unchanged",
        "scheduling/due.py",
        "if hint.generation != generation:",
        "if False:",
        "scheduling/test_due.py::test_a_hint_of_another_generation_is_forgotten",
    ),
    Fault(
        "a table copied further than its restored database is not due",
        "scheduling/due.py",
        "if decision.swept > cluster.horizon:",
        "if False:",
        "scheduling/test_due.py::test_a_table_copied_further_than_a_primary_is_due",
    ),
    Fault(
        "an older control row of a table without new rows is not noticed",
        "scheduling/due.py",
        "if not cluster.standby and history_check.is_older(facts.control, recorded.control):",
        "if False:",
        "scheduling/test_due.py::test_a_quiet_table_whose_control_row_is_older_than_written_is_due_at_once",
    ),
)
