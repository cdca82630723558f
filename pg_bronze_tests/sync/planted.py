"""Planted faults of pg_bronze.sync; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = (
    Fault(
        "a claimed block range is read again although the table was rewritten",
        "sync/redo.py",
        "return region.blocks is not None and any(leaves[oid].relfilenode != nodes.get(oid) for oid in region.leaves)",
        "return False",
        "sync/test_recovery.py::test_a_claimed_last_block_range_of_a_rewritten_table_is_not_lost",
    ),
    Fault(
        "a claimed slice is read again without its partition that was detached since",
        "sync/redo.py",
        "if table.oid != claim.after.table or any(oid not in leaves for oid in claim.region.leaves):",
        "if table.oid != claim.after.table:",
        "sync/test_partitioned.py::test_a_claimed_slice_with_a_partition_detached_since_loses_nothing",
    ),
    Fault(
        "a claimed slice is read again under the former name of its partition",
        "sync/redo.py",
        "return dataclasses.replace(region, schema=named.schema, name=named.name)",
        "return region",
        "sync/test_partitioned.py::test_a_claimed_slice_of_a_partition_renamed_since_has_the_rows_of_that_partition",
    ),
    Fault(
        "a claimed slice is committed although the table changed while it was read again",
        "sync/redo.py",
        "if slices.refresh_table() != table.fingerprint:",
        "if False:",
        "sync/test_recovery.py::test_a_table_rewritten_while_a_claim_is_redone_loses_nothing",
    ),
    Fault(
        "rows are committed although the table changed while they were read",
        "sync/slice_source.py",
        "return _Attempt(table, None if changed else rows, changed, seconds or time.monotonic() - started)",
        "return _Attempt(table, rows, False, seconds or time.monotonic() - started)",
        "sync/test_altered_tables.py::test_a_table_altered_during_a_read_is_read_again",
    ),
    Fault(
        "a reset keeps what was delivered of each partition",
        "sync/slice_builder.py",
        "leaves=MappingProxyType({}),",
        "leaves=watermark.leaves,",
        "sync/test_generations.py::test_a_reset_copies_the_whole_table_and_moves_the_old_objects_away",
    ),
    Fault(
        "a read that reaches its row limit counts as complete",
        "sync/slice_reader.py",
        "return None if _is_divisible(region, size) and sent.height > size.row_limit else sent",
        "return sent",
        "sync/test_large_windows.py::test_a_window_of_exactly_the_row_limit_is_one_slice_and_one_row_more_is_several",
    ),
    Fault(
        "a slice read ahead is written although another writer redid the slice before it differently",
        "sync/slice_stream.py",
        "if reading is not None and self.watermark == written.claim.after:",
        "if reading is not None:",
        "sync/test_two_writers.py::test_a_slice_read_ahead_is_dropped_if_another_writer_withdrew_the_slice_before_it",
    ),
    Fault(
        "a superseded writer records the watermark that it started with",
        "sync/slice_stream.py",
        "self.watermark = recovered.watermark or self.watermark",
        "pass",
        "sync/test_two_writers.py::test_a_writer_that_is_superseded_records_the_other_writers_object",
    ),
    Fault(
        "an open claim prevents a reset",
        "sync/state_changes.py",
        "key = recovered.redo.after.key if recovered.redo else None",
        "key = None",
        "sync/test_generations.py::test_a_change_is_committed_although_a_claim_is_open",
    ),
    Fault(
        "adopted objects are not recorded if there are no new rows",
        "sync/table_sync.py",
        "if first is None and not recovered.adopted and not recovered.rebuilt:",
        "if first is None:",
        "sync/test_recovery.py::test_a_lost_watermark_is_rebuilt_and_recorded_without_copying",
    ),
    Fault(
        "the watermark is not compared with the history of the database",
        "sync/table_sync.py",
        "history_check.check_origin(watermark, place, self.label, self.source.standby)",
        "pass",
        "sync/test_generations.py::test_another_history_stops_the_table_until_reset_or_continue",
    ),
    Fault(
        "objects of another program with older names are not searched for",
        "sync/table_sync.py",
        "self.ledger.check_foreign_objects(recovered.watermark, self.now())",
        "pass",
        "sync/test_takeover.py::test_the_original_system_is_noticed_in_any_time_zone",
    ),
    Fault(
        "a missing object is written again with all rows since the beginning of the table",
        "sync/verify_day.py",
        "regions += filter(None, [with_difference(region, known, leaf)])",
        "regions += filter(None, [with_difference(region, type(leaf)(), leaf)])",
        "sync/test_verify_day.py::test_the_chain_of_footers_continues_through_a_repaired_object",
    ),
)
