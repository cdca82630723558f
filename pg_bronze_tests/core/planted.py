"""Planted faults of pg_bronze.core; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = (
    Fault(
        "a table that was dropped and created again is continued like the old one",
        "core/planning.py",
        "if watermark.table != table.oid:",
        "if False:",
        "core/test_planning.py::test_another_table_behind_the_name_is_a_new_generation",
    ),
    Fault(
        "a rewrite of a table that is half read in block ranges is ignored",
        "core/planning.py",
        "if leaf.pending and leaf.pending.relfilenode != relation.relfilenode:",
        "if False:",
        "core/test_planning.py::test_a_rewrite_of_a_pending_table_is_a_new_generation",
    ),
    Fault(
        "a horizon that went backwards is accepted",
        "core/planning.py",
        "if leaf.swept is not None and horizon < leaf.swept:",
        "if False:",
        "core/test_planning.py::test_a_horizon_below_the_watermark_stops_a_primary_and_is_retried_on_a_standby",
    ),
    Fault(
        "the block ranges of one window have different horizons",
        "core/planning.py",
        "self._region(relation, leaf, [relation.oid], pending.upto),",
        "self._region(relation, leaf, [relation.oid], self.horizon),",
        "core/test_planning.py::test_a_pending_window_keeps_the_horizon_it_started_with",
    ),
    Fault(
        "the last block range ends where the table ended when it was measured",
        "core/planning.py",
        "blocks=(pending.block, None if is_last else end_block),",
        "blocks=(pending.block, end_block),",
        "core/test_planning.py::test_the_last_range_is_open_ended_because_a_table_grows_while_it_is_read",
    ),
    Fault(
        "the end of a window is not committed if its last block range is empty",
        "core/planning.py",
        "return self._read(region, _after_sweep(leaf, pending.upto), must_commit=pending.position > (0, 0))",
        "return self._read(region, _after_sweep(leaf, pending.upto))",
        "core/test_planning.py::test_the_end_of_a_window_is_committed_only_after_an_earlier_range",
    ),
    Fault(
        "all partitions are read from the transaction where the first one ended",
        "core/planning.py",
        "groups.setdefault(leaf, []).append(relation)",
        "groups.setdefault(next(iter(groups), leaf), []).append(relation)",
        "core/test_planning.py::test_leaves_with_different_states_are_read_separately",
    ),
    Fault(
        "the seed of a takeover also excludes rows after the first load",
        "core/planning.py",
        "return self._read(region, _after_sweep(leaf, self.horizon))",
        "return self._read(dataclasses.replace(region, seed=self.watermark.seed), _after_sweep(leaf, self.horizon))",
        "core/test_planning.py::test_a_seed_restricts_first_loads_only",
    ),
    Fault(
        "two adjacent windows both include the transaction between them",
        "core/window_sql.py",
        (
            'return f"age(t.xmin) between (select (({NEXT} - {end}) & {MASK}) + 1) '
            'and (select ({NEXT} - {start}) & {MASK})"'
        ),
        ('return f"age(t.xmin) between (select (({NEXT} - {end}) & {MASK})) and (select ({NEXT} - {start}) & {MASK})"'),
        "core/test_window_sql.py::test_a_window_contains_exactly_its_ids_across_the_wraparound",
    ),
    Fault(
        "a first load includes rows of transactions after its horizon",
        "core/window_sql.py",
        'return f"not age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})"',
        'return "true"',
        "core/test_window_sql.py::test_a_first_load_contains_every_id_below_its_end",
    ),
    Fault(
        "a read does not check that its snapshot is as new as the horizon",
        "core/window_sql.py",
        'return "\\n  and ".join([*conditions, guard(region.end)])',
        'return "\\n  and ".join(conditions)',
        "postgres/test_readers.py::test_a_snapshot_from_before_the_horizon_is_not_read",
    ),
    Fault(
        "two adjacent block ranges both include the row between them",
        "core/window_sql.py",
        "conditions.append(f\"t.ctid < '({end},{region.lines[1]})'::tid\")",
        "conditions.append(f\"t.ctid <= '({end},{region.lines[1]})'::tid\")",
        "core/test_window_sql.py::test_a_block_range_is_half_open_and_the_last_one_is_open_ended",
    ),
    Fault(
        "the transaction id of a row loses its upper 32 bits",
        "core/window_sql.py",
        'return f"({end - 1} - (({end - 1} - t.xmin::text::bigint) & {MASK}))::bigint"',
        'return "t.xmin::text::bigint"',
        "core/test_window_sql.py::test_an_id_below_the_end_is_restored_to_64_bits",
    ),
    Fault(
        "a watermark loses the line pointer inside a block where a window continues",
        "core/watermark.py",
        "if leaf.pending and not leaf.pending.line:",
        "if leaf.pending:",
        "core/test_watermark.py::test_every_watermark_is_written_in_the_current_format",
    ),
    Fault(
        "a new generation names an object of the old one as the first with its columns",
        "core/watermark.py",
        "same = digest == before.columns_digest and self.generation == before.generation and before.columns_key",
        "same = digest == before.columns_digest and before.columns_key",
        "core/test_watermark.py::test_a_new_generation_names_no_object_of_the_old_one",
    ),
    Fault(
        "a failover is not noticed as long as the log position did not go backwards",
        "core/history_check.py",
        "if recorded.timeline != origin.timeline:",
        "if False:",
        "core/test_history_check.py::test_another_origin_stops_the_table_with_the_reason_and_the_remedy",
    ),
)
