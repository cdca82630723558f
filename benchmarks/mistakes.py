"""Mistakes that would lose or double rows or hide an error, each planted for a moment; the tests named have to go red.

    python benchmarks/mistakes.py                    # all of them, three at a time
    python benchmarks/mistakes.py "horizon"          # those with this in their title

A mistake is a change of the text of one file, made in a copy of the project. What is found says that the tests can see
it, not that there are no others.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
AT_ONCE = 3
_COPIED = ("pg_bronze", "pg_bronze_tests", "benchmarks", "docs", "deploy", "requirements", ".ci")
_LINKED = (".cache", ".venv")


@dataclass(frozen=True)
class Mistake:
    """``right`` stands once in ``file`` (under ``pg_bronze/``); with ``wrong`` in its place, each of ``tests`` fails.

    A test is ``folder/test_file.py::test_name``, which fails as soon as one of its variants does: a mistake about one
    kind of table or one moment is none in the others. With ``[...]`` it is that variant alone.
    """

    title: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path("pg_bronze") / self.file


_CHAOS = "servers/test_chaos.py::test_whatever_is_done_to_a_table_no_row_is_lost_stale_or_doubled[{}-18]"

COMMIT: list[Mistake] = [
    Mistake(
        "the object of a newer version is not named",
        "watermark.py",
        'f"{what} has format {found}, and',
        'f"a footer has format {found}, and',
        (
            "servers/test_commit.py::test_an_object_of_a_newer_version_is_not_guessed_at",
            "servers/test_commit.py::test_a_claim_of_a_newer_version_is_not_guessed_at",
        ),
    ),
    Mistake(
        "the LIST after having a found claim in hand is left out",
        "commit.py",
        "if not self.newer(last_key):\n                return Recovered(",
        "if True:\n                return Recovered(",
        ("servers/test_commit.py::test_a_claim_finished_between_two_looks_is_not_done_again",),
    ),
    Mistake(
        "reset and continue are refused where objects do not follow one another",
        "commit.py",
        "if forgive:\n                    return self._adopt(",
        "if False:\n                    return self._adopt(",
        (
            "servers/test_generations.py::test_both_ways_on_help_where_objects_do_not_follow_one_another[reset]",
            "servers/test_generations.py::test_both_ways_on_help_where_objects_do_not_follow_one_another[continue]",
        ),
    ),
    Mistake(
        "reset is refused where a claim is far ahead",
        "commit.py",
        "if not forgive:\n                    raise\n",
        "raise\n",
        ("servers/test_generations.py::test_a_reset_heals_a_table_with_a_claim_far_ahead",),
    ),
    Mistake(
        "a reset leaves a claim that is far ahead where it is",
        "commit.py",
        "if number <= seq or (alone and number > seq + 1):",
        "if alone and number > seq + 1:\n                continue\n            if number <= seq:",
        ("servers/test_generations.py::test_a_reset_heals_a_table_with_a_claim_far_ahead",),
    ),
    Mistake(
        "the LIST after creating a claim is left out",
        "commit.py",
        "if self.newer(claim.before.key):",
        "if False:",
        (
            "servers/test_two_writers.py::test_a_writer_that_pauses_while_another_copies_the_same_doubles_nothing",
            "servers/test_two_writers.py::test_a_writer_that_pauses_while_another_gets_far_ahead_doubles_nothing",
            "servers/test_two_writers.py::test_a_writer_that_comes_too_late_records_what_the_other_wrote",
            "unit/test_planning_model.py::test_a_second_writer_between_any_two_steps_loses_and_doubles_nothing",
            "servers/test_two_writers.py::test_two_writers_that_never_wait_for_each_other_double_nothing",
        ),
    ),
    Mistake(
        "whoever finds a claim takes it for its own",
        "commit.py",
        "if found is None or Claim.from_text(found, claim_key).nonce != claim.nonce:",
        "if found is None:",
        ("servers/test_two_writers.py::test_a_slice_in_hand_gives_way_to_the_claim_of_a_writer_whose_put_is_late",),
    ),
    Mistake(
        "a claim that is there already is always another writer's",
        "commit.py",
        "if found is None or Claim.from_text(found, claim_key).nonce != claim.nonce:",
        "if found is None or found:",
        ("servers/test_commit.py::test_an_object_whose_reply_was_lost_counts_as_ours[claim]",),
    ),
    Mistake(
        "an object that is there already means that another writer was first",
        "commit.py",
        "committed = ours if created else self._theirs(claim, key)",
        'committed = ours\n        if not created:\n            raise Superseded(f"{key} is there already")',
        (
            "servers/test_commit.py::test_an_object_whose_reply_was_lost_counts_as_ours[data]",
            "servers/test_two_writers.py::test_a_writer_that_finds_its_claim_done_by_another_goes_on_behind_it",
        ),
    ),
    Mistake(
        "an object that is there already counts as ours without a look",
        "commit.py",
        "committed = ours if created else self._theirs(claim, key)",
        "committed = ours",
        (
            "servers/test_commit.py::test_something_else_under_our_key_is_never_overwritten",
            (
                "servers/test_commit.py::"
                "test_an_object_of_another_place_in_the_chain_under_our_key_does_not_count_as_ours"
            ),
        ),
    ),
    Mistake(
        "any object of pg_bronze under our key counts as our slice",
        "commit.py",
        "if footer is None or not footer.continues(claim.before):",
        "if footer is None:",
        (
            (
                "servers/test_commit.py::"
                "test_an_object_of_another_place_in_the_chain_under_our_key_does_not_count_as_ours"
            ),
        ),
    ),
    Mistake(
        "a 409 is taken for an object that is there already",
        "store.py",
        "if code in _EXISTS:",
        "if code in _EXISTS | _CONFLICT:",
        ("servers/test_s3_faults.py::test_a_conflict_is_asked_again_and_left_to_the_next_tick_if_it_lasts",),
    ),
    Mistake(
        "a claim is removed before its object is written",
        "commit.py",
        "        created = self.store.create(key, body)\n",
        "        self.store.delete(claim_key)\n        created = self.store.create(key, body)\n",
        ("servers/test_commit.py::test_a_claim_stands_while_a_slice_is_written_and_no_longer",),
    ),
    Mistake(
        "the claim of the last object counts as open",
        "commit.py",
        "if number <= seq or (",
        "if number < seq or (",
        (
            "servers/test_commit.py::test_the_claim_of_a_finished_slice_is_dropped",
            "servers/test_recovery.py::test_a_crash_in_a_window_loses_and_doubles_nothing",
            "unit/test_planning_model.py::test_a_crash_at_any_step_loses_and_doubles_nothing",
            "servers/test_recovery.py::test_crash_upon_crash_ends_all_the_same",
            "servers/test_s3_faults.py::test_a_write_of_which_no_answer_ever_comes_is_found_by_the_next_tick[data]",
        ),
    ),
    Mistake(
        "a claim ahead of the LIST is taken for damage without another LIST",
        "commit.py",
        "if self.newer(last_key):\n                    continue",
        "if False:\n                    continue",
        ("unit/test_planning_model.py::test_a_writer_overtaken_between_its_two_lists_does_not_see_objects_gone",),
    ),
    Mistake(
        "an object that was listed and is gone since is taken for a foreign one",
        "commit.py",
        "if footer is None and self.store.tail(key, 8) is None:",
        "if False:",
        ("unit/test_planning_model.py::test_a_writer_overtaken_by_a_new_generation_does_not_see_a_foreign_object",),
    ),
    Mistake(
        "the place in history is asked for before the bucket is listed",
        "copy.py",
        "        recovered = self.objects.recover(recorded, self.now())\n"
        '        self.on_step("recover")\n'
        "        # After the watermark is known: the other order takes what another writer committed in between for a"
        " restore.\n"
        "        self.place = place = self.source.place(self.store.place)\n",
        "        self.place = place = self.source.place(self.store.place)\n"
        "        recovered = self.objects.recover(recorded, self.now())\n"
        '        self.on_step("recover")\n',
        ("unit/test_planning_model.py::test_a_writer_overtaken_before_it_recovers_does_not_see_a_restored_database",),
    ),
    Mistake(
        "the horizon of a tick need not reach that of the claim it found",
        "copy.py",
        "newest = recovered.redo.after if recovered.redo else watermark",
        "newest = watermark",
        ("unit/test_planning_model.py::test_a_claim_from_beyond_the_tick_s_horizon_is_redone_without_an_alarm",),
    ),
    Mistake(
        "a claimed slice gets a new key when it is done again",
        "copy.py",
        "claim = dataclasses.replace(claim, after=look.onto(claim.after, claim.before))\n        if",
        "claim = dataclasses.replace(claim, after=self._numbered(claim.before, claim.after, look))\n        if",
        (
            "servers/test_commit.py::test_a_claim_left_behind_is_done_again_under_its_key",
            "servers/test_two_writers.py::test_a_dead_writers_claim_is_done_once_by_two_others",
            "servers/test_two_writers.py::test_a_writer_that_pauses_while_another_copies_the_same_doubles_nothing",
            "servers/test_two_writers.py::test_a_dead_writers_put_that_lands_late_doubles_nothing[it was done again]",
        ),
    ),
    Mistake(
        "older objects are moved away only when a generation is opened",
        "copy.py",
        "            if watermark.generation:\n                self.objects.move_old(watermark)",
        "",
        ("servers/test_two_writers.py::test_a_dead_writers_put_that_lands_late_doubles_nothing[a reset]",),
    ),
    Mistake(
        "a claimed slice is read again up to the horizon of now",
        "copy.py",
        "region = dataclasses.replace(claim.region, schema=named.schema, name=named.name)",
        "region = dataclasses.replace(claim.region, schema=named.schema, name=named.name, end=self.horizon)",
        (
            "servers/test_commit.py::test_a_claim_left_behind_is_done_again_under_its_key",
            "servers/test_commit.py::test_a_claim_whose_rows_are_fewer_now_becomes_an_object_with_those_left",
            "servers/test_recovery.py::test_a_crash_in_a_window_loses_and_doubles_nothing",
            "servers/test_two_writers.py::test_a_writer_that_pauses_while_another_dies_doubles_and_loses_nothing",
            "servers/test_recovery.py::test_crash_upon_crash_ends_all_the_same",
            "servers/test_recovery.py::test_a_claimed_window_is_done_again_after_the_table_was_altered",
            "servers/test_partitioned.py::test_a_crash_in_a_large_partition_loses_and_doubles_nothing[claim]",
        ),
    ),
    Mistake(
        "a claimed block range is read again as the whole table",
        "copy.py",
        "region = dataclasses.replace(claim.region, schema=named.schema, name=named.name)",
        "region = dataclasses.replace(claim.region, schema=named.schema, name=named.name, blocks=None)",
        (
            "servers/test_recovery.py::test_a_crash_in_the_midst_of_block_ranges_loses_and_doubles_nothing",
            "servers/test_recovery.py::test_a_crash_in_the_very_first_load_loses_and_doubles_nothing",
            "servers/test_recovery.py::test_crash_upon_crash_ends_all_the_same",
        ),
    ),
    Mistake(
        "a claimed slice is read again up to the row limit of now",
        "copy.py",
        "schema.xid_column(columns), names, None)\n",
        "schema.xid_column(columns), names, self._size.row_limit)\n",
        ("servers/test_commit.py::test_a_claim_larger_than_a_slice_may_be_now_is_done_again_whole",),
    ),
    Mistake(
        "a claimed slice of which no row is left becomes no object",
        "copy.py",
        "return Slice(claim, frame, look, True, time.monotonic() - started, exceptional)",
        "return Slice(claim, frame, look, True, time.monotonic() - started, exceptional) if frame.height else None",
        ("servers/test_commit.py::test_a_claim_whose_rows_are_all_gone_still_becomes_an_object",),
    ),
    Mistake(
        "a claimed block range is read again although the table was rewritten",
        "copy.py",
        "oid not in found or found[oid].relfilenode != node for oid, node in claim.relfilenodes.items()",
        "oid not in found for oid in claim.relfilenodes",
        (
            "servers/test_recovery.py::test_a_claimed_last_block_range_of_a_table_rewritten_since_is_not_lost",
            (
                "servers/test_recovery.py::"
                "test_a_claimed_block_range_of_a_table_rewritten_since_becomes_a_new_generation[rewritten]"
            ),
        ),
    ),
    Mistake(
        "any later object is adopted, whatever stood between",
        "commit.py",
        "if not footer.continues(watermark):\n",
        "if footer.after.seq <= watermark.seq:\n",
        ("servers/test_recovery.py::test_a_gap_in_what_followed_stops_the_table",),
    ),
    Mistake(
        "an object that is gone is taken for one moved away with its generation",
        "commit.py",
        " and self._was_moved(watermark):",
        ":",
        (
            "servers/test_commit.py::test_an_object_that_is_gone_stops_the_table_and_names_both_ways_on",
            "shell/test_assets.py::test_the_last_object_gone_stops_the_table_and_names_the_way_out",
        ),
    ),
    Mistake(
        "a footer longer than the first request is read from what came",
        "commit.py",
        "if size_bytes > len(tail):",
        "if False:",
        ("servers/test_commit.py::test_a_wide_table_whose_footer_is_long_is_found_again",),
    ),
    Mistake(
        "the newest object is looked for among those of the last 1,024 days",
        "layout.py",
        "for days in (1, 32, 1024)), None)",
        "for days in (1, 32, 1024)),)",
        ("servers/test_recovery.py::test_recovery_finds_the_newest_of_many_days_without_walking_them",),
    ),
    Mistake(
        "what was adopted is not recorded when there is nothing new",
        "copy.py",
        "if first is None and not recovered.adopted and not recovered.rebuilt:",
        "if first is None and not recovered.rebuilt:",
        (
            "servers/test_commit.py::test_the_claim_of_a_finished_slice_is_dropped",
            "servers/test_recovery.py::test_an_older_state_adopts_what_followed_it",
        ),
    ),
    Mistake(
        "what was read ahead is written although another's object ended elsewhere",
        "copy.py",
        "if ahead is not None and self.watermark == current.claim.after:",
        "if ahead is not None:",
        ("unit/test_planning_model.py::test_a_second_writer_between_any_two_steps_loses_and_doubles_nothing",),
    ),
    Mistake(
        "a writer that came too late records the watermark it began with",
        "copy.py",
        "            self.watermark = recovered.watermark or self.watermark\n",
        "",
        ("servers/test_two_writers.py::test_a_writer_that_comes_too_late_records_what_the_other_wrote",),
    ),
    Mistake(
        "an object is named by its writer's clock, however far ahead the last one is",
        "layout.py",
        "return now if last is None else max(now, last + timedelta(seconds=1))",
        "return now if now != last else now + timedelta(seconds=1)",
        (
            "servers/test_two_writers.py::test_a_writer_that_pauses_while_another_copies_the_same_doubles_nothing",
            "servers/test_two_writers.py::test_two_writers_in_the_midst_of_block_ranges_double_nothing",
            "servers/test_two_writers.py::test_two_writers_that_never_wait_for_each_other_double_nothing",
            "servers/test_pooler.py::test_two_copiers_and_writers_race_through_shared_sessions",
        ),
    ),
    Mistake(
        "a run without an event for long is ended although its session is there",
        "abandoned.py",
        "if now - last < SILENT_S or source.has_session(session_name(run.run_id)):",
        "if now - last < SILENT_S:",
        (
            "shell/test_abandoned.py::test_a_run_that_reads_for_minutes_without_an_event_is_left_alone",
            "shell/test_pooled.py::test_a_run_that_reads_behind_a_pooler_is_not_taken_for_abandoned",
        ),
    ),
    Mistake(
        "a run without a session is ended however young it is",
        "abandoned.py",
        "if now - last < SILENT_S or source.has_session(session_name(run.run_id)):",
        "if source.has_session(session_name(run.run_id)):",
        ("shell/test_abandoned.py::test_a_run_that_has_just_begun_is_left_alone",),
    ),
    Mistake(
        "a materialization does not say that its bucket fences nobody off",
        "metadata.py",
        "if stream.copy.options.unfenced:",
        "if False:",
        ("shell/test_unfenced.py::test_every_materialization_without_a_fence_says_that_rows_may_be_doubled",),
    ),
    Mistake(
        "the newest object is looked for from the oldest on",
        "commit.py",
        "for item in reversed(self._listed(start)):",
        "for item in self._listed(start):",
        ("servers/test_commit.py::test_a_foreign_object_older_than_ours_disturbs_nothing",),
    ),
    Mistake(
        "an object is adopted if it leaves out no number",
        "commit.py",
        "if not footer.continues(watermark):\n",
        "if footer.after.seq > watermark.seq + 1:\n",
        ("servers/test_commit.py::test_an_object_that_does_not_continue_ours_stops_the_table",),
    ),
    Mistake(
        "a claim far ahead is passed over",
        "commit.py",
        "            else:\n                raise LakeDamaged(\n",
        "            elif False:\n                raise LakeDamaged(\n",
        ("servers/test_commit.py::test_a_claim_far_ahead_means_that_objects_are_gone",),
    ),
    Mistake(
        "a claimed slice becomes an empty object when the columns have changed",
        "copy.py",
        "table = self.table\n        frame, exceptional",
        (
            "table = self.table\n        if look.drift:\n            return Slice(claim, self.no_rows(), look, True)\n"
            "        frame, exceptional"
        ),
        ("servers/test_recovery.py::test_a_claimed_window_is_done_again_after_the_table_was_altered",),
    ),
    Mistake(
        "claims of numbers long past are left lying",
        "commit.py",
        "            if number is None:\n                continue\n",
        "            if number is None or number < seq:\n                continue\n",
        ("servers/test_commit.py::test_claims_of_numbers_long_past_are_removed",),
    ),
    Mistake(
        "the watermark before a slice is said to be made where the server stands now",
        "copy.py",
        "claim = Claim(secrets.token_hex(8), watermark, after, step.region, nodes)",
        (
            "before = dataclasses.replace(watermark, place=after.place)\n"
            "        claim = Claim(secrets.token_hex(8), before, after, step.region, nodes)"
        ),
        ("servers/test_commit.py::test_every_object_says_where_its_rows_came_from",),
    ),
    Mistake(
        "whatever ends a commit is taken for another writer who was first",
        "copy.py",
        "        except Superseded:\n",
        "        except BaseException:\n",
        ("servers/test_commit.py::test_a_crash_is_not_taken_for_an_error_of_the_server",),
    ),
    Mistake(
        "a run that ends keeps its lock as long as its connection",
        "copy.py",
        "        if self._locked:\n            self.source.unlock(self.table.oid)\n",
        "        self._locked = False\n",
        ("servers/test_two_writers.py::test_a_dead_runs_lock_is_free_again",),
    ),
    Mistake(
        "the lock of a table may be shared",
        "source.py",
        "select pg_try_advisory_lock(%(space)s, %(oid)s)",
        "select pg_try_advisory_lock_shared(%(space)s, %(oid)s)",
        ("servers/test_two_writers.py::test_while_one_run_copies_a_table_another_leaves_it_alone",),
    ),
    Mistake(
        "a session is looked for by the beginnings of a run's name",
        "source.py",
        "starts_with(application_name, %(name)s)",
        "starts_with(%(name)s, application_name)",
        ("shell/test_abandoned.py::test_a_run_without_session_and_event_is_ended_and_its_table_is_due_again",),
    ),
    Mistake(
        "a run's session has another name than the one looked for",
        "resources.py",
        "abandoned.session_name(run_id)",
        'f"pg_bronze {run_id[:8]}"',
        ("shell/test_abandoned.py::test_a_run_holds_a_session_under_the_name_that_is_looked_for",),
    ),
    Mistake(
        "runs of other assets are ended for their missing session",
        "abandoned.py",
        "if not run.asset_selection or not run.asset_selection <= set(ours):",
        "if not run.asset_selection:",
        ("shell/test_abandoned.py::test_a_run_of_other_assets_is_none_of_ours",),
    ),
    Mistake(
        "an empty window becomes an object",
        "copy.py",
        "if frame.height == 0 and not step.must_commit:",
        "if frame.height == 0 and step.region.blocks is not None and not step.must_commit:",
        (
            "servers/test_copy.py::test_other_tables_work_makes_no_object_for_a_quiet_one",
            "servers/test_copy.py::test_an_empty_table_makes_no_object_until_it_has_a_row",
            "servers/test_copy.py::test_rows_rolled_back_never_land",
        ),
    ),
    Mistake(
        "a quiet table says after which object nothing is new, and not up to which transaction",
        "copy.py",
        'return Quiet(f"no new row up to transaction {self.horizon}")',
        'return Quiet(f"no new row since {watermark.key}")',
        ("servers/test_copy.py::test_a_quiet_table_says_so_and_writes_nothing",),
    ),
    Mistake(
        "an object is named by the second of its writer's time zone",
        "layout.py",
        "now = now.astimezone(UTC).replace(microsecond=0)",
        "now = now.replace(microsecond=0)",
        ("servers/test_copy.py::test_keys_are_named_by_the_second_in_utc_and_strictly_increase",),
    ),
    Mistake(
        "objects of both layouts are put in the order of their keys",
        "commit.py",
        "sorted(found, key=lambda pair: (pair[0], pair[1].key))",
        "sorted(found, key=lambda pair: pair[1].key)",
        ("servers/test_copy.py::test_date_folders_and_flat_keys_of_one_table_are_one_history",),
    ),
    Mistake(
        "objects are Snappy unless another codec is set",
        "commit.py",
        'compression: Any = "zstd"',
        'compression: Any = "snappy"',
        ("servers/test_copy.py::test_objects_are_zstd_unless_another_codec_is_set",),
    ),
    Mistake(
        "which leaves were away is forgotten",
        "watermark.py",
        'detached=frozenset(_unrange(data.get("detached", ()))),',
        "detached=frozenset(),",
        ("unit/test_watermark.py::test_a_watermark_survives_a_turn_through_json",),
    ),
    Mistake(
        "only leaves side by side share an entry",
        "watermark.py",
        "elif oid - last == step:",
        "elif oid - last == step == 1:",
        ("unit/test_watermark.py::test_500_leaves_of_equal_state_stay_below_1_kb",),
    ),
    Mistake(
        "a leaf never seen was read up to 0",
        "watermark.py",
        "return self.leaves.get(oid, Leaf())",
        "return self.leaves.get(oid, Leaf(0))",
        ("unit/test_watermark.py::test_an_unknown_leaf_has_nothing_delivered",),
    ),
    Mistake(
        "a change of one leaf forgets the others",
        "watermark.py",
        "leaves=MappingProxyType({**self.leaves, **changed})",
        "leaves=MappingProxyType({**changed})",
        ("unit/test_watermark.py::test_changing_one_leaf_leaves_the_others_and_the_original_alone",),
    ),
    Mistake(
        "an older watermark without columns is damaged",
        "watermark.py",
        'columns_key=data.get("columns_key", ""),',
        'columns_key=data["columns_key"],',
        ("unit/test_watermark.py::test_a_state_written_before_there_were_columns_in_it_is_read",),
    ),
    Mistake(
        "columns may begin nowhere",
        "watermark.py",
        " and self.generation == before.generation and before.columns_key\n",
        " and self.generation == before.generation\n",
        ("unit/test_watermark.py::test_columns_known_by_digest_alone_begin_with_the_next_object",),
    ),
    Mistake(
        "some damaged watermarks are a traceback",
        "watermark.py",
        (
            "        except (KeyError, TypeError, ValueError) as error:\n"
            '            raise LakeDamaged(f"this is not a watermark'
        ),
        '        except (KeyError, TypeError) as error:\n            raise LakeDamaged(f"this is not a watermark',
        ("unit/test_watermark.py::test_anything_else_is_damage_and_not_a_traceback",),
    ),
    Mistake(
        "a watermark that is a number is a traceback",
        "watermark.py",
        "    if not isinstance(data, Mapping):\n        raise LakeDamaged(",
        "    if data is None:\n        raise LakeDamaged(",
        ("unit/test_watermark.py::test_what_is_not_even_an_object_is_damage",),
    ),
    Mistake(
        "a claim's leaves come back as texts",
        "footer.py",
        "relfilenodes={int(oid): node for",
        "relfilenodes={oid: node for",
        ("unit/test_footer.py::test_a_claim_survives_a_turn_through_its_text",),
    ),
    Mistake(
        "a footer forgets that its object was written again",
        "footer.py",
        'repaired=data["repaired"],',
        "repaired=False,",
        ("unit/test_footer.py::test_a_footer_survives_a_turn_through_its_text",),
    ),
    Mistake(
        "an object says that it follows itself",
        "footer.py",
        '"prev_key": self.before.key,',
        '"prev_key": self.after.key,',
        ("unit/test_footer.py::test_a_footer_says_what_a_person_looks_for_first",),
    ),
    Mistake(
        "a key's columns stand in another order",
        "footer.py",
        '"primary_key": list(self.primary_key),',
        '"primary_key": sorted(self.primary_key),',
        ("unit/test_footer.py::test_a_footer_says_how_rows_are_told_apart",),
    ),
    Mistake(
        "an older footer without a key is damaged",
        "footer.py",
        'data.get("primary_key", ())',
        'data["primary_key"]',
        ("unit/test_footer.py::test_a_footer_from_before_keys_were_noted_is_read",),
    ),
    Mistake(
        "a damaged footer names no object",
        "footer.py",
        "                f\"{key}: its footer is not one of pg_bronze's",
        "                f\"an object: its footer is not one of pg_bronze's",
        ("unit/test_footer.py::test_a_part_that_is_damaged_names_the_object",),
    ),
    Mistake(
        "a damaged claim is a traceback",
        "footer.py",
        (
            "        except (AttributeError, KeyError, LakeDamaged, TypeError, ValueError) as error:\n"
            "            raise LakeDamaged(\n"
            '                f"{key} is not a claim'
        ),
        (
            "        except (KeyError, LakeDamaged, TypeError, ValueError) as error:\n"
            "            raise LakeDamaged(\n"
            '                f"{key} is not a claim'
        ),
        ("unit/test_footer.py::test_relfilenodes_that_are_no_mapping_are_damage",),
    ),
    Mistake(
        "an object with other columns names those of before",
        "watermark.py",
        "same = digest == before.columns_digest and self",
        "same = self",
        ("unit/test_watermark.py::test_objects_with_the_same_columns_all_name_the_first_of_them",),
    ),
    Mistake(
        "garbage among the objects is not named",
        "footer.py",
        'raise LakeDamaged(f"{key} does not hold JSON',
        'raise LakeDamaged("it does not hold JSON',
        ("unit/test_footer.py::test_garbage_is_damage_that_names_the_object",),
    ),
    Mistake(
        "slices are counted as rows",
        "metadata.py",
        '"pg_bronze/rows": stream.row_count,',
        '"pg_bronze/rows": len(done),',
        ("shell/test_assets.py::test_new_rows_make_one_materialization_that_says_all_about_them",),
    ),
    Mistake(
        "the rows of a run are shown as those of its day",
        "metadata.py",
        '"pg_bronze/slices": len(done),',
        '"pg_bronze/slices": len(done),\n        "dagster/partition_row_count": stream.row_count,',
        ("shell/test_assets.py::test_a_verified_day_does_not_say_it_has_no_rows",),
    ),
    Mistake(
        "objects of another day than the run's are no materialization of it",
        "assets.py",
        "                yield from _other_days(context, stream, asked, copy.layout.day)\n",
        "",
        ("shell/test_assets.py::test_objects_of_another_day_than_the_runs_give_that_day_its_materialization",),
    ),
    Mistake(
        "adopted objects are no materialization of their day",
        "assets.py",
        "for item in (*stream.adopted, *stream.committed)",
        "for item in stream.committed",
        ("shell/test_assets.py::test_an_adopted_object_of_yesterday_gives_yesterday_its_materialization",),
    ),
    Mistake(
        "what was found in the bucket is not recorded unless there is more",
        "copy.py",
        "if first is None and not recovered.adopted and not recovered.rebuilt:",
        "if first is None:",
        ("shell/test_assets.py::test_what_was_adopted_is_recorded_although_nothing_is_new",),
    ),
    Mistake(
        "etl_control holds no value",
        "control.py",
        '"value": value, "column"',
        '"value": None, "column"',
        ("shell/test_assets.py::test_the_control_row_follows_the_event",),
    ),
    Mistake(
        "a run ends with its second slice",
        "io_manager.py",
        "                if committed is None:\n",
        "                if committed is None or len(obj.committed) > 1:\n",
        ("shell/test_assets.py::test_many_slices_in_one_run_are_many_objects_and_one_event",),
    ),
    Mistake(
        "a run over several days knows the first",
        "assets.py",
        "asked = [date.fromisoformat(key) for key in context.partition_keys]",
        "asked = [date.fromisoformat(key) for key in context.partition_keys][:1]",
        ("shell/test_assets.py::test_several_days_in_one_run_copy_once_and_materialize_each",),
    ),
    Mistake(
        "every window begins two transactions early",
        "planning.py",
        "leaves=oids, start=leaf.swept, end=end",
        "leaves=oids, start=leaf.swept and leaf.swept - 2, end=end",
        (
            "unit/test_planning_model.py::test_every_live_row_is_in_the_lake_exactly_once",
            "unit/test_planning_model.py::test_a_planted_mistake_is_seen_and_nothing_without_it",
        ),
    ),
    Mistake(
        "every event describes the table",
        "metadata.py",
        '"pg_bronze/slices": len(done),',
        (
            '"pg_bronze/slices": len(done),\n'
            '        **of_definition(stream.copy.table, ""),\n'
            '        "pg_bronze/footer": dg.MetadataValue.json(stream.copy.table.to_json()),'
        ),
        ("shell/test_assets.py::test_events_stay_small",),
    ),
    Mistake(
        "a pending window goes on one block early",
        "planning.py",
        "pending = leaf.pending or Pending(upto",
        (
            "pending = leaf.pending and dataclasses.replace(leaf.pending, block=max(0, leaf.pending.block "
            "- 1)) or Pending(upto"
        ),
        ("e2e/test_kill.py::test_a_large_first_load_that_is_killed_again_and_again_loses_and_doubles_nothing",),
    ),
]
IDENTITY: list[Mistake] = [
    Mistake(
        "as long as a table is in its first generation, windows begin forty transactions early",
        "planning.py",
        "region = _region(table, None, leaf, tuple(oids), horizon)",
        "early = leaf.swept - 40 if leaf.swept and not watermark.generation else leaf.swept\n        "
        "region = _region(table, None, dataclasses.replace(leaf, swept=early), tuple(oids), horizon)",
        (
            _CHAOS.format("primary"),
            "shell/test_chaos.py::test_whatever_is_done_to_a_table_its_asset_loses_and_doubles_nothing[primary]",
            "shell/test_chaos.py::test_while_twelve_writers_race_the_asset_loses_and_doubles_nothing",
        ),
    ),
    Mistake(
        "the oid behind an ordinary table's name is not compared",
        "planning.py",
        "if watermark.table != table.oid:",
        "if table.partitioned and watermark.table != table.oid:",
        (
            "servers/test_generations.py::test_a_table_dropped_and_made_again_is_a_new_generation",
            "servers/test_generations.py::test_a_swap_by_rename_is_a_new_generation",
        ),
    ),
    Mistake(
        "tables of one name share a folder, whatever their schema",
        "layout.py",
        'return _within(_part(name) if schema == "public" else f"{_part(schema)}.{_part(name)}")',
        "return _within(_part(name))",
        (
            "servers/test_generations.py::test_a_table_moved_to_another_schema_leaves_its_name_to_another",
            "servers/test_copy.py::test_tables_of_one_name_in_two_schemas_have_folders_of_their_own",
        ),
    ),
    Mistake(
        "a reset keeps what was delivered of each leaf",
        "copy.py",
        "            leaves=MappingProxyType({}),\n",
        "",
        (
            "servers/test_generations.py::test_a_reset_copies_the_whole_table_again_and_moves_the_old_objects_away",
            "servers/test_generations.py::test_a_reset_heals_a_table_whose_last_object_is_gone",
        ),
    ),
    Mistake(
        "a reset takes a number although an open claim holds it",
        "copy.py",
        "        if recovered.redo:\n            # A claim left",
        "        if False:\n            # A claim left",
        (
            "servers/test_generations.py::test_a_decision_counts_although_a_claim_is_open",
            "servers/test_generations.py::test_a_reset_takes_an_open_claim_along",
        ),
    ),
    Mistake(
        "objects are numbered anew in each generation",
        "copy.py",
        "seq=before.seq + 1, key=key",
        "seq=before.seq + 1 if after.generation == before.generation else 1, key=key",
        (
            "servers/test_generations.py::test_a_reset_copies_the_whole_table_again_and_moves_the_old_objects_away",
            "servers/test_generations.py::test_a_crash_in_a_reset_is_finished_by_the_next_tick",
        ),
    ),
    Mistake(
        "a new generation after a new generation is opened by the first one's object",
        "copy.py",
        "opened = key if after.generation != before.generation else after.first_key",
        "opened = after.first_key or key",
        ("servers/test_generations.py::test_resets_upon_resets_keep_every_generation_apart",),
    ),
    Mistake(
        "a generation begun by giving up a claim does not say which object opened it",
        "copy.py",
        "after = dataclasses.replace(self._forgotten(claim.before), seq=seq, key=key, first_key=key)",
        "after = dataclasses.replace(self._forgotten(claim.before), seq=seq, key=key)",
        ("servers/test_recovery.py::test_a_claimed_block_range_of_a_table_rewritten_since_becomes_a_new_generation",),
    ),
    Mistake(
        "the object that opens a generation is moved away with those before it",
        "commit.py",
        "time >= opened:",
        "time > opened:",
        ("servers/test_generations.py::test_a_reset_copies_the_whole_table_again_and_moves_the_old_objects_away",),
    ),
    Mistake(
        "what a crash left of an old generation is not moved by the next tick",
        "copy.py",
        "if watermark.generation:\n",
        "if False:\n",
        ("servers/test_generations.py::test_a_crash_while_old_objects_are_moved_is_finished_by_the_next_tick",),
    ),
    Mistake(
        "an object moved away with its generation is taken for one that is gone",
        "commit.py",
        " and self._was_moved(watermark):",
        " and not watermark:",
        (
            (
                "servers/test_generations.py::"
                "test_another_copier_that_knows_only_the_old_generation_follows_into_the_new_one"
            ),
            "servers/test_recovery.py::test_a_crash_while_a_new_generation_begins_loses_and_doubles_nothing",
        ),
    ),
    Mistake(
        "a decision is refused for the damage it is to heal",
        "copy.py",
        "self.now(), forgive=True)",
        "self.now())",
        (
            "servers/test_generations.py::test_a_reset_heals_a_table_whose_last_object_is_gone",
            "servers/test_generations.py::test_going_on_without_the_last_object_copies_only_what_is_new",
        ),
    ),
    Mistake(
        "a partition not seen before counts as copied as far as the others",
        "watermark.py",
        "return self.leaves.get(oid, Leaf())",
        "return self.leaves.get(oid, Leaf(self.highest))",
        (
            "servers/test_partitioned.py::test_a_filled_table_that_is_attached_is_copied_whole",
            "servers/test_partitioned.py::test_two_levels_of_partitions_come_and_go_with_their_rows",
        ),
    ),
    Mistake(
        "a commit moves detached partitions along",
        "planning.py",
        "dict.fromkeys(oids, _swept(leaf, horizon))",
        "dict.fromkeys(watermark.leaves, _swept(leaf, horizon))",
        (
            "servers/test_partitioned.py::test_a_detached_partition_keeps_its_place_and_goes_on_when_it_returns",
            "servers/test_partitioned.py::test_two_levels_of_partitions_come_and_go_with_their_rows",
        ),
    ),
    Mistake(
        "what was delivered of a detached partition is forgotten",
        "drift.py",
        "return dataclasses.replace(after.with_columns(self.description.digest, before), detached=gone)",
        "kept = {oid: leaf for oid, leaf in after.leaves.items() if oid not in gone}\n"
        "        return dataclasses.replace(after.with_columns(self.description.digest, before), leaves=kept)",
        (
            "servers/test_partitioned.py::test_a_detached_partition_keeps_its_place_and_goes_on_when_it_returns",
            "servers/test_partitioned.py::test_two_levels_of_partitions_come_and_go_with_their_rows",
            "servers/test_partitioned.py::test_a_partition_detached_while_it_is_read_loses_and_doubles_nothing",
        ),
    ),
    Mistake(
        "a read through the root brings the rows of all partitions",
        "window.py",
        "if not region.only:\n",
        "if False:\n",
        ("servers/test_partitioned.py::test_a_filled_table_that_is_attached_is_copied_whole",),
    ),
    Mistake(
        "nobody looks at a table again after a read",
        "copy.py",
        "if self._look() != table.fingerprint:\n                found = None",
        "if False:\n                found = None",
        ("servers/test_partitioned.py::test_a_partition_detached_just_before_its_rows_are_read_loses_nothing",),
    ),
    Mistake(
        "a claimed slice of a partition detached since is read again without it",
        "copy.py",
        "gone = self.table.oid != claim.after.table or any(oid not in found for oid in claim.region.leaves)",
        "gone = self.table.oid != claim.after.table",
        ("servers/test_partitioned.py::test_a_claimed_slice_of_a_partition_detached_since_loses_nothing",),
    ),
    Mistake(
        "a claimed slice is read again from the name that its partition had",
        "copy.py",
        "region = dataclasses.replace(claim.region, schema=named.schema, name=named.name)",
        "region = claim.region",
        (
            (
                "servers/test_partitioned.py::"
                "test_a_claimed_slice_of_a_partition_renamed_since_holds_that_partition_s_rows"
            ),
        ),
    ),
    Mistake(
        "partitions below the first level are not looked for",
        "catalog.py",
        "join pg_class p on p.oid = tree.oid and p.relkind = 'p'",
        "join pg_class p on p.oid = tree.oid and p.relkind = 'p' and tree.oid = tree.root",
        (
            "servers/test_partitioned.py::test_partitions_of_partitions_are_copied",
            "servers/test_partitioned.py::test_two_levels_of_partitions_come_and_go_with_their_rows",
        ),
    ),
    Mistake(
        "a table is read with the rows of those that inherit from it",
        "window.py",
        "{'only ' if region.only else ''}",
        "",
        ("servers/test_partitioned.py::test_a_table_and_its_heir_are_two_tables_with_their_own_rows",),
    ),
    Mistake(
        "oids make a range only if they follow each other",
        "watermark.py",
        "elif oid - last == step:",
        "elif oid - last == step == 1:",
        ("servers/test_partitioned.py::test_the_state_of_five_hundred_partitions_stays_small",),
    ),
    Mistake(
        "the claim of a first load is nothing that could be reset",
        "copy.py",
        "watermark = recovered.watermark or recorded or claimed",
        "watermark = recovered.watermark or recorded",
        ("servers/test_generations.py::test_a_first_load_that_died_after_its_claim_can_be_reset",),
    ),
    Mistake(
        "a table is known by the transaction that last wrote its definition",
        "catalog.py",
        '        oid=root["oid"],',
        '        oid=int(root["versions"].partition("/")[0]),',
        (
            "servers/test_generations.py::test_a_table_renamed_there_and_back_is_the_same_generation",
            "servers/test_generations.py::test_a_table_moved_to_another_schema_and_back_is_the_same_generation",
            "servers/test_generations.py::test_a_truncated_table_goes_on_in_its_generation",
        ),
    ),
    Mistake(
        "a table never copied is reset to an empty object",
        "copy.py",
        "        if watermark is None:\n            raise SettingsError(",
        (
            "        watermark = watermark or self._beginning(recovered.foreign_key)\n"
            "        if watermark is None:\n            raise SettingsError("
        ),
        ("servers/test_generations.py::test_a_table_never_copied_has_nothing_to_reset",),
    ),
    Mistake(
        "each partition is a slice of its own",
        "planning.py",
        "            groups.setdefault(leaf, []).append(oid)",
        "            groups[leaf] = [oid]",
        ("servers/test_partitioned.py::test_the_partitions_of_a_table_are_one_table",),
    ),
    Mistake(
        "a table without partitions is skipped as one that cannot be copied",
        "catalog.py",
        '    for node in nodes:\n        if node["kind"] == "p" and node is not root:',
        (
            '    if root["kind"] == "p" and len(nodes) == 1:\n'
            '        return "it has no partitions"\n    for node in nodes:\n'
            '        if node["kind"] == "p" and node is not root:'
        ),
        ("servers/test_partitioned.py::test_a_table_without_partitions_waits_for_one",),
    ),
    Mistake(
        "partitions that came after the first load are not read",
        "planning.py",
        "    relations = {relation.oid: relation for relation in table.relations}\n    for oid",
        (
            "    known = [item for item in table.relations if item.oid in watermark.leaves]\n"
            "    relations = {relation.oid: relation for relation in known or table.relations}\n"
            "    for oid"
        ),
        (
            "servers/test_partitioned.py::test_a_dropped_and_remade_partition_is_copied_again",
            "servers/test_partitioned.py::test_a_filled_table_that_is_attached_is_copied_whole",
        ),
    ),
    Mistake(
        "the folder of a table is without the prefix",
        "layout.py",
        "return self._below(folder(self.schema, self.name))",
        "return folder(self.schema, self.name)",
        ("servers/test_copy.py::test_two_databases_share_a_bucket_under_prefixes",),
    ),
    Mistake(
        "the escape itself is not escaped in a folder",
        "layout.py",
        '_UNSAFE = re.compile(r"[./%',
        '_UNSAFE = re.compile(r"[./',
        ("servers/test_copy.py::test_tables_of_any_name_are_copied_and_found_again",),
    ),
    Mistake(
        "what is delivered is noted under the number of the table's file",
        "catalog.py",
        "Relation(**{field: leaf[field] for field in _RELATION_FIELDS})",
        'Relation(**{field: leaf[field] for field in _RELATION_FIELDS} | {"oid": leaf["relfilenode"]})',
        ("servers/test_copy.py::test_a_vacuum_full_between_ticks_doubles_nothing",),
    ),
    Mistake(
        "a table whose columns have changed is copied from its beginning",
        "copy.py",
        "            if isinstance(step, Quiet):\n                if planning",
        (
            "            if watermark.seq and watermark.columns_digest != schema.description(self.table).digest:\n"
            '                step = NewGeneration("its columns changed")\n'
            "            if isinstance(step, Quiet):\n                if planning"
        ),
        (
            "servers/test_copy.py::test_a_column_added_between_ticks_comes_with_the_next_rows",
            "servers/test_copy.py::test_a_column_dropped_or_renamed_between_ticks_stops_nothing",
        ),
    ),
    Mistake(
        "the columns of a leaf are named by their place",
        "window.py",
        "    found, condition = relation(region), where(region, column_names)\n",
        (
            '    named = ", ".join(quote(name) for name in column_names.values())\n'
            '    found, condition = f"{relation(region)} ({named})", where(region, column_names)\n'
        ),
        ("servers/test_partitioned.py::test_a_partition_with_its_columns_in_another_order_is_read_by_name",),
    ),
    Mistake(
        "the sensor looks at the counters of a table alone, not at those of its partitions",
        "sensors.py",
        "[activity.tuples.get(leaf, 0) for leaf in leaves]",
        "[activity.tuples.get(oid, 0)]",
        ("shell/test_leaves.py::test_a_row_in_one_leaf_makes_its_table_due",),
    ),
    Mistake(
        "the sensor knows the partitions of its first look",
        "sensors.py",
        "leaves = activity.leaves(oid)\n",
        "leaves = gates.__dict__.setdefault(str(oid), activity.leaves(oid))\n",
        (
            "shell/test_leaves.py::test_a_filled_table_makes_the_one_it_is_attached_to_due",
            "shell/test_leaves.py::test_rows_written_to_a_detached_leaf_are_copied_once_it_is_back",
        ),
    ),
    Mistake(
        "the sensor takes a table that inherits for a partition",
        "source.py",
        "where inhrelid = c.oid and c.relispartition)",
        "where inhrelid = c.oid)",
        ("shell/test_leaves.py::test_a_table_and_its_heir_are_due_each_for_its_own_rows",),
    ),
    Mistake(
        "a table that is not pending has to keep the file it began with",
        "planning.py",
        "if leaf.pending and leaf.pending.relfilenode != relation.relfilenode:",
        "if (leaf.pending.relfilenode if leaf.pending else 1) != relation.relfilenode:",
        ("unit/test_planning.py::test_a_rewrite_of_any_other_table_changes_nothing",),
    ),
    Mistake(
        "only the first leaf is looked at for a rewrite",
        "planning.py",
        (
            "    for oid, relation in relations.items():\n"
            "        leaf = watermark.leaf(oid)\n"
            "        if leaf.pending and"
        ),
        (
            "    for oid, relation in list(relations.items())[:1]:\n"
            "        leaf = watermark.leaf(oid)\n"
            "        if leaf.pending and"
        ),
        ("unit/test_planning.py::test_a_rewrite_of_a_second_pending_leaf_is_seen_at_once",),
    ),
    Mistake(
        "another table behind the name is taken for the same",
        "planning.py",
        "    if watermark.table != table.oid:\n",
        "    if False:\n",
        ("unit/test_planning.py::test_another_table_behind_the_name_is_a_new_generation",),
    ),
    Mistake(
        "only the leaves of now keep their state",
        "planning.py",
        "return Read(region, watermark.with_leaves(dict.fromkeys(oids, _swept(leaf, horizon))))",
        (
            "kept = dataclasses.replace(watermark, leaves={})\n"
            "        return Read(region, kept.with_leaves(dict.fromkeys(oids, _swept(leaf, horizon))))"
        ),
        ("unit/test_planning.py::test_a_detached_leaf_keeps_its_entry",),
    ),
    Mistake(
        "the file of a detached leaf is looked for among the others",
        "planning.py",
        "if leaf.pending and leaf.pending.relfilenode != relation.relfilenode:",
        (
            "if any(item.pending and item.pending.relfilenode != relation.relfilenode for item in "
            "watermark.leaves.values()):"
        ),
        ("unit/test_planning.py::test_a_detached_leaf_that_was_pending_holds_nobody_up",),
    ),
    Mistake(
        "whatever is attached is read through the root",
        "window.py",
        "    if not region.only:\n",
        "    if False:\n",
        ("unit/test_window.py::test_leaves_through_the_root_are_told_by_tableoid",),
    ),
    Mistake(
        "what a domain says of its numbers is forgotten",
        "catalog.py",
        "coalesce(resolved.typmod, a.atttypmod)",
        "a.atttypmod",
        ("servers/test_catalog.py::test_a_table_is_described_with_domains_resolved",),
    ),
    Mistake(
        "a partition is a table of its own",
        "catalog.py",
        "    and not c.relispartition\n",
        "",
        ("servers/test_catalog.py::test_the_catalog_holds_every_table_once_and_says_what_it_skips",),
    ),
    Mistake(
        "etl_control is copied too",
        "catalog.py",
        "    and c.relname <> 'etl_control'\n",
        "",
        ("servers/test_catalog.py::test_a_table_that_is_not_there_is_none",),
    ),
    Mistake(
        "a table is another one once its statistics are",
        "catalog.py",
        '[[node["oid"], node["relfilenode"], node["versions"]] for node in nodes]',
        '[[node["oid"], node["relfilenode"], node["versions"], node["row_estimate"]] for node in nodes]',
        ("servers/test_catalog.py::test_the_fingerprint_stays_through_work_and_maintenance",),
    ),
    Mistake(
        "a change that is undone was none",
        "catalog.py",
        '[[node["oid"], node["relfilenode"], node["versions"]] for node in nodes]',
        '[[node["oid"], node["relfilenode"]] for node in nodes]',
        ("servers/test_catalog.py::test_the_fingerprint_shows_a_change_even_when_it_is_undone",),
    ),
    Mistake(
        "a partition is another one once it has grown",
        "catalog.py",
        '[[node["oid"], node["relfilenode"], node["versions"]] for node in nodes]',
        '[[node["oid"], node["relfilenode"], node["versions"], node["page_count"]] for node in nodes]',
        ("servers/test_catalog.py::test_a_partitioned_tables_fingerprint_stays_through_maintenance",),
    ),
    Mistake(
        "what happens to a leaf does not happen to its table",
        "catalog.py",
        'node["versions"]] for node in nodes]',
        'node["versions"]] for node in nodes if node is nodes[0]]',
        ("servers/test_catalog.py::test_a_partitioned_tables_fingerprint_shows_every_change_of_its_leaves",),
    ),
    Mistake(
        "a column that is retyped or described is no news",
        "catalog.py",
        "[tuple(vars(column).values()) for column in table.columns]",
        "[column.name for column in table.columns]",
        ("servers/test_catalog.py::test_the_catalogs_fingerprint_follows_definitions_and_nothing_else",),
    ),
]
HISTORY: list[Mistake] = [
    Mistake(
        "another cluster is told by its timeline alone",
        "planning.py",
        "    if then.system_id != place.system_id:\n",
        "    if then.system_id != place.system_id and then.timeline != place.timeline:\n",
        (
            "servers/test_history.py::test_after_pg_upgrade_a_table_stops_and_goes_on_where_it_was",
            "servers/test_generations.py::test_another_history_stops_the_table_until_somebody_decides",
        ),
    ),
    Mistake(
        "the timeline of a primary is taken from its last checkpoint",
        "source.py",
        "else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,",
        "else (select timeline_id from pg_control_checkpoint()) end,",
        ("servers/test_history.py::test_a_standby_promoted_just_now_stops_the_table_before_its_first_checkpoint[18]",),
    ),
    Mistake(
        "an older log position is no restore while the timeline is the same",
        "planning.py",
        "    if _lsn(place.lsn) < _lsn(then.lsn):\n",
        "    if _lsn(place.lsn) < _lsn(then.lsn) and then.timeline != place.timeline:\n",
        (
            "servers/test_history.py::test_a_backup_restored_in_place_stops_the_table[18]",
            "servers/test_generations.py::test_another_history_stops_the_table_until_somebody_decides",
        ),
    ),
    Mistake(
        "a watermark keeps the log position of the first load",
        "copy.py",
        "after, place=self.place or after.place, seq=before.seq + 1, key=key, first_key=opened",
        "after, seq=before.seq + 1, key=key, first_key=opened",
        ("servers/test_history.py::test_a_backup_restored_in_place_stops_the_table[18]",),
    ),
    Mistake(
        "a horizon that went back is raised to what is delivered",
        "copy.py",
        "self.horizon = self.source.horizon(at_least=newest.highest if newest else None)",
        "self.horizon = max(self.source.horizon(), (newest.highest if newest else None) or 0)",
        ("servers/test_history.py::test_after_a_failover_that_lost_transactions_continue_does_not_go_on_green[18]",),
    ),
    Mistake(
        "continue begins a new generation",
        "copy.py",
        "return self._state_change(recorded, reason, lambda watermark: watermark)",
        "return self._state_change(recorded, reason, self._forgotten)",
        ("servers/test_history.py::test_after_a_failover_that_lost_nothing_the_table_stops_until_continued[18]",),
    ),
    Mistake(
        "a reset forgets the cursor and not what was delivered",
        "copy.py",
        "            seed=None,\n            leaves=MappingProxyType({}),\n",
        "            seed=None,\n",
        ("servers/test_history.py::test_after_a_failover_that_lost_transactions_a_reset_makes_the_lake_right[18]",),
    ),
    Mistake(
        "reconcile takes all below the present horizon for copied",
        "copy.py",
        "Leaf(swept=min(upto, self.horizon))",
        "Leaf(swept=self.horizon)",
        ("servers/test_history.py::test_reconcile_goes_on_where_nothing_was_lost_and_copies_nothing_again[18]",),
    ),
    Mistake(
        "reconcile leaves the watermark where it was when ids went back",
        "copy.py",
        "Leaf(swept=min(upto, self.horizon))",
        "Leaf(swept=upto)",
        ("servers/test_history.py::test_reconcile_goes_on_although_ids_went_back_when_no_row_was_lost[18]",),
    ),
    Mistake(
        "reconcile compares transaction ids and no values",
        "reconcile.py",
        '(pl.struct(list(columns)).hash() if columns else pl.lit(0, pl.UInt64)).alias("row"),',
        'pl.lit(0, pl.UInt64).alias("row"),',
        ("servers/test_history.py::test_reconcile_says_what_a_lossy_failover_lost_and_changes_nothing",),
    ),
    Mistake(
        "reconcile takes rows of transactions yet to come for deleted ones",
        "reconcile.py",
        "return unborn + later.filter(",
        "return later.filter(",
        ("servers/test_history.py::test_reconcile_says_what_a_lossy_failover_lost_and_changes_nothing",),
    ),
    Mistake(
        "reconcile passes over keys that only the lake has",
        "reconcile.py",
        "        if found.gone:\n",
        "        if False:\n",
        ("servers/test_history.py::test_a_lost_row_whose_id_others_have_used_since_counts_as_deleted",),
    ),
    Mistake(
        "reconcile refuses only first loads that are half read",
        "reconcile.py",
        "    if any(leaf.pending for leaf in watermark.leaves.values()):\n",
        "    if any(leaf.pending and leaf.swept is None for leaf in watermark.leaves.values()):\n",
        ("servers/test_history.py::test_reconcile_compares_no_window_that_is_half_read",),
    ),
    Mistake(
        "windows as wide as all ids are read",
        "window.py",
        "MAX_WIDTH = 2**31 - 10**6",
        "MAX_WIDTH = 2**32 - 10**6",
        ("servers/test_boundaries.py::test_windows_just_below_2_31_are_read_and_wider_ones_refused",),
    ),
    Mistake(
        "the heartbeat is due by the window advanced in memory",
        "copy.py",
        "if planning.due_for_heartbeat(watermark, self.table, self.horizon):",
        "if planning.due_for_heartbeat(ahead, self.table, self.horizon):",
        ("servers/test_boundaries.py::test_a_quiet_table_closes_its_window_long_before_ids_are_used_again[18]",),
    ),
    Mistake(
        "a first load takes only rows that are older than its end",
        "window.py",
        'return f"not age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})"',
        'return f"age(t.xmin) > (select ({NEXT} - {end}) & {MASK})"',
        (
            "servers/test_boundaries.py::test_rows_frozen_long_ago_are_in_the_first_load[18]",
            "unit/test_window.py::test_a_first_load_leaves_out_only_what_is_not_below_the_horizon",
        ),
    ),
    Mistake(
        "a first load begins at the first transaction there ever was",
        "window.py",
        'return f"not age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})"',
        "return written(3, end)",
        ("servers/test_boundaries.py::test_rows_whose_ids_are_1_and_2_are_in_the_first_load_and_in_no_window[18]",),
    ),
    Mistake(
        "a window holds the transaction at its end",
        "window.py",
        "(({NEXT} - {end}) & {MASK}) + 1) and (select",
        "(({NEXT} - {end}) & {MASK})) and (select",
        ("unit/test_window.py::test_a_window_holds_its_ids_and_no_others_across_the_wrap_around",),
    ),
    Mistake(
        "a window leaves out the transaction it begins with",
        "window.py",
        'and (select ({NEXT} - {start}) & {MASK})"',
        'and (select ({NEXT} - {start} - 1) & {MASK})"',
        (
            "servers/test_boundaries.py::test_equal_horizons_read_nothing_and_lose_nothing[18]",
            "servers/test_boundaries.py::test_a_window_across_the_epoch_holds_every_row_once[18]",
            "servers/test_copy.py::test_a_row_that_commits_late_is_copied",
            "servers/test_copy.py::test_an_open_transaction_holds_back_what_was_written_after_it_and_nothing_else",
            "servers/test_copy.py::test_rows_written_under_savepoints_are_copied",
            "servers/test_copy.py::test_a_prepared_transaction_is_copied_once_it_is_committed",
            "servers/test_copy.py::test_an_update_that_leaves_the_cursor_column_alone_is_copied",
            "servers/test_copy.py::test_a_cursor_value_that_goes_backwards_or_is_null_hides_no_row",
            "servers/test_copy.py::test_infinite_cursor_values_hide_no_row",
            "servers/test_copy.py::test_a_table_without_any_cursor_column_is_copied",
            "servers/test_partitioned.py::test_a_row_that_moves_to_another_partition_is_copied_there",
            "servers/test_history.py::test_reading_moves_to_a_standby_and_back_without_losing_a_row[18]",
            "servers/test_boundaries.py::test_the_epoch_changes_under_a_table_that_is_copied_on[18]",
            "servers/test_copy.py::test_the_first_load_takes_everything_and_the_next_ticks_only_what_is_new",
            "servers/test_copy.py::test_the_highest_xid_of_a_key_is_the_live_row",
            "servers/test_copy.py::test_a_type_changed_with_a_rewrite_brings_every_row_again_with_its_new_value",
        ),
    ),
    Mistake(
        "every id gets the epoch of the horizon",
        "window.py",
        'return f"({end - 1} - (({end - 1} - t.xmin::text::bigint) & {MASK}))::bigint"',
        'return f"({end - 1 & ~MASK} + t.xmin::text::bigint)::bigint"',
        (
            "unit/test_window.py::test_an_id_below_the_end_comes_back_whole",
            "servers/test_boundaries.py::test_the_epoch_changes_under_a_table_that_is_copied_on[18]",
        ),
    ),
    Mistake(
        "a row whose cursor is NULL lies neither above nor below a floor",
        "window.py",
        "or ({above} is not true and {window})",
        "or (not {above} and {window})",
        ("unit/test_window.py::test_a_box_splits_the_window_at_its_floor",),
    ),
    Mistake(
        "a claim forgets at which row of a block it begins",
        "window.py",
        'given["lines"] = tuple(given.get("lines", (0, 0)))',
        'given["lines"] = (0, 0)',
        ("unit/test_window.py::test_a_region_survives_a_turn_through_json",),
    ),
    Mistake(
        "the bucket is searched before it is compared with the watermark's",
        "copy.py",
        "if recorded is not None and recorded.place.bucket != self.store.place:",
        "if False:",
        ("servers/test_generations.py::test_another_bucket_stops_the_table_until_somebody_decides",),
    ),
    Mistake(
        "a standby that lags is taken for a restored database",
        "planning.py",
        "    if _lsn(place.lsn) < _lsn(then.lsn) and standby:\n",
        "    if False:\n",
        ("servers/test_history.py::test_a_standby_that_lags_behind_the_primary_read_before_is_waited_for[18]",),
    ),
    Mistake(
        "timelines are not compared",
        "planning.py",
        "    if then.timeline != place.timeline:\n",
        "    if False:\n",
        (
            "servers/test_generations.py::test_another_history_stops_the_table_until_somebody_decides",
            "servers/test_history.py::test_after_a_failover_that_lost_nothing_the_table_stops_until_continued[18]",
            "e2e/test_commands.py::test_after_a_failover_each_table_stops_until_its_command_and_none_goes_on_unasked",
        ),
    ),
    Mistake(
        "reconcile takes no version in the lake for a later one",
        "reconcile.py",
        "ahead=_ahead(source, held, copy.horizon),",
        "ahead=0,",
        ("servers/test_history.py::test_reconcile_says_what_a_lossy_failover_lost_and_changes_nothing",),
    ),
    Mistake(
        "rows older than the table's relfrozenxid are taken for copied",
        "window.py",
        'and (select ({NEXT} - {start}) & {MASK})"',
        (
            'and (select ({NEXT} - {start}) & {MASK})" + (\n'
            '        " and age(t.xmin) <= (select age(relfrozenxid) from pg_class where oid = t.tableoid)"\n    )'
        ),
        ("servers/test_generations.py::test_rows_frozen_between_two_ticks_are_neither_lost_nor_copied_again",),
    ),
    Mistake(
        "a first load takes whatever is there",
        "window.py",
        'return f"not age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})"',
        'return "true"',
        ("servers/test_copy.py::test_rows_written_while_a_window_is_split_come_with_the_next",),
    ),
    Mistake(
        "a window leaves out the last transaction before its end",
        "window.py",
        "(({NEXT} - {end}) & {MASK}) + 1) and (select",
        "(({NEXT} - {end}) & {MASK}) + 2) and (select",
        ("servers/test_copy.py::test_deleted_rows_stay_in_the_lake_and_their_keys_can_return",),
    ),
    Mistake(
        "a standby that lags is taken for a restored primary",
        "planning.py",
        "raise behind(table.label, horizon, leaf.swept, standby)",
        "raise behind(table.label, horizon, leaf.swept, False)",
        ("unit/test_planning.py::test_a_horizon_below_what_is_copied_stops_a_primary_and_postpones_a_standby",),
    ),
    Mistake(
        "a window may be as wide as the limit",
        "planning.py",
        "horizon - since >= MAX_WIDTH:",
        "horizon - since > MAX_WIDTH:",
        ("unit/test_planning.py::test_a_window_just_narrow_enough_is_read_and_a_wider_one_stops",),
    ),
    Mistake(
        "a pending window may lie for any time",
        "planning.py",
        "_check_width(table.label, pending.upto if leaf.swept is None else leaf.swept, horizon)",
        "_check_width(table.label, leaf.swept, pending.upto)",
        ("unit/test_planning.py::test_a_pending_window_that_lay_too_long_stops_too",),
    ),
    Mistake(
        "a heartbeat comes one transaction early",
        "planning.py",
        "horizon - leaf.swept > HEARTBEAT_WIDTH",
        "horizon - leaf.swept >= HEARTBEAT_WIDTH",
        ("unit/test_planning.py::test_a_quiet_table_is_due_for_a_heartbeat_long_before_that",),
    ),
    Mistake(
        "a partition that is away asks for a heartbeat",
        "planning.py",
        "leaves = [watermark.leaf(relation.oid) for relation in table.relations]",
        "leaves = list(watermark.leaves.values())",
        ("unit/test_planning.py::test_a_partition_detached_long_ago_asks_for_no_heartbeat",),
    ),
    Mistake(
        "another timeline is the same history",
        "planning.py",
        "    if then.timeline != place.timeline:\n",
        "    if False:\n",
        ("unit/test_planning.py::test_another_place_stops_the_table_says_why_and_what_to_do[timeline]",),
    ),
    Mistake(
        "a database that wrote nothing since was restored",
        "planning.py",
        "    if _lsn(place.lsn) < _lsn(then.lsn):\n        raise HistoryChanged(",
        "    if _lsn(place.lsn) <= _lsn(then.lsn):\n        raise HistoryChanged(",
        ("unit/test_planning.py::test_the_same_place_further_on_is_fine",),
    ),
    Mistake(
        "log positions are compared as texts",
        "planning.py",
        "    return (int(high, 16) << 32) | int(low, 16)",
        '    return int.from_bytes(text.ljust(17).encode(), "big")',
        ("unit/test_planning.py::test_a_log_position_is_a_number_and_not_a_text",),
    ),
    Mistake(
        "a standby behind the watermark was restored",
        "planning.py",
        "< _lsn(then.lsn) and standby:",
        "< _lsn(then.lsn) and False:",
        ("unit/test_planning.py::test_a_standby_that_has_not_come_so_far_is_asked_again",),
    ),
    Mistake(
        "a standby may be on any timeline",
        "planning.py",
        "    if then.timeline != place.timeline:\n",
        "    if then.timeline != place.timeline and not standby:\n",
        ("unit/test_planning.py::test_a_standby_on_another_timeline_stops_all_the_same",),
    ),
]
FAULTS: list[Mistake] = [
    Mistake(
        "a primary's horizon is used before it is durable",
        "source.py",
        "        if not self.standby:\n            self._wait_until_durable()\n",
        "        if self.standby:\n            self._wait_until_durable()\n",
        ("servers/test_postgres_faults.py::test_ids_that_a_crash_hands_out_again_hide_no_row",),
    ),
    Mistake(
        "what the log has written counts, and not what was inserted into it",
        "source.py",
        'self.ask("select pg_current_wal_insert_lsn()::text")',
        'self.ask("select pg_current_wal_lsn()::text")',
        ("servers/test_postgres_faults.py::test_ids_that_a_crash_hands_out_again_hide_no_row",),
    ),
    Mistake(
        "the header of a log page that holds nothing else counts as not flushed",
        "source.py",
        "PAGE_BYTES, HEADER_BYTES = 8192, 40",
        "PAGE_BYTES, HEADER_BYTES = 8192, 0",
        ("servers/test_copy.py::test_an_idle_server_that_has_switched_its_log_postpones_nothing",),
    ),
    Mistake(
        "the look for a free connection asks over the kept one",
        "source.py",
        "_open(self._conninfo, self.name).close()",
        'self.ask("select 1")',
        ("servers/test_postgres_faults.py::test_the_last_free_connection_is_not_enough",),
    ),
    Mistake(
        "a damaged table is taken for a connection that broke",
        "refusal.py",
        "    if _DAMAGED_WORDS.search(text):\n        return _damaged(label)\n",
        "",
        (
            "unit/test_refusal.py::test_damage_is_told_by_both_readers_to_an_operator",
            "servers/test_postgres_faults.py::test_a_damaged_table_stops_and_says_so_until_it_is_restored[connectorx-pages]",
        ),
    ),
    Mistake(
        "a damaged table is taken for an altered one",
        "refusal.py",
        'if state in {"42P01", "42703", "42704", "42883", "3F000"}:',
        'if state in {"42P01", "42703", "42704", "42883", "3F000", "XX001"}:',
        ("servers/test_postgres_faults.py::test_a_damaged_table_stops_and_says_so_until_it_is_restored[copy-pages]",),
    ),
    Mistake(
        "an error that nobody knows is taken for a connection that broke",
        "refusal.py",
        'return _broken(label) if state in _ENDED or state.startswith("08") else _failed(label)',
        "return _broken(label)",
        ("servers/test_postgres_faults.py::test_an_error_of_a_cast_of_the_users_own_is_told_as_such[copy]",),
    ),
    Mistake(
        "an error of connectorx's that nobody knows is taken for a connection that broke",
        "refusal.py",
        "return _failed(label) if _FAILED_WORDS.match(text) else _broken(label)",
        "return _broken(label)",
        ("servers/test_postgres_faults.py::test_an_error_of_a_cast_of_the_users_own_is_told_as_such[connectorx]",),
    ),
    Mistake(
        "a want of memory or disk is taken for an error that nobody knows",
        "refusal.py",
        "    if state in _NO_ROOM:\n",
        "    if False:\n",
        ("unit/test_refusal.py::test_a_server_without_memory_or_disk_is_told_by_both_readers_and_tried_again",),
    ),
    Mistake(
        "a want of memory or disk in connectorx's words is taken for an error that nobody knows",
        "refusal.py",
        "    if _NO_ROOM_WORDS.search(text):\n",
        "    if False:\n",
        ("unit/test_refusal.py::test_a_server_without_memory_or_disk_is_told_by_both_readers_and_tried_again",),
    ),
    Mistake(
        "a role that is not let in is told that the server is down",
        "refusal.py",
        "if refused and any(words in refused[-1] for words in _KEPT_OUT):",
        "if False:",
        ("servers/test_postgres_faults.py::test_a_role_that_is_not_let_in_is_told_why",),
    ),
    Mistake(
        "a refusal in words that nobody knows is told as a server that is down",
        "refusal.py",
        "    if refused:\n",
        "    if False:\n",
        ("servers/test_postgres_faults.py::test_what_nobody_knows_of_a_refusal_is_repeated",),
    ),
    Mistake(
        "a server without a free connection passes for one that is down",
        "refusal.py",
        '("too many clients", "remaining connection slots", "too many connections")',
        '("too many connections",)',
        ("servers/test_postgres_faults.py::test_a_server_without_a_free_connection_says_so_and_is_gone_on_with",),
    ),
    Mistake(
        "the server is not told how long a read may take",
        "reader.py",
        'wanted = {**SESSION, "statement_timeout": f"{max(1, int(timeout_s * 1000))}ms"}',
        "wanted = {**SESSION}",
        ("servers/test_postgres_faults.py::test_a_read_beyond_its_time_limit_is_cancelled_by_the_server",),
    ),
    Mistake(
        "a connection that broke is taken for an altered table",
        "refusal.py",
        "_FAILED_WORDS.match(text) else _broken(label)",
        "_FAILED_WORDS.match(text) else _altered(label)",
        ("servers/test_postgres_faults.py::test_a_read_that_is_ended_amid_its_rows_copies_none_of_them",),
    ),
    Mistake(
        "the rows that came before a COPY was ended are taken for all",
        "reader.py",
        'with cursor.copy(f"copy (\\n{query}\\n) to stdout (format binary)".encode()) as stream:\n'
        "        for message in stream:\n"
        "            messages.append(bytes(message))\n"
        "            size_bytes += len(message)\n"
        "            if size_bytes >= DECODE_BYTES:\n"
        "                frames.append(decoder.rows(messages))\n"
        "                messages, size_bytes = [], 0\n"
        "    frames.append(decoder.rows(messages))\n"
        "    if not decoder.complete:\n",
        'copied = cursor.copy(f"copy (\\n{query}\\n) to stdout (format binary)".encode())\n'
        "    with contextlib.suppress(psycopg.Error), copied as stream:\n"
        "        for message in stream:\n            messages.append(bytes(message))\n"
        "    frames.append(decoder.rows(messages))\n"
        "    if not frames:\n",
        (
            "servers/test_postgres_faults.py::test_a_read_that_is_ended_amid_its_rows_copies_none_of_them[copy-cancelled]",
        ),
    ),
    Mistake(
        "a read cancelled by a standby's replay is taken for a connection that broke",
        "refusal.py",
        'if "statement timeout" in text or "canceling statement" in text:',
        'if "statement timeout" in text:',
        ("servers/test_postgres_faults.py::test_a_conflict_with_recovery_on_a_standby_is_said_and_heals",),
    ),
    Mistake(
        "a batch asks a server that is down once more for each of its tables",
        "resources.py",
        "            self._down = error\n            raise\n",
        "            raise\n",
        ("shell/test_faults.py::test_a_batch_waits_once_for_a_server_that_does_not_answer",),
    ),
    Mistake(
        "a fault of one table's objects holds back the whole batch",
        "resources.py",
        "self._doubted = self._doubted or isinstance(error, SourceUnavailable | StoreUnavailable | AccessDenied)",
        "self._down = self._down or error",
        ("shell/test_faults.py::test_a_bucket_that_fails_for_one_table_holds_back_no_other",),
    ),
    Mistake(
        "etl_control is written over the run's first connection to its end, although that was cut",
        "resources.py",
        "if self._control is None or self._control.broken:",
        "if self._control is None:",
        ("shell/test_faults.py::test_a_read_that_is_ended_in_the_midst_of_a_batch_fails_its_table_alone",),
    ),
    Mistake(
        "what is wrong with a server is said of no table",
        "metadata.py",
        'start = f"{label}: " if label else ""',
        'start = ""',
        ("shell/test_faults.py::test_a_server_that_is_away_is_named_with_the_remedy_beside_every_table",),
    ),
    Mistake(
        "a fault nobody foresaw is kept from Dagster's own retries",
        "io_manager.py",
        "raise metadata.failure(error, obj.copy.label) from error\n            raise\n",
        "raise metadata.failure(error, obj.copy.label) from error\n"
        "            raise dg.Failure(allow_retries=False) from error\n",
        ("shell/test_crashes.py::test_a_step_that_dagster_retries_goes_on_where_it_failed",),
    ),
    Mistake(
        "a run that adopted an object and wrote others records the adopted one as its last",
        "metadata.py",
        "**of_watermark(watermark),\n    }\n",
        "**of_watermark(stream.adopted[-1].watermark if stream.adopted else watermark),\n    }\n",
        ("shell/test_crashes.py::test_a_copy_that_dies_at_any_place_loses_and_doubles_nothing",),
    ),
    Mistake(
        "an adopted object does not move the state on",
        "commit.py",
        "            watermark = footer.after\n            adopted.append(",
        "            adopted.append(",
        (
            "shell/test_crashes.py::test_a_copy_that_dies_at_any_place_loses_and_doubles_nothing",
            "shell/test_crashes.py::test_a_step_that_dagster_retries_goes_on_where_it_failed",
            "shell/test_crashes.py::test_a_run_executed_again_from_its_failure_copies_the_failed_table_alone",
        ),
    ),
    Mistake(
        "another database of a cluster is taken for the same",
        "planning.py",
        "    if then.database != place.database:\n",
        "    if then.database != place.database and then.system_id != place.system_id:\n",
        (
            "shell/test_faults.py::test_a_setting_that_points_elsewhere_stops_every_table[PG_DB-Dagster knows]",
            "servers/test_generations.py::test_another_database_stops_the_table",
        ),
    ),
    Mistake(
        "the control table is made at the first load alone",
        "control.py",
        "            if found is None:\n                self._make()\n",
        "            if before is None:\n                self._make()\n",
        (
            "shell/test_faults.py::test_a_lost_memory_loses_and_doubles_nothing[etl_control dropped]",
            "servers/test_control.py::test_a_control_table_dropped_while_we_run_is_made_again",
        ),
    ),
    Mistake(
        "a state found in the bucket is not recorded while nothing is new",
        "copy.py",
        "if first is None and not recovered.adopted and not recovered.rebuilt:",
        "if first is None and not recovered.adopted:",
        ("shell/test_assets.py::test_without_our_event_nothing_is_loaded_a_second_time",),
    ),
    Mistake(
        "an empty folder is taken for one with nothing new",
        "commit.py",
        "if watermark.seq and not forgive and (not items or items[0].key != watermark.key):",
        "if watermark.seq and not forgive and items and items[0].key != watermark.key:",
        ("servers/test_s3_faults.py::test_a_deleted_bucket_stops_every_table_and_an_empty_one_in_its_place_as_well",),
    ),
    Mistake(
        "a claim whose answer was lost is taken for another writer's",
        "commit.py",
        "if found is None or Claim.from_text(found, claim_key).nonce != claim.nonce:",
        "if found is None or Claim.from_text(found, claim_key).after.key == claim.after.key:",
        ("servers/test_s3_faults.py::test_a_write_whose_answer_is_lost_is_known_to_be_ours",),
    ),
    Mistake(
        "an answer cut short is taken for a missing object",
        "store.py",
        "            if _code(error) in _MISSING:\n                return None\n            if _code(error) ==",
        '            if _code(error) in {*_MISSING, ""}:\n                return None\n            if _code(error) ==',
        ("servers/test_s3_faults.py::test_an_answer_that_is_cut_short_is_no_end_of_an_object",),
    ),
    Mistake(
        "a bad answer is not asked again",
        "store.py",
        'retries={"total_max_attempts": 2, "mode": "standard"}',
        'retries={"total_max_attempts": 1, "mode": "standard"}',
        (
            "servers/test_s3_faults.py::test_one_bad_answer_is_asked_again_and_nobody_hears_of_it",
            "servers/test_s3_faults.py::test_a_server_that_takes_a_request_and_never_answers_is_given_up",
        ),
    ),
    Mistake(
        "a full disk is said to be cured by the next tick",
        "store.py",
        '_FULL = {"507", "XMinioStorageFull", ',
        "_FULL = {",
        (
            "servers/test_s3_faults.py::test_a_full_server_asks_for_room",
            "servers/test_s3_faults.py::test_on_a_disk_that_is_full_nothing_is_lost_and_it_heals[minio]",
        ),
    ),
    Mistake(
        "a wrong secret is said to be cured by the next tick",
        "store.py",
        '_WRONG_KEYS = {"403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}',
        '_WRONG_KEYS = {"403", "InvalidAccessKeyId", "InvalidToken"}',
        (
            "servers/test_s3_faults.py::test_changed_keys_are_refused_until_they_are_right_again",
            "servers/test_store.py::test_wrong_keys_are_an_error_of_rights_that_shows_neither",
        ),
    ),
    Mistake(
        "an object is written over",
        "store.py",
        'self.client.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")',
        "self.client.put_object(Bucket=self.bucket, Key=key, Body=body)",
        (
            "servers/test_store.py::test_an_object_is_created_once_and_never_overwritten",
            "servers/test_store.py::test_of_many_who_create_one_key_exactly_one_wins",
        ),
    ),
    Mistake(
        "a listing ends with its first page",
        "store.py",
        'if not page.get("IsTruncated") or (limit is not None and count >= limit):',
        'if not page.get("IsTruncated") or count >= (limit or 1000):',
        ("servers/test_store.py::test_a_listing_of_more_than_one_page_is_complete_and_in_order",),
    ),
    Mistake(
        "a tail of a small object is the beginning it has room for",
        "store.py",
        '{"Range": f"bytes=-{size_bytes}"}',
        '{"Range": f"bytes=0-{size_bytes - 1}"}',
        ("servers/test_store.py::test_a_tail_is_the_end_of_an_object_or_all_of_it",),
    ),
    Mistake(
        "a server that does not answer is left to an operator",
        "store.py",
        '        return StoreUnavailable(\n            f"no connection',
        '        return StoreNotFit(\n            f"no connection',
        (
            "servers/test_s3_faults.py::test_a_server_that_was_killed_and_comes_back_is_gone_on_with",
            "servers/test_s3_faults.py::test_a_write_of_which_no_answer_ever_comes_is_found_by_the_next_tick",
            "servers/test_s3_faults.py::test_a_server_killed_between_claim_and_object_loses_and_doubles_nothing",
            "servers/test_s3_faults.py::test_a_frozen_server_is_given_up_and_gone_on_with_when_it_thaws",
            "servers/test_store.py::test_a_server_that_is_down_is_said_to_be_within_ten_seconds",
            "servers/test_store.py::test_a_host_that_does_not_resolve_is_said_within_ten_seconds",
        ),
    ),
    Mistake(
        "a role's own limit of connections passes for a server that is down",
        "refusal.py",
        '("too many clients", "remaining connection slots", "too many connections")',
        '("too many clients", "remaining connection slots")',
        ("servers/test_postgres_faults.py::test_a_role_without_a_free_connection_is_told_so",),
    ),
    Mistake(
        "the error of a look at a table is raised as it came",
        "copy.py",
        "            raise explain(error, self.label) from error\n",
        "            raise\n",
        ("servers/test_postgres_faults.py::test_a_connection_that_is_cut_after_any_step_loses_and_doubles_nothing",),
    ),
    Mistake(
        "a read that failed counts as one that found nothing",
        "copy.py",
        "        except NotUtf8 as error:\n",
        (
            "        except Exception as error:\n            if not isinstance(error, NotUtf8):\n"
            "                import polars as pl\n\n"
            "                names = schema.read_schema(self.table.columns)\n"
            "                return pl.DataFrame(schema={**names, schema.xid_column(self.table.columns): pl.Int64})\n"
        ),
        ("servers/test_postgres_faults.py::test_a_read_that_is_ended_amid_its_rows_copies_none_of_them",),
    ),
    Mistake(
        "a statement that the server ended is left to an operator",
        "refusal.py",
        '    return SourceUnavailable(\n        f"{name}: the server ended the statement',
        '    return SourceNotFit(\n        f"{name}: the server ended the statement',
        (
            # On a server too, but not always: a session may be gone before it has said why.
            "unit/test_refusal.py::test_whatever_word_a_session_ends_with_the_next_tick_may_cure_it",
        ),
    ),
    Mistake(
        "a control row that is there stays as it is",
        "control.py",
        (
            "on conflict (table_name) do update\nset last_extracted_value = excluded.last_extracted_value,\n"
            "    last_extracted_at = excluded.last_extracted_at,\n    tracking_column = excluded.tracking_column"
        ),
        "on conflict (table_name) do nothing",
        (
            "shell/test_assets.py::test_an_edited_control_row_changes_nothing_and_is_written_again",
            "servers/test_control.py::test_a_control_row_edited_or_deleted_moves_nothing_and_is_written_again",
        ),
    ),
    Mistake(
        "nobody notices that a control row was edited",
        "control.py",
        "edited = before is not None and (found is None or found.value != before[:255])",
        "edited = before is not None and found is None",
        (
            "shell/test_assets.py::test_an_edited_control_row_changes_nothing_and_is_written_again",
            "servers/test_control.py::test_a_control_row_edited_or_deleted_moves_nothing_and_is_written_again",
        ),
    ),
    Mistake(
        "a role that may not write etl_control copies nothing",
        "control.py",
        '_READ_ONLY = {"42501", "25006"}',
        '_READ_ONLY = {"25006"}',
        (
            "servers/test_control.py::test_a_role_that_may_not_write_switches_the_mirror_off_and_says_so",
            "servers/test_control.py::test_the_remedy_that_is_named_works_as_it_stands",
        ),
    ),
    Mistake(
        "a server that is read-only copies nothing",
        "control.py",
        '_READ_ONLY = {"42501", "25006"}',
        '_READ_ONLY = {"42501"}',
        ("servers/test_control.py::test_a_session_that_is_read_only_switches_the_mirror_off",),
    ),
    Mistake(
        "etl_control is created without a look whether it is there",
        "control.py",
        "        if found != (True,):\n            # Another",
        "        if True:\n            # Another",
        ("servers/test_control.py::test_a_role_that_may_write_an_existing_control_table_need_not_create_one",),
    ),
    Mistake(
        "the times of etl_control have a zone",
        "control.py",
        "last_extracted_at timestamp default",
        "last_extracted_at timestamptz default",
        ("servers/test_control.py::test_the_control_table_is_made_with_the_originals_columns",),
    ),
    Mistake(
        "a table's schema is left out of its control row",
        "copy.py",
        "ControlRow(self.label, watermark.cursor, column)",
        "ControlRow(self.table.name, watermark.cursor, column)",
        ("servers/test_control.py::test_a_table_outside_public_is_named_with_its_schema",),
    ),
    Mistake(
        "the remedy for the mirror grants before it creates",
        "control.py",
        "Run as an owner of the schema: {create}; {grant}; {otherwise}",
        "Run as an owner of the schema: {grant}; {create}; {otherwise}",
        ("servers/test_control.py::test_the_remedy_that_is_named_works_as_it_stands",),
    ),
    Mistake(
        "a server's own error is left to an operator",
        "store.py",
        '            return StoreUnavailable(\n                f"the S3 server {self.endpoint} did not',
        '            return StoreNotFit(\n                f"the S3 server {self.endpoint} did not',
        ("servers/test_s3_faults.py::test_a_server_that_errs_is_named_and_the_next_tick_heals",),
    ),
    Mistake(
        "a control row has the time of its session",
        "control.py",
        "(current_timestamp at time zone 'UTC')",
        "current_timestamp",
        ("servers/test_control.py::test_the_value_is_the_highest_copied_as_postgresql_prints_it_in_utc",),
    ),
    Mistake(
        "etl_control is written over the source's connection",
        "copy.py",
        "            return self.control.mirror(",
        "            return Control(self.source.connection).mirror(",
        ("servers/test_control.py::test_the_control_table_may_live_in_another_database",),
    ),
    Mistake(
        "every table that is not mirrored has the same reason",
        "control.py",
        'self.off = off if connection is not None or off else "PG_CONTROL_URL is off"',
        'self.off = off if connection is not None else "PG_CONTROL_URL is off"',
        ("servers/test_control.py::test_without_a_connection_nothing_is_mirrored_and_nobody_is_surprised",),
    ),
    Mistake(
        "to move an object that is gone is an error",
        "store.py",
        (
            "            if _code(error) in _MISSING:\n                return\n"
            '            raise self._explain(error, f"move {key}")'
        ),
        '            raise self._explain(error, f"move {key}")',
        ("servers/test_store.py::test_what_is_missing_is_none_and_deleting_it_is_nothing",),
    ),
    Mistake(
        "a moved object stays at its old key too",
        "store.py",
        '            raise self._explain(error, f"move {key}") from error\n        self.delete(key)\n',
        '            raise self._explain(error, f"move {key}") from error\n',
        ("servers/test_store.py::test_a_moved_object_is_only_at_its_new_key",),
    ),
    Mistake(
        "a listing begins with the key it is to begin behind",
        "store.py",
        'arguments["StartAfter"] = start_after',
        'arguments["StartAfter"] = start_after[:-1]',
        ("servers/test_store.py::test_a_listing_begins_behind_a_key_that_need_not_exist",),
    ),
    Mistake(
        "of the time of an object in a listing only the day is read",
        "store.py",
        "found = datetime.fromisoformat(value)",
        "found = datetime.fromisoformat(value[:10])",
        ("servers/test_store.py::test_a_listing_says_when_each_object_was_written",),
    ),
    Mistake(
        "folders are named with what stands in front of them",
        "store.py",
        "name.removeprefix(prefix).removesuffix",
        "name.removesuffix",
        ("servers/test_store.py::test_folders_are_those_directly_below",),
    ),
    Mistake(
        "a missing bucket is told by its name among error codes alone",
        "store.py",
        'not in _MISSING | {"NoSuchBucket"}',
        '!= "NoSuchBucket"',
        ("servers/test_store.py::test_a_missing_bucket_is_made",),
    ),
    Mistake(
        "the probe of create-only writes is left in the bucket",
        "store.py",
        "        self.delete(probe)\n",
        "",
        ("servers/test_store.py::test_a_bucket_that_is_there_is_prepared_without_leaving_a_trace",),
    ),
    Mistake(
        "a bucket removed meanwhile is told by 404 alone",
        "store.py",
        '        if code == "NoSuchBucket":\n',
        '        if code == "404":\n',
        ("servers/test_store.py::test_a_bucket_removed_while_we_run_is_named",),
    ),
    Mistake(
        "a bucket that cannot be made is left to the next tick",
        "store.py",
        '            raise StoreNotFit(\n                f"bucket {self.bucket!r} does not exist and',
        ('            raise StoreUnavailable(\n                f"bucket {self.bucket!r} does not exist and'),
        ("servers/test_store.py::test_a_bucket_that_cannot_be_made_is_named_with_its_setting",),
    ),
    Mistake(
        "the seed bounds every window that is written again",
        "repair.py",
        "seed = before.seed if leaf.swept is None else None",
        "seed = before.seed",
        ("servers/test_repair.py::test_a_repair_in_a_seeded_table_is_not_bounded_by_the_seed",),
    ),
    Mistake(
        "verification ends at the first object of its day",
        "repair.py",
        "item_day > day:",
        "item_day >= day:",
        (
            "servers/test_repair.py::test_a_day_without_gaps_reports_none",
            "servers/test_repair.py::test_a_missing_object_is_written_again",
        ),
    ),
    Mistake(
        "a repaired object does not say so",
        "repair.py",
        "repaired=True, ",
        "",
        ("servers/test_repair.py::test_a_missing_object_is_written_again",),
    ),
    Mistake(
        "a window that is written again begins with the table",
        "repair.py",
        "(oid,), leaf.swept, end, None",
        "(oid,), None, end, None",
        (
            "servers/test_repair.py::test_a_repaired_object_is_a_link_of_the_chain",
            "servers/test_repair.py::test_two_objects_missing_in_a_row_are_written_as_one",
            "servers/test_repair.py::test_versions_overwritten_or_deleted_since_are_not_claimed",
        ),
    ),
    Mistake(
        "what was before the first object is unknown",
        "repair.py",
        "if missing.seq == 1:",
        "if missing.seq == 0:",
        ("servers/test_repair.py::test_the_very_first_object_is_written_again",),
    ),
    Mistake(
        "the object before a missing one is looked for in the last days only",
        "repair.py",
        "for start in search_starts(limit) if limit else ():",
        "for start in search_starts(limit)[:1] if limit else ():",
        ("servers/test_repair.py::test_an_object_far_from_its_neighbours_is_written_again",),
    ),
    Mistake(
        "the oldest object before a missing one is taken for the one before it",
        "repair.py",
        "footer(older[-1])",
        "footer(older[0])",
        ("servers/test_repair.py::test_an_object_far_from_its_neighbours_is_written_again",),
    ),
    Mistake(
        "a repaired object has the number of a missing one before it",
        "repair.py",
        "dataclasses.replace(before, seq=after.seq - 1)",
        "before",
        ("servers/test_repair.py::test_two_objects_missing_in_a_row_are_written_as_one",),
    ),
    Mistake(
        "a table that was made again is repaired",
        "repair.py",
        " or after.table != copy.table.oid",
        "",
        ("servers/test_repair.py::test_an_object_of_a_table_made_again_since_is_reported_lost",),
    ),
    Mistake(
        "a repair reads one partition",
        "repair.py",
        "for region in regions:\n",
        "for region in regions[:1]:\n",
        ("servers/test_repair.py::test_missing_partitions_rows_are_written_again",),
    ),
    Mistake(
        "a missing block range is written again as the whole table",
        "repair.py",
        "blocks, lines = (first[0], last[0]), (first[1], last[1])",
        "blocks, lines = None, (first[1], last[1])",
        ("servers/test_repair.py::test_a_missing_block_range_of_a_large_first_load_is_written_again",),
    ),
    Mistake(
        "a missing last block range is written again as the whole table",
        "repair.py",
        "pending = after.pending or leaf.pending",
        "pending = after.pending",
        ("servers/test_repair.py::test_a_missing_block_range_of_a_large_first_load_is_written_again",),
    ),
    Mistake(
        "a repaired object gets the columns of now",
        "repair.py",
        "described = promised or schema.description(copy.table)",
        "described = schema.description(copy.table)",
        (
            "servers/test_repair.py::test_a_missing_object_gets_the_columns_it_had",
            "servers/test_repair.py::test_two_missing_objects_of_one_forgotten_run_get_the_same_columns",
        ),
    ),
    Mistake(
        "a repaired object promises columns that it has not",
        "repair.py",
        "    if promised is None:\n        after",
        "    if promised is not None:\n        after",
        ("servers/test_repair.py::test_a_missing_object_nobody_knows_the_columns_of_says_which_it_got",),
    ),
    Mistake(
        "a repaired object gets the columns of the next one",
        "repair.py",
        "following if following.after.columns_key == first else footers.get(first) or copy.objects.footer(first)",
        "following",
        (
            "servers/test_repair.py::test_a_missing_object_nobody_knows_the_columns_of_says_which_it_got",
            "servers/test_repair.py::test_two_missing_objects_of_one_forgotten_run_get_the_same_columns",
        ),
    ),
    Mistake(
        "a missing object's columns are known from the objects of the day only",
        "repair.py",
        "footers.get(first) or copy.objects.footer(first)",
        "footers.get(first)",
        ("servers/test_repair.py::test_two_missing_objects_of_one_forgotten_run_get_the_same_columns",),
    ),
    Mistake(
        "a column whose type changed is cast to its former type directly",
        "schema.py",
        'f"t.{quote(now.name)}::text"',
        'f"t.{quote(now.name)}"',
        ("servers/test_repair.py::test_a_column_whose_type_has_no_cast_to_the_former_is_no_hindrance",),
    ),
    Mistake(
        "a table with a wrong setting is left out",
        "definitions.py",
        'return f"**Faulty setting**: {error}", None',
        'return "", str(error)',
        ("shell/test_assets.py::test_a_wrong_cursor_setting_fails_its_table_alone",),
    ),
    Mistake(
        "a failure does not say who can cure it",
        "metadata.py",
        "metadata={_CURE: error.cure}",
        "metadata={}",
        ("shell/test_assets.py::test_a_failure_is_one_sentence_and_says_who_can_cure_it",),
    ),
    Mistake(
        "a past day is passed over",
        "assets.py",
        "past = [day for day in asked if day < today]",
        "past: list[date] = []",
        ("shell/test_assets.py::test_a_past_day_is_verified_and_its_event_carries_the_current_watermark",),
    ),
    Mistake(
        "a past day takes what is new",
        "assets.py",
        "wants_new = any(day >= today for day in asked)",
        "wants_new = True",
        (
            "shell/test_assets.py::test_a_past_day_takes_nothing_new",
            "shell/test_assets.py::test_a_past_day_before_the_first_load_loads_nothing",
        ),
    ),
    Mistake(
        "a past day is not verified",
        "assets.py",
        "reports = [verify_day(copy, day) for day in past]",
        "reports: list[Any] = []",
        ("shell/test_assets.py::test_a_missing_object_of_a_past_day_is_written_again",),
    ),
]
READING: list[Mistake] = [
    Mistake(
        "a read is not guarded against a snapshot older than its horizon",
        "window.py",
        'return "\\n  and ".join([*parts, guard(region.end)])',
        'return "\\n  and ".join(parts)',
        (
            "servers/test_readers.py::test_a_snapshot_from_before_the_horizon_is_not_read",
            "servers/test_pooler.py::test_an_older_snapshot_behind_a_pooler_stops_the_read",
            "servers/test_postgres_faults.py::test_a_standby_behind_the_server_the_horizon_came_from_is_not_read",
        ),
    ),
    Mistake(
        "the guard asks for the next id and not for the oldest that still runs",
        "window.py",
        '"(select (case when pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= "',
        '"(select (case when pg_snapshot_xmax(pg_current_snapshot())::text::bigint >= "',
        ("servers/test_readers.py::test_a_snapshot_from_before_the_horizon_is_not_read",),
    ),
    Mistake(
        "the guard lets a snapshot pass that is 2^31 transactions ahead",
        "window.py",
        "& {MASK}) < 2147483648 ",
        "& {MASK}) < 4294967296 ",
        ("unit/test_window.py::test_the_guard_holds_back_a_snapshot_older_than_the_horizon",),
    ),
    Mistake(
        "a row security policy filters what is read",
        "reader.py",
        '"row_security": "off"',
        '"row_security": "on"',
        (
            "servers/test_readers.py::test_a_fault_is_the_same_error_from_both[row security]",
            "servers/test_copy.py::test_a_row_security_policy_is_an_error_and_not_a_filter",
        ),
    ),
    Mistake(
        "a grant on columns need not name the transaction id",
        "catalog.py",
        "wanted = [*system, *(column.name for column in columns)]",
        "wanted = [column.name for column in columns]",
        ("shell/test_limits.py::test_a_role_copies_what_it_may_and_is_told_the_grant_for_the_rest",),
    ),
    Mistake(
        "a bucket is fit because it takes a create-only write",
        "store.py",
        'fenced = self.create(probe, b"1") and not self.create(probe, b"2")',
        'fenced = self.create(probe, b"1")',
        (
            "servers/test_commit.py::test_a_bucket_that_overwrites_is_refused_unless_asked_for",
            "shell/test_faults.py::test_a_bucket_that_overwrites_gets_no_object_of_any_table",
        ),
    ),
    Mistake(
        "an object of another name is passed over",
        "commit.py",
        '                elif item.key.endswith(".parquet"):\n',
        '                elif item.key.endswith(".parquet") and self.layout.day(item.key):\n',
        ("servers/test_commit.py::test_an_object_named_unlike_ours_stops_the_table",),
    ),
    Mistake(
        "a footer that has the next number continues the watermark",
        "footer.py",
        "return self.before.key == watermark.key and self.after.seq == watermark.seq + 1",
        "return self.after.seq == watermark.seq + 1",
        ("unit/test_footer.py::test_an_object_continues_only_the_watermark_it_was_made_from",),
    ),
    Mistake(
        "a footer is read without a look at its format",
        "footer.py",
        '        check_format(data, f"the footer of {key}")\n',
        "",
        (
            "unit/test_footer.py::test_a_newer_format_is_said_before_anything_is_guessed",
            "servers/test_commit.py::test_an_object_of_a_newer_version_is_not_guessed_at",
        ),
    ),
    Mistake(
        "a claim is read without a look at its format",
        "footer.py",
        '        check_format(data, f"the claim {key}")\n',
        "",
        (
            "unit/test_footer.py::test_a_newer_format_is_said_before_anything_is_guessed",
            "servers/test_commit.py::test_a_claim_of_a_newer_version_is_not_guessed_at",
        ),
    ),
    Mistake(
        "a newer watermark in a footer is called damage",
        "footer.py",
        "(AttributeError, KeyError, LakeDamaged, TypeError, ValueError) as error:\n"
        "            raise LakeDamaged(\n"
        '                f"{key}: its',
        'Exception as error:\n            raise LakeDamaged(\n                f"{key}: its',
        ("unit/test_footer.py::test_a_newer_watermark_inside_is_not_guessed_at",),
    ),
    Mistake(
        "a watermark that cannot be read fails the sensor's tick for all tables",
        "sensors.py",
        "            watermark = None  # the table is due then, and its run stops and says why\n",
        "            raise\n",
        ("shell/test_faults.py::test_a_watermark_that_cannot_be_read_stops_its_table_and_no_other",),
    ),
    Mistake(
        "the watermark of a newer format is read as far as it is understood",
        "watermark.py",
        "    if isinstance(found, int) and found > FORMAT:\n",
        "    if isinstance(found, int) and found > FORMAT + 1:\n",
        (
            "unit/test_watermark.py::test_a_newer_format_is_not_guessed_at",
            "shell/test_faults.py::test_a_watermark_that_cannot_be_read_stops_its_table_and_no_other[newer]",
        ),
    ),
    Mistake(
        "a watermark that older readers cannot understand is called the old format",
        "watermark.py",
        "return 2 if any(item is not None and item.line for item in pending) else 1",
        "return 2 if any(item is not None and item.line < 0 for item in pending) else 1",
        ("unit/test_watermark.py::test_the_new_format_is_written_only_where_a_window_stands_inside_a_block",),
    ),
    Mistake(
        "leaves between two of equal state count as copied",
        "watermark.py",
        "for oid in range(first, last + 1, step)]",
        "for oid in range(first, last + 1)]",
        ("unit/test_watermark.py::test_leaves_of_equal_state_come_back_each_and_no_others",),
    ),
    Mistake(
        "a watermark without its seed is read as one that had none",
        "watermark.py",
        'seed=Seed(**data["seed"]) if data["seed"] else None,',
        'seed=Seed(**data["seed"]) if data.get("seed") else None,',
        ("unit/test_watermark.py::test_a_missing_entry_is_damage",),
    ),
    Mistake(
        "a new generation names the columns of an object that is moved away",
        "watermark.py",
        "digest == before.columns_digest and self.generation == before.generation and before.columns_key",
        "digest == before.columns_digest and before.columns_key",
        ("unit/test_watermark.py::test_a_new_generation_names_none_of_the_old_ones_objects",),
    ),
    Mistake(
        "objects from before a leaf was attached are left out as of a horizon",
        "read.py",
        "if opened or any(upto is None or upto < horizon for upto in swept):",
        "if opened or all(upto is None or upto < horizon for upto in swept):",
        ("servers/test_read.py::test_as_of_a_horizon_counts_partitions_that_were_attached_later",),
    ),
    Mistake(
        "as of a horizon holds the transaction at it",
        "read.py",
        "return frame.filter(by_name(shaped.xid_column) < horizon)",
        "return frame.filter(by_name(shaped.xid_column) <= horizon)",
        ("servers/test_read.py::test_as_of_a_horizon_is_what_transactions_below_it_wrote",),
    ),
    Mistake(
        "as of a day ends as it begins",
        "read.py",
        "datetime.combine(as_of, datetime.max.time(), UTC)",
        "datetime.combine(as_of, datetime.min.time(), UTC)",
        ("servers/test_read.py::test_as_of_a_day_is_what_was_ingested_up_to_its_end",),
    ),
    Mistake(
        "objects of the generation before are read while they still lie there",
        "read.py",
        "chosen = chosen[_before(layout, chosen, first) :]",
        "chosen = chosen[0:]",
        ("servers/test_read.py::test_only_the_newest_generation_is_read_also_while_the_older_one_still_lies_there",),
    ),
    Mistake(
        "a filter is applied before versions are compared",
        "latest.py",
        "early = predicate is not None and set(predicate.meta.root_names()) <= set(by)",
        "early = predicate is not None",
        ("servers/test_read.py::test_newest_versions_found_part_by_part_are_the_same",),
    ),
    Mistake(
        "rows whose key is NULL have no newest version",
        "latest.py",
        'how="semi", nulls_equal=True)',
        'how="semi")',
        ("servers/test_read.py::test_without_a_primary_key_somebody_has_to_say_what_a_row_is",),
    ),
    Mistake(
        "the newest object says what rows from before a column hold",
        "shape.py",
        "noted = next((run for run in having if run.named[attnum].missing is not None), having[0])",
        "noted = having[-1]",
        ("servers/test_read.py::test_rows_from_before_a_column_with_a_default_read_with_that_default",),
    ),
    Mistake(
        "the next id is taken for the horizon",
        "window.py",
        'HORIZON = "select pg_snapshot_xmin(',
        'HORIZON = "select pg_snapshot_xmax(',
        (
            "servers/test_copy.py::test_a_row_that_commits_late_is_copied",
            "servers/test_copy.py::test_an_open_transaction_holds_back_what_was_written_after_it_and_nothing_else",
            "servers/test_copy.py::test_rows_written_under_savepoints_are_copied",
            "servers/test_copy.py::test_rows_written_in_an_exception_block_are_copied",
            "servers/test_copy.py::test_a_prepared_transaction_is_copied_once_it_is_committed",
        ),
    ),
    Mistake(
        "an infinite cursor value is the highest",
        "cursor.py",
        "top = counts.filter(~counts.is_in(list(ends))).max()",
        "top = counts.max()",
        ("servers/test_copy.py::test_infinite_cursor_values_hide_no_row",),
    ),
    Mistake(
        "the cursor value of the newest slice replaces a later one",
        "copy.py",
        "return cursor.later(known, found, self.cursor_column)",
        "return found or known",
        (
            "servers/test_copy.py::test_a_cursor_value_that_goes_backwards_or_is_null_hides_no_row",
            "servers/test_control.py::test_the_value_never_goes_back",
        ),
    ),
    Mistake(
        "times have no zone to the second reader",
        "wire.py",
        'zone = "UTC" if kind == "timestamptz" else None',
        "zone = None",
        ("servers/test_access.py::test_a_table_is_the_same_in_the_lake_however_its_rows_travelled",),
    ),
    Mistake(
        "an empty value is NULL to the second reader",
        "wire.py",
        "pl.when(length >= 0)",
        "pl.when(length > 0)",
        ("servers/test_readers.py::test_both_readers_give_the_same_frame_of_every_type[18]",),
    ),
    Mistake(
        "a policy that hides rows is no reason to skip a table",
        "catalog.py",
        '    if node["filtered"]:\n',
        "    if False:\n",
        ("servers/test_copy.py::test_a_row_security_policy_is_an_error_and_not_a_filter",),
    ),
    Mistake(
        "text that is no JSON is an error of the parser",
        "footer.py",
        '    except ValueError as error:\n        raise LakeDamaged(f"{key} does not hold JSON',
        '    except UnicodeDecodeError as error:\n        raise LakeDamaged(f"{key} does not hold JSON',
        ("servers/test_commit.py::test_a_claim_that_cannot_be_read_is_named",),
    ),
    Mistake(
        "a footer calls the added column by its usual name",
        "schema.py",
        "        xid_column=xid_column(table.columns),\n        table={",
        "        xid_column=XID_NAME,\n        table={",
        ("servers/test_commit.py::test_a_source_column_called_like_ours_keeps_its_name",),
    ),
    Mistake(
        "the added column has its usual name although the source has one",
        "schema.py",
        "return next(name for name in names if name not in taken)",
        "return next(name for name in names if name not in taken or name == XID_NAME)",
        ("servers/test_commit.py::test_a_source_column_called_like_ours_keeps_its_name",),
    ),
    Mistake(
        "fractions of a second are printed with six digits",
        "cursor.py",
        'f".{fraction:06}".rstrip("0")',
        'f".{fraction:06}"',
        ("servers/test_control.py::test_the_value_is_the_highest_copied_as_postgresql_prints_it_in_utc",),
    ),
    Mistake(
        "the last cursor value is taken for the highest",
        "cursor.py",
        "top = counts.filter(~counts.is_in(list(ends))).max()",
        "top = counts.filter(~counts.is_in(list(ends))).tail(1).max()",
        ("servers/test_control.py::test_the_value_is_the_highest_copied_as_postgresql_prints_it_in_utc",),
    ),
    Mistake(
        "the end of the calendar is compared without the shift of the epoch",
        "wire.py",
        "(value > infinity[1] - shift)",
        "(value > infinity[1])",
        ("servers/test_readers.py::test_both_refuse_a_time_beyond_the_calendar",),
    ),
    Mistake(
        "the last day of the calendar lies beyond it",
        "wire.py",
        "(value > infinity[1] - shift)",
        "(value >= infinity[1] - shift)",
        ("servers/test_readers.py::test_both_read_the_last_and_the_first_of_the_calendar",),
    ),
    Mistake(
        "a type without a rule is decoded as text",
        "wire.py",
        (
            "        for name, oid in columns:\n"
            "            if oid not in _TYPES:\n"
            "                raise TableChanged(\n"
            '                    f"Column {name!r} arrived as a type that was not asked for ({oid}); '
            'the next tick looks again."\n'
            "                )\n"
            "        self.columns = [(name, _TYPES[oid]) for name, oid in columns]\n"
        ),
        '        self.columns = [(name, _TYPES.get(oid, "text")) for name, oid in columns]\n',
        ("servers/test_readers.py::test_a_type_without_a_rule_is_refused_and_not_guessed",),
    ),
    Mistake(
        "a footer does not say its window in words",
        "footer.py",
        '                "window": self.window,\n',
        "",
        ("servers/test_format.py::test_the_page_names_every_field_there_is_and_a_footer_holds_them",),
    ),
    Mistake(
        "who reads has to name the source database",
        "read.py",
        "settings = settings or load_settings(lake_only=True)",
        "settings = settings or load_settings()",
        ("servers/test_read.py::test_one_line_reads_a_table_with_nothing_known_but_the_bucket",),
    ),
    Mistake(
        "the keys are handed to Polars beside the environment's token",
        "read.py",
        'return {"storage_options": options, "credential_provider": lambda: (login, None)}',
        'return {"storage_options": {**options, **login}}',
        ("servers/test_read.py::test_credentials_of_another_account_in_the_environment_are_not_sent",),
    ),
    Mistake(
        "any version of a row passes for the newest",
        "latest.py",
        'on=[*by, xid_column], how="semi"',
        'on=list(by), how="semi"',
        ("servers/test_read.py::test_the_newest_version_of_each_row",),
    ),
    Mistake(
        "a renamed column keeps its first name",
        "shape.py",
        "column.name for run in runs for attnum, column in",
        "column.name for run in reversed(runs) for attnum, column in",
        ("servers/test_read.py::test_columns_added_dropped_renamed_and_widened_read_as_one_table",),
    ),
    Mistake(
        "a column that was text once is text throughout",
        "shape.py",
        'if len(bases) == 1 and "String" in kinds:',
        'if "String" in kinds:',
        ("servers/test_read.py::test_types_with_nothing_in_common_are_an_error_that_says_what_to_do",),
    ),
    Mistake(
        "as of a day columns are called as they are now",
        "read.py",
        "named_by_newest=days is not None or not chosen",
        "named_by_newest=True",
        ("servers/test_read.py::test_as_of_a_day_columns_and_key_are_those_of_that_day",),
    ),
    Mistake(
        "the objects of some days say what columns are called",
        "read.py",
        "named_by_newest=days is not None or not chosen",
        "named_by_newest=not chosen",
        ("servers/test_read.py::test_days_without_objects_give_no_rows_and_all_columns",),
    ),
    Mistake(
        "the folder of claims counts as a table",
        "read.py",
        " for name in opened.folders(own) if name != OWN)",
        " for name in opened.folders(own))",
        ("servers/test_read.py::test_a_name_that_is_not_there_says_which_are",),
    ),
    Mistake(
        "a moment is taken for a day",
        "read.py",
        "if isinstance(as_of, datetime) or not isinstance(as_of, date | int | None):",
        "if not isinstance(as_of, date | int | None):",
        ("servers/test_read.py::test_wrong_arguments_are_sentences",),
    ),
    Mistake(
        "a comma stands before the transaction id of a table without columns",
        "window.py",
        'listed = f"{projection},\\n  {xid}" if projection else xid',
        'listed = f"{projection},\\n  {xid}"',
        ("servers/test_copy.py::test_a_table_of_any_shape_is_copied",),
    ),
    Mistake(
        "the column that shows progress is chosen once in a tick",
        "copy.py",
        "if table.fingerprint != self.table.fingerprint or self.cursor_column is None:",
        "if self.cursor_column is None:",
        ("servers/test_copy.py::test_dropping_the_cursor_column_loses_no_row",),
    ),
    Mistake(
        "a table that is gone is taken for one that was altered",
        "copy.py",
        (
            "        if table is None:\n            raise TableChanged(\n"
            '                f"{self.label}: the table is not there any more; '
            'the catalog is read again within a minute."\n'
            "            )\n"
        ),
        '        if table is None:\n            return ""\n',
        ("servers/test_copy.py::test_a_table_dropped_while_it_is_read_in_slices_says_so",),
    ),
    Mistake(
        "objects in date folders come before all others",
        "read.py",
        "key=lambda pair: (pair[0], pair[1].key)",
        "key=lambda pair: pair[1].key",
        ("servers/test_read.py::test_objects_in_date_folders_and_beside_them_are_one_table",),
    ),
    Mistake(
        "the footer of every object is asked",
        "read.py",
        "if not first:  # written",
        "if True:  # written",
        ("servers/test_read.py::test_footers_are_read_where_columns_changed_and_nowhere_else",),
    ),
    Mistake(
        "runs found one by one are in the wrong order",
        "read.py",
        "runs += reversed(_each(objects, left, newest))",
        "runs += _each(objects, left, newest)",
        ("servers/test_read.py::test_objects_from_before_the_chain_of_columns_are_asked_each",),
    ),
    Mistake(
        "no footer names the columns where no object is read",
        "read.py",
        "if apart and not runs:\n",
        "if runs:\n",
        ("servers/test_read.py::test_objects_from_before_the_chain_of_columns_are_asked_each",),
    ),
    Mistake(
        "the next id is written where the horizon is asked for",
        "window.py",
        'HORIZON = "select pg_snapshot_xmin(',
        'HORIZON = "select pg_snapshot_xmax(',
        ("unit/test_window.py::test_the_horizon_is_the_oldest_transaction_that_has_not_finished",),
    ),
    Mistake(
        "a window ends one transaction late",
        "window.py",
        "& {MASK}) + 1) and (select",
        "& {MASK}) + 0) and (select",
        ("unit/test_window.py::test_a_window_is_asked_for_by_age",),
    ),
    Mistake(
        "the guard's sentence names nobody",
        "window.py",
        "then '1' else 'pg_bronze: this snapshot is older",
        "then '1' else 'this snapshot is older",
        ("unit/test_window.py::test_the_guard_fails_with_a_sentence_that_errors_are_told_by",),
    ),
    Mistake(
        "a row's transaction id has 32 bits",
        "window.py",
        'return f"({end - 1} - (({end - 1} - t.xmin::text::bigint) & {MASK}))::bigint"',
        'return "t.xmin::text::bigint"',
        ("unit/test_window.py::test_the_transaction_id_is_64_bits_wide",),
    ),
    Mistake(
        "the name of a table is not quoted",
        "window.py",
        '{quote(region.schema)}.{quote(region.name)} t"',
        '{quote(region.schema)}.{region.name} t"',
        ("unit/test_window.py::test_names_and_values_are_quoted",),
    ),
    Mistake(
        "another column stands in for one that is gone",
        "window.py",
        "column = quote(column_names[region.box.attnum])",
        'column = quote(column_names.get(region.box.attnum, "id"))',
        ("unit/test_window.py::test_a_column_that_is_gone_is_a_key_error",),
    ),
    Mistake(
        "the transaction id stands first",
        "window.py",
        'listed = f"{projection},\\n  {xid}" if projection else xid',
        'listed = f"{xid},\\n  {projection}" if projection else xid',
        ("unit/test_window.py::test_a_slice_is_one_query_with_the_transaction_id_last",),
    ),
    Mistake(
        "no limit is a limit of none",
        "window.py",
        'return query if row_limit is None else f"{query}limit {row_limit}\\n"',
        'return f"{query}limit {row_limit or 0}\\n"',
        ("unit/test_window.py::test_without_a_limit_there_is_no_limit",),
    ),
    Mistake(
        "the sensor's question is not guarded",
        "window.py",
        'return f"select exists (select 1 from {relation(region)} where {where(region, column_names)})"',
        'return f"select exists (select 1 from {relation(region)} where {written(region.start, region.end)})"',
        ("unit/test_window.py::test_exists_asks_for_the_same_rows",),
    ),
    Mistake(
        "a pending window waits for the next row",
        "gates.py",
        "    if any(state.pending for state in states):\n",
        "    if moved and any(state.pending for state in states):\n",
        ("unit/test_gates.py::test_a_window_in_blocks_goes_on_however_quiet_the_cluster_is",),
    ),
    Mistake(
        "a table that cannot hold anything new is read again",
        "gates.py",
        "    if swept == next_xid:\n",
        "    if swept == next_xid and now - hint.due_at < ungated_after_s:\n",
        ("unit/test_gates.py::test_no_transaction_since_is_quiet_for_good",),
    ),
    Mistake(
        "unchanged counters say nothing",
        "gates.py",
        "and swept >= seen.next_xid:",
        "and swept > next_xid:",
        ("unit/test_gates.py::test_unchanged_counters_are_quiet_once_the_watermark_has_passed_them",),
    ),
    Mistake(
        "what an empty read found is forgotten",
        "gates.py",
        "swept = max(hint.quiet_upto, 0 if unread",
        "swept = max(0, 0 if unread",
        ("unit/test_gates.py::test_an_empty_read_counts_although_it_left_no_object",),
    ),
    Mistake(
        "counters are added up",
        "gates.py",
        "repr((tuple(leaves), tuple(tuples)))",
        "repr((tuple(leaves), sum(tuples)))",
        ("unit/test_gates.py::test_a_signature_tells_leaves_and_counters_apart",),
    ),
    Mistake(
        "an error is missing in the tree",
        "errors.py",
        "    │   ├── StaleSnapshot         a read saw",
        "    │   ├── OldSnapshot           a read saw",
        ("unit/test_retries.py::test_every_error_says_who_can_cure_it_and_stands_in_the_tree",),
    ),
    Mistake(
        "what nobody foresaw is never cured",
        "errors.py",
        'return error.cure if isinstance(error, PgBronzeError) else "next tick"',
        'return error.cure if isinstance(error, PgBronzeError) else "never"',
        ("unit/test_retries.py::test_the_three_kinds_of_cure",),
    ),
    Mistake(
        "what the next tick may cure waits at once",
        "retries.py",
        'grown = count - PROMPT_TRIES if cure == "next tick" else count',
        "grown = count",
        (
            "unit/test_retries.py::test_what_the_next_tick_may_cure_is_tried_at_once_a_few_times_and_then_every_two_minutes",
        ),
    ),
    Mistake(
        "what only a person can cure is tried every two minutes",
        "retries.py",
        '"operator": 1800.0, "never": 1800.0',
        '"operator": 120.0, "never": 1800.0',
        ("unit/test_retries.py::test_what_only_a_person_can_cure_is_tried_after_one_two_four_up_to_thirty_minutes",),
    ),
    Mistake(
        "what no retry cures is tried every two minutes",
        "retries.py",
        '"operator": 1800.0, "never": 1800.0',
        '"operator": 1800.0, "never": 120.0',
        ("unit/test_retries.py::test_what_no_retry_cures_is_tried_every_thirty_minutes",),
    ),
    Mistake(
        "a change that could be the cure waits",
        "retries.py",
        "    if state != trouble.state:\n",
        "    if False:\n",
        ("unit/test_retries.py::test_a_change_that_could_be_the_cure_is_tried_at_once",),
    ),
    Mistake(
        "a restarted process waits as long as the one before",
        "retries.py",
        "count = 1 if restarted > trouble.last else trouble.count",
        "count = trouble.count",
        ("unit/test_retries.py::test_a_restarted_process_waits_as_after_a_first_failure",),
    ),
    Mistake(
        "one cause is said for each of its tables",
        "retries.py",
        "by_cause.setdefault(trouble.sentence, []).append(name)",
        'by_cause.setdefault(f"{name} {trouble.sentence}", []).append(name)',
        ("unit/test_retries.py::test_one_cause_is_said_once_with_the_count_of_its_tables",),
    ),
    Mistake(
        "a first load ends one transaction late",
        "window.py",
        "not age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})",
        "not age(t.xmin) between 0 and (select ({NEXT} - {end} - 1) & {MASK})",
        ("unit/test_window.py::test_a_first_load_holds_every_id_below_its_end",),
    ),
    Mistake(
        "changed counters say nothing",
        "gates.py",
        "if counted and hint.signature == signature_now and swept >= seen.next_xid:",
        "if counted and swept >= hint.next_xid:",
        ("unit/test_gates.py::test_changed_counters_are_due",),
    ),
    Mistake(
        "pauses are counted from the first failure",
        "retries.py",
        "return trouble.last + pause_s(trouble.cure, count)",
        "return trouble.since + pause_s(trouble.cure, count)",
        ("unit/test_retries.py::test_a_row_of_failures_keeps_its_beginning_and_never_waits_longer_than_half_an_hour",),
    ),
    Mistake(
        "a change of columns is not in the event",
        "metadata.py",
        "    if stream.drift:\n",
        "    if False:\n",
        ("shell/test_assets.py::test_a_change_of_columns_is_said_in_the_log_and_in_the_event_of_its_first_rows",),
    ),
    Mistake(
        "what a policy changed is not in the event",
        "metadata.py",
        "    if found := policies.totals(value for item in done for value in item.exceptional):\n",
        "    if (found := policies.totals(value for item in done for value in item.exceptional)) and False:\n",
        ("shell/test_assets.py::test_values_that_a_policy_was_applied_to_are_counted_in_the_event",),
    ),
    Mistake(
        "a refused value names the setting and not what to write",
        "policies.py",
        "for this table alone: PG_BRONZE_TABLES={alone}.",
        "for this table alone: PG_BRONZE_TABLES.",
        ("shell/test_assets.py::test_a_value_that_is_refused_fails_its_table_with_the_setting_that_cures_it",),
    ),
    Mistake(
        "an empty run does not say how far it looked",
        "assets.py",
        "    if copy.horizon:\n        entries",
        "    if False:\n        entries",
        ("shell/test_assets.py::test_with_nothing_new_the_run_succeeds_and_notes_up_to_where",),
    ),
    Mistake(
        "every window begins forty transactions early",
        "planning.py",
        "leaves=oids, start=leaf.swept, end=end",
        "leaves=oids, start=leaf.swept and leaf.swept - 40, end=end",
        (
            "shell/test_assets.py::test_only_what_is_new_is_copied",
            "e2e/test_dev.py::test_while_writers_write_and_tables_come_and_go_nothing_is_lost_stale_or_doubled",
        ),
    ),
    Mistake(
        "a batch counts tables as rows",
        "resources.py",
        "            self._rows[label] = row_count\n",
        "            self._rows[label] = 1\n",
        ("shell/test_assets.py::test_the_batch_is_summed_up_in_the_log_and_in_a_tag",),
    ),
    Mistake(
        "a first load begins with transaction 0",
        "metadata.py",
        "'first' if start is None else number(start)",
        "number(start or 0)",
        ("shell/test_assets.py::test_each_slice_is_one_line_in_the_log",),
    ),
    Mistake(
        "an asset downstream is given all days",
        "io_manager.py",
        "return {date.fromisoformat(key) for key in asked}",
        "return None",
        ("shell/test_assets.py::test_an_asset_downstream_gets_the_rows_of_its_day",),
    ),
    Mistake(
        "a day is read with its own columns",
        "read.py",
        "named_by_newest=days is not None or not chosen)",
        "named_by_newest=not chosen)",
        ("shell/test_assets.py::test_an_asset_downstream_gets_the_columns_as_they_are_now_whatever_its_day",),
    ),
    Mistake(
        "a mirror that is off is said for every table",
        "assets.py",
        "if mirrored.reason and source_database.is_news(mirrored.reason):",
        "if mirrored.reason:",
        ("shell/test_assets.py::test_a_mirror_that_is_off_is_said_once_a_run_and_by_every_materialization",),
    ),
    Mistake(
        "each due table is a run",
        "sensors.py",
        "for group in [together, *([table] for table in alone)]",
        "for group in [*([table] for table in together), *([table] for table in alone)]",
        ("shell/test_sensors.py::test_the_first_tick_asks_for_all_tables_in_one_run",),
    ),
    Mistake(
        "a table in flight is asked for again",
        "sensors.py",
        "if in_flight is None or keys[name] in in_flight:",
        "if in_flight is None:",
        ("shell/test_sensors.py::test_a_table_in_flight_is_not_asked_for_again",),
    ),
    Mistake(
        "a run of all assets is a run of none",
        "sensors.py",
        '            if record.dagster_run.job_name in {"bronze", "__ASSET_JOB"}:\n',
        "            if False:\n",
        ("shell/test_sensors.py::test_with_everything_in_flight_the_tick_says_so",),
    ),
    Mistake(
        "a run that has ended still runs",
        "sensors.py",
        "RunsFilter(statuses=_UNFINISHED)",
        "RunsFilter()",
        ("shell/test_sensors.py::test_a_run_that_ended_badly_does_not_block_its_tables",),
    ),
    Mistake(
        "any run without a selection is one of all tables",
        "sensors.py",
        '            if record.dagster_run.job_name in {"bronze", "__ASSET_JOB"}:\n',
        "            if True:\n",
        ("shell/test_sensors.py::test_another_users_run_blocks_nothing",),
    ),
    Mistake(
        "a tick does not say how many tables it looked at",
        "sensors.py",
        'text = f"looked at {len(judged)} tables up',
        'text = f"looked at the tables up',
        ("shell/test_sensors.py::test_quiet_ticks_cost_no_run_and_say_what_they_looked_at",),
    ),
    Mistake(
        "one due table makes all due",
        "sensors.py",
        "due = [table for table in tables if _name(table) in verdicts and verdicts[_name(table)].due]",
        "due = list(tables) if any(verdict.due for verdict in verdicts.values()) else []",
        ("shell/test_sensors.py::test_an_insert_makes_exactly_its_table_due",),
    ),
    Mistake(
        "updates are not counted",
        "source.py",
        "pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)",
        "pg_stat_get_tuples_inserted(c.oid)",
        ("shell/test_sensors.py::test_an_update_makes_its_table_due",),
    ),
    Mistake(
        "deletes make a table due",
        "sensors.py",
        "        if verdict.due and verdict.swept is not None and _is_small(table, verdict.swept, activity):\n",
        (
            '        if source.ask("select bool_or(pg_stat_get_tuples_deleted(oid) > 0) from pg_class")[0][0]:\n'
            "            verdict = dataclasses.replace(verdict, due=True)\n"
            "        elif verdict.due and verdict.swept is not None and _is_small(table, verdict.swept, activity):\n"
        ),
        ("shell/test_sensors.py::test_deletes_alone_cost_no_run",),
    ),
    Mistake(
        "the counters decide alone",
        "sensors.py",
        "    if found:\n        return verdict\n",
        "    if True:\n        return verdict\n",
        ("shell/test_sensors.py::test_an_insert_that_was_rolled_back_costs_no_run",),
    ),
    Mistake(
        "what an empty run says of itself is not read",
        "sensors.py",
        "if generation == verdict.hint.generation and upto > verdict.hint.quiet_upto:",
        "if False:",
        ("shell/test_sensors.py::test_an_empty_table_costs_one_run_and_no_more",),
    ),
    Mistake(
        "a cursor that cannot be read fails the tick",
        "sensors.py",
        "        except (ValueError, KeyError, TypeError, AttributeError):\n",
        "        except KeyError:\n",
        ("shell/test_sensors.py::test_a_cursor_that_cannot_be_read_counts_as_none",),
    ),
    Mistake(
        "a cursor may say what is yet to come",
        "sensors.py",
        "        hint = dataclasses.replace(hint, quiet_upto=0)  # another",
        "        pass  # another",
        ("shell/test_sensors.py::test_a_cursor_from_the_future_hides_no_row",),
    ),
    Mistake(
        "a restored database waits for its ids to come as far",
        "sensors.py",
        "    if verdict.swept > activity.horizon:\n",
        "    if False:\n",
        ("shell/test_sensors.py::test_a_database_behind_its_watermark_is_due_so_that_somebody_hears_of_it",),
    ),
    Mistake(
        "a large first load holds up the others",
        "sensors.py",
        "        if verdicts[_name(table)].swept is None and sum(",
        "        if False and sum(",
        ("shell/test_sensors.py::test_a_large_first_load_gets_a_run_of_its_own",),
    ),
    Mistake(
        "a first load that broke off waits",
        "retries.py",
        "PROMPT_TRIES = 3\n",
        "PROMPT_TRIES = 0\n",
        ("shell/test_sensors.py::test_a_first_load_that_was_cut_short_goes_on",),
    ),
    Mistake(
        "nobody is told who holds the horizon",
        "sensors.py",
        "{source.holder() or 'an open transaction holds the horizon'}",
        "an open transaction holds the horizon",
        ("shell/test_sensors.py::test_a_stall_names_who_holds_the_horizon",),
    ),
    Mistake(
        "rows that cannot be read yet are asked for",
        "sensors.py",
        'return gates.Verdict(False, "what was written since',
        'return gates.Verdict(True, "what was written since',
        ("shell/test_sensors.py::test_rows_that_cannot_be_read_yet_cost_no_run",),
    ),
    Mistake(
        "a prepared transaction is called a session",
        "source.py",
        "select 'prepared transaction ' ||",
        "select 'session ' ||",
        ("shell/test_sensors.py::test_a_prepared_transaction_is_named_too",),
    ),
    Mistake(
        "the last batch counts as one row",
        "sensors.py",
        "{metadata.number(int(count))} new rows",
        "{len(last)} new rows",
        ("shell/test_sensors.py::test_the_tick_says_how_many_rows_the_last_batch_brought",),
    ),
    Mistake(
        "a table made again is not looked at",
        "sensors.py",
        "        if oid is None:\n            continue",
        "        if oid != table.oid:\n            continue",
        ("shell/test_sensors.py::test_a_table_made_again_under_its_name_is_due",),
    ),
    Mistake(
        "the definitions are loaded again in every look",
        "sensors.py",
        "        if live == loaded:\n",
        "        if False:\n",
        ("shell/test_sensors.py::test_an_unchanged_catalog_reloads_nothing",),
    ),
    Mistake(
        "a table that does not load is loaded for ever",
        "sensors.py",
        '        if context.cursor == f"asked {live}":\n',
        "        if False:\n",
        ("shell/test_sensors.py::test_a_changed_catalog_is_reloaded_once",),
    ),
    Mistake(
        "a dropped table is looked at",
        "sensors.py",
        "        if oid is None:\n            continue",
        "        if oid is None:\n            oid = table.oid\n        if False:\n            continue",
        ("shell/test_sensors.py::test_a_dropped_table_is_no_more_due_and_leaves_with_the_reload",),
    ),
    Mistake(
        "a table that came later is taken for read",
        "sensors.py",
        "hint = memory.hints.get(name, gates.Hint())",
        "hint = memory.hints.get(name, gates.Hint(quiet_upto=activity.next_xid) if memory.hints else gates.Hint())",
        ("shell/test_sensors.py::test_a_new_table_is_due_as_soon_as_it_is_loaded",),
    ),
    Mistake(
        "an asset without days is given none",
        "io_manager.py",
        "versions, days=_days(context))",
        "versions, days=_days(context) or set())",
        ("shell/test_assets.py::test_an_asset_downstream_without_partitions_gets_all_days",),
    ),
    Mistake(
        "a bronze asset is made from nothing",
        "assets.py",
        "        deps=[partitions.source_key(table, database)],\n",
        "        deps=[],\n",
        ("e2e/test_dev.py::test_lineage_leads_from_each_source_table_to_its_bronze_table",),
    ),
    Mistake(
        "a quiet tick does not say that it looked",
        "sensors.py",
        'text = f"looked at {len(judged)} tables up',
        'text = f"{len(judged)} tables up',
        ("e2e/test_dev.py::test_a_quiet_tick_says_what_it_looked_at",),
    ),
    Mistake(
        "every look at the catalog fails",
        "sensors.py",
        "live = catalog_state.live(settings).fingerprint",
        "live = catalog_state.live(settings).digest",
        ("e2e/test_dev.py::test_no_tick_failed",),
    ),
    Mistake(
        "verifying a past day fails",
        "assets.py",
        "reports = [verify_day(copy, day) for day in past]",
        "reports = [verify_day(copy, day.isoformat()) for day in past]",
        ("e2e/test_dev.py::test_people_can_materialize_today_and_verify_a_past_day",),
    ),
    Mistake(
        "a tick comes every minute",
        "sensors.py",
        "        minimum_interval_seconds=interval,\n",
        "        minimum_interval_seconds=60,\n",
        ("e2e/test_dev.py::test_a_row_written_now_is_in_the_lake_within_two_ticks_and_a_run",),
    ),
    Mistake(
        "somebody has to switch on what keeps the newest versions",
        "silver.py",
        "default_status=dg.DefaultSensorStatus.RUNNING",
        "default_status=dg.DefaultSensorStatus.STOPPED",
        ("e2e/test_dev.py::test_the_newest_versions_are_kept_without_anybody_asking",),
    ),
    Mistake(
        "a connection that was cut is kept",
        "source.py",
        "if self._connection is None or self._connection.closed or self._connection.broken:",
        "if self._connection is None:",
        ("shell/test_sensors.py::test_a_cut_connection_fails_one_tick_at_most",),
    ),
]
GATES_AND_RETRIES: list[Mistake] = [
    Mistake(
        "counters that moved while the horizon was held are taken for copied",
        "gates.py",
        "if counted and hint.signature == signature_now and swept >= seen.next_xid:",
        "if counted and hint.signature == signature_now:",
        (
            "unit/test_gates.py::test_counters_that_moved_while_the_horizon_was_held_do_not_count_as_copied",
            "unit/test_gates.py::test_no_row_stays_behind_unchanged_counters",
            "shell/test_sensors.py::test_what_waited_behind_an_open_transaction_is_copied_once_it_ends",
        ),
    ),
    Mistake(
        "counters that move are remembered without the transaction they were seen at",
        "gates.py",
        "seen = dataclasses.replace(hint, signature=signature_now, next_xid=next_xid) if moved else hint",
        "seen = dataclasses.replace(hint, signature=signature_now) if moved else hint",
        (
            "unit/test_gates.py::test_counters_that_come_late_are_due_when_they_come",
            "shell/test_sensors.py::test_counters_that_come_long_after_the_rows_make_their_table_due",
        ),
    ),
    Mistake(
        "unchanged counters are believed for good",
        "gates.py",
        "    if now - hint.due_at >= ungated_after_s:\n",
        "    if now - hint.due_at >= ungated_after_s and moved:\n",
        (
            "unit/test_gates.py::test_a_table_is_read_once_in_a_while_however_quiet_it_seems",
            "shell/test_gates.py::test_rows_that_no_counter_shows_are_copied_once_the_gate_expires",
            "shell/test_gates.py::test_counters_set_back_that_come_as_far_again_hide_rows_no_longer_than_the_gate",
        ),
    ),
    Mistake(
        "every look at a quiet table sets the clock of its gate back",
        "gates.py",
        'return Verdict(False, "no row was written", seen, swept)',
        'return Verdict(False, "no row was written", asked, swept)',
        ("unit/test_gates.py::test_a_quiet_table_keeps_the_time_it_was_last_due_and_a_due_one_starts_anew",),
    ),
    Mistake(
        "the counters of a standby are believed",
        "gates.py",
        "if counted and hint.signature == signature_now and swept >= seen.next_xid:",
        "if hint.signature == signature_now and swept >= seen.next_xid:",
        (
            "unit/test_gates.py::test_a_standby_has_no_counters_of_its_own",
            "shell/test_gates.py::test_on_a_standby_without_counters_of_its_own_new_rows_are_seen",
        ),
    ),
    Mistake(
        "a table copied beyond the next transaction is quiet, as one copied up to it",
        "gates.py",
        "    if swept == next_xid:\n",
        "    if swept >= next_xid:\n",
        (
            "unit/test_gates.py::test_a_primary_whose_ids_went_back_is_due_at_once",
            "unit/test_gates.py::test_a_standby_that_lags_is_quiet_for_a_while",
        ),
    ),
    Mistake(
        "what was quiet before a reset is quiet after it",
        "gates.py",
        "hint = dataclasses.replace(hint, quiet_upto=0, generation=generation)",
        "hint = dataclasses.replace(hint, generation=generation)",
        ("unit/test_gates.py::test_a_hint_of_another_generation_is_forgotten",),
    ),
    Mistake(
        "the leaf that is furthest ahead decides whether a table is quiet",
        "gates.py",
        "0 if unread else min(state.swept or 0 for state in states)",
        "0 if unread else max(state.swept or 0 for state in states)",
        ("unit/test_gates.py::test_the_leaf_that_is_furthest_behind_decides",),
    ),
    Mistake(
        "a table with one new leaf counts as copied",
        "gates.py",
        "unread = not states or any(state.swept is None for state in states)",
        "unread = not states or all(state.swept is None for state in states)",
        ("unit/test_gates.py::test_a_table_never_copied_is_due",),
    ),
    Mistake(
        "a wrong password is said to be cured by the next tick",
        "errors.py",
        "class AccessDenied(OperatorError):",
        "class AccessDenied(TransientError):",
        ("unit/test_retries.py::test_the_tree_of_errors_is_drawn_as_it_is",),
    ),
    Mistake(
        "pauses grow without end",
        "retries.py",
        "return min(_LONGEST_S[cure], _FIRST_S[cure] * 2.0 ** min(grown - 1, 20))",
        "return _FIRST_S[cure] * 2.0 ** min(grown - 1, 20)",
        (
            "unit/test_retries.py::test_pauses_only_grow_and_end_at_a_limit",
            "unit/test_retries.py::test_a_table_that_fails_all_day_is_tried_rarely",
        ),
    ),
    Mistake(
        "a try by hand counts as one more failure of the row",
        "retries.py",
        "anew = by_hand or before.state != state or before.cure != cure",
        "anew = before.state != state or before.cure != cure",
        (
            "unit/test_retries.py::test_pauses_begin_anew_after_a_change_a_try_by_hand_or_another_fault",
            "shell/test_stuck.py::test_a_run_by_hand_begins_the_pauses_anew",
        ),
    ),
    Mistake(
        "a changed secret is looked for in the fingerprint, which holds none",
        "sensors.py",
        "            if found != self.settings:\n",
        "            if self.settings is None or found.fingerprint() != self.settings.fingerprint():\n",
        ("shell/test_stuck.py::test_a_changed_secret_is_tried_at_once",),
    ),
    Mistake(
        "the failures before a success are counted on",
        "stuck.py",
        "return None if latest and latest.timestamp > record.event_log_entry.timestamp else trouble",
        "return trouble if latest is None or trouble else None",
        ("shell/test_stuck.py::test_a_failure_after_a_success_is_the_first_of_its_row",),
    ),
    Mistake(
        "a run that ends without a word is no failure",
        "sensors.py",
        "    if outcome.silent and hint.asked:\n",
        "    if outcome.silent and outcome.trouble is not None and hint.asked:\n",
        ("shell/test_stuck.py::test_runs_that_end_without_a_word_are_asked_for_ever_more_rarely_too",),
    ),
    Mistake(
        "a fault in the midst of the commit is not noted",
        "io_manager.py",
        "            if self._instance is not None and self._run is not None:\n",
        "            if self._run is not None and not isinstance(error, PgBronzeError):\n",
        ("shell/test_stuck.py::test_a_fault_in_the_midst_of_the_commit_counts_too",),
    ),
    Mistake(
        "an unforeseen error is shown with its text",
        "stuck.py",
        'sentence = f"an unforeseen {type(error).__name__}; run {run.run_id[:8]} has the traceback."',
        'sentence = f"an unforeseen {type(error).__name__}: {error}; run {run.run_id[:8]} has the traceback."',
        ("shell/test_stuck.py::test_an_unforeseen_error_counts_and_shows_no_value",),
    ),
    Mistake(
        "what only a person can cure is tried at the next three ticks too",
        "retries.py",
        'grown = count - PROMPT_TRIES if cure == "next tick" else count',
        "grown = count - PROMPT_TRIES",
        ("shell/test_stuck.py::test_a_table_that_only_a_person_can_cure_is_asked_for_with_growing_pauses",),
    ),
    Mistake(
        "what the next tick may cure is waited for from the first failure on",
        "retries.py",
        'grown = count - PROMPT_TRIES if cure == "next tick" else count',
        "grown = count",
        ("shell/test_stuck.py::test_a_fault_the_next_tick_may_cure_is_tried_at_the_next_three",),
    ),
    Mistake(
        "a stuck table is asked for whenever its rows are due",
        "sensors.py",
        'return gates.Verdict(False, "stuck", hint, verdict.swept)',
        'return gates.Verdict(verdict.due, "stuck", hint, verdict.swept)',
        ("shell/test_stuck.py::test_a_stuck_table_does_not_hold_back_the_others",),
    ),
    Mistake(
        "a failure shows the time it happened as that of the next try",
        "metadata.py",
        "_NEXT: dg.MetadataValue.timestamp(next_try)",
        "_NEXT: dg.MetadataValue.timestamp(trouble.last)",
        ("shell/test_stuck.py::test_tick_and_asset_say_since_when_why_and_when_it_is_tried_next",),
    ),
    Mistake(
        "every table in trouble is tried at once after a restart",
        "retries.py",
        "count = 1 if restarted > trouble.last else trouble.count",
        "count = 0 if restarted > trouble.last else trouble.count",
        ("shell/test_stuck.py::test_a_restart_or_a_reset_cursor_forgets_nothing_of_it[process]",),
    ),
    Mistake(
        "the settings are read when definitions load and not at every tick",
        "sensors.py",
        "            found = load_settings()\n            if found",
        "            found = self.settings or load_settings()\n            if found",
        ("shell/test_stuck.py::test_a_changed_setting_is_tried_at_once",),
    ),
    Mistake(
        "a table's definition is no part of its state",
        "stuck.py",
        'return f"{settings_fingerprint}-{table_fingerprint}"',
        "return settings_fingerprint",
        ("shell/test_stuck.py::test_a_changed_table_is_tried_as_soon_as_the_catalog_knows",),
    ),
    Mistake(
        "a trouble once seen is believed for as long as the process lives",
        "sensors.py",
        "    run_id = entry.last_run_id\n",
        (
            "    if name in _outcomes and _outcomes[name][1].trouble is not None:\n"
            "        return _outcomes[name][1]\n"
            "    run_id = entry.last_run_id\n"
        ),
        ("shell/test_stuck.py::test_a_run_by_hand_that_succeeds_ends_it",),
    ),
    Mistake(
        "a failure's sentence names its table",
        "stuck.py",
        "        sentence = str(error)\n",
        '        sentence = f"{key.path[-1]}: {error}"\n',
        ("shell/test_stuck.py::test_one_cause_of_many_tables_is_said_once",),
    ),
    Mistake(
        "the failures of each table are looked up at every tick",
        "sensors.py",
        "        outcome = _outcome(instance, name, entry) if entry else stuck.Outcome()\n",
        ("        outcome = stuck.Outcome(stuck.last_trouble(instance, keys[name])) if entry else stuck.Outcome()\n"),
        ("shell/test_stuck.py::test_an_idle_tick_asks_nothing_about_failures",),
    ),
]
ACCESS: list[Mistake] = [
    Mistake(
        "connectorx, which checks no host name, reads where verify-full was asked for",
        "settings.py",
        '    if values.get("pg_sslmode") == "verify-full":\n',
        '    if values.get("pg_sslmode") == "verify-full" and "," in values.get("pg_host", ""):\n',
        ("servers/test_access.py::test_encryption_is_what_was_asked_for",),
    ),
    Mistake(
        "connectorx is told that no server speaks TLS",
        "source.py",
        "encrypted=kept.pgconn.ssl_in_use",
        "encrypted=False",
        ("servers/test_access.py::test_encryption_is_what_was_asked_for",),
    ),
    Mistake(
        "the file with the authority to trust is not handed to libpq",
        "settings.py",
        'files = {"sslrootcert": self.pg_sslrootcert, "passfile": self.pg_passfile}',
        'files = {"passfile": self.pg_passfile}',
        ("servers/test_access.py::test_encryption_is_what_was_asked_for",),
    ),
    Mistake(
        "a password from a file is taken for one that connectorx has too",
        "source.py",
        "fit = not self.pooled and not from_file",
        "fit = not self.pooled",
        ("servers/test_access.py::test_a_password_may_come_from_a_file",),
    ),
    Mistake(
        "the reader connects by the settings, and not to the host that answered",
        "source.py",
        'conninfo = pinned({**self._conninfo, "application_name": name}, kept)',
        'conninfo = {**self._conninfo, "application_name": name}',
        ("servers/test_access.py::test_rows_come_from_the_host_that_the_horizon_came_from",),
    ),
    Mistake(
        "connectorx reads behind a pooler",
        "source.py",
        "fit = not self.pooled and not from_file",
        "fit = not from_file",
        ("servers/test_pooler.py::test_a_pooler_is_noticed_and_read_by_copy",),
    ),
    Mistake(
        "questions behind a pooler are prepared in one session and asked in another",
        "source.py",
        "connection.prepare_threshold = None  # a",
        "pass  # a",
        ("shell/test_pooled.py::test_what_is_written_behind_a_pooler_is_seen_copied_and_mirrored[transaction]",),
    ),
    Mistake(
        "settings behind a pooler hold for longer than their transaction",
        "source.py",
        "self._settings(local=True)",
        "self._settings(local=False)",
        ("servers/test_pooler.py::test_nothing_of_ours_stays_in_a_shared_session",),
    ),
    Mistake(
        "the lock of a table is taken behind a pooler too",
        "source.py",
        "        if self.pooled:\n            return True\n",
        "",
        ("servers/test_pooler.py::test_nothing_of_ours_stays_in_a_shared_session",),
    ),
    Mistake(
        "two threads ask behind a pooler at the same time",
        "source.py",
        "with self._asking, connection.transaction():",
        "with connection.transaction():",
        ("servers/test_pooler.py::test_two_threads_ask_one_after_the_other",),
    ),
    Mistake(
        "one of the readers takes a cancelled statement for a broken connection",
        "refusal.py",
        'if "statement timeout" in text or "canceling statement" in text:',
        'if "canceled statement" in text:',
        ("servers/test_readers.py::test_a_fault_is_the_same_error_from_both[time limit]",),
    ),
    Mistake(
        "a panic of the reader is no Exception and passes",
        "reader.py",
        "        except BaseException as error:  # connectorx panics with a class derived from BaseException\n",
        "        except Exception as error:\n",
        ("servers/test_readers.py::test_a_panic_of_the_reader_is_an_error_like_any_other",),
    ),
    Mistake(
        "a kept connection is used again after an error",
        "reader.py",
        "        except psycopg.Error as error:\n            self.close()\n",
        "        except psycopg.Error as error:\n",
        ("servers/test_readers.py::test_the_reader_that_keeps_its_connection_heals_after_it_failed[refused]",),
    ),
    Mistake(
        "a source is closed without ending its read",
        "source.py",
        "        self.stop_reading()\n        if self._reader is not None:\n",
        "        if self._reader is not None:\n",
        ("servers/test_cancel.py::test_closing_a_source_ends_its_read[connectorx]",),
    ),
    Mistake(
        "the server is not told how much time a run has left",
        "source.py",
        "Reading(self._reader, query, label, timeout_s)",
        "Reading(self._reader, query, label, self._statement_timeout_s)",
        (
            "servers/test_cancel.py::test_a_read_ends_when_the_time_of_its_run_is_up[connectorx]",
            "shell/test_limits.py::test_a_read_ends_before_the_time_of_its_run_is_up",
        ),
    ),
    Mistake(
        "the read ahead is waited for and not ended",
        "copy.py",
        "            self._end(ahead)\n            raise\n        finally:\n            pool.shutdown(wait=False)\n",
        "            raise\n        finally:\n            pool.shutdown()\n",
        ("servers/test_cancel.py::test_a_run_that_is_ended_does_not_wait_for_the_read_ahead",),
    ),
    Mistake(
        "the wait for the read ahead has no time limit",
        "copy.py",
        "ahead.exception(INTERRUPTED_WITHIN_S)",
        "ahead.exception()",
        ("servers/test_cancel.py::test_an_interrupt_is_answered_while_the_read_ahead_is_waited_for",),
    ),
    Mistake(
        "a run that is ended ends its read and not what it measures",
        "source.py",
        "        elif kept is not None and",
        "        elif not kept and",
        ("servers/test_cancel.py::test_a_run_that_is_ended_does_not_wait_for_the_read_ahead[while it measures]",),
    ),
    Mistake(
        "what is measured may take longer than its run has",
        "source.py",
        "{self._time_left(label) * 1000:.0f}ms",
        "{self._statement_timeout_s * 1000:.0f}ms",
        ("servers/test_cancel.py::test_measuring_ends_when_the_time_of_its_run_is_up",),
    ),
    Mistake(
        "a session whose reader was killed goes on",
        "reader.py",
        'return f"select {settings}, {_NOTICE}"',
        'return f"select {settings}"',
        ("e2e/test_cancel.py::test_a_tick_that_is_ended_reads_no_longer[9-connectorx]",),
    ),
    Mistake(
        "the password stands in the configuration of a resource",
        "resources.py",
        "user=settings.pg_user, bucket=bucket",
        'user=f"{settings.pg_user}:{settings.pg_pass.get_secret_value()}", bucket=bucket',
        ("shell/test_secrets.py::test_nothing_that_is_kept_holds_a_secret",),
    ),
    Mistake(
        "messages name the database by its whole connection string",
        "source.py",
        """return f"{self._conninfo.get('dbname')}@{self._conninfo.get('host')}:{self._conninfo.get('port', 5432)}\"""",
        "return psycopg.conninfo.make_conninfo(**self._conninfo)",
        (
            "shell/test_secrets.py::test_a_failure_tells_no_secret",
            "e2e/test_secrets.py::test_a_tick_shows_no_secret[wrong password]",
        ),
    ),
    Mistake(
        "the error of a broken read names the URL",
        "reader.py",
        "            raise explain_text(error, label) from error\n",
        '            raise explain_text(error, f"{label} ({self._url})") from error\n',
        ("shell/test_secrets.py::test_a_read_that_breaks_tells_no_secret",),
    ),
    Mistake(
        "statements of the second reader are prepared",
        "reader.py",
        "            self._connection.prepare_threshold = None\n",
        "",
        ("servers/test_pooler.py::test_rows_are_neither_lost_nor_doubled_behind_a_pooler[transaction]",),
    ),
    Mistake(
        "Ctrl-C ends the wait for a read and not the read",
        "reader.py",
        "        except BaseException:\n            self.end()\n            raise",
        "        except Exception:\n            self.end()\n            raise",
        ("servers/test_cancel.py::test_an_interrupt_ends_the_read",),
    ),
    Mistake(
        "a read that nothing can end is waited for without a limit",
        "reader.py",
        "while not self._ended.is_set() and time.monotonic() < deadline:",
        "while not self._ended.is_set():",
        ("servers/test_cancel.py::test_an_interrupt_is_answered_when_the_server_is_frozen[connectorx]",),
    ),
    Mistake(
        "a read begins as long as its run has any time left",
        "source.py",
        "if left_s < SHORTEST_READ_S:",
        "if left_s <= 0:",
        (
            "servers/test_cancel.py::test_no_read_begins_when_the_time_of_its_run_is_nearly_up",
            "servers/test_cancel.py::test_nothing_is_measured_when_the_time_of_its_run_is_nearly_up",
        ),
    ),
    Mistake(
        "a source keeps the read it has done",
        "source.py",
        (
            "        try:\n"
            "            return reading.wait(timeout_s + LOGIN_S)\n"
            "        finally:\n"
            "            self._reading = None  # it holds the frame, which would stay in memory beside "
            "the next one\n"
        ),
        "        return reading.wait(timeout_s + LOGIN_S)\n",
        ("servers/test_cancel.py::test_a_frame_that_was_read_is_not_kept",),
    ),
    Mistake(
        "a server that rejects an unencrypted connection passes for one that is down",
        "refusal.py",
        'if "pg_hba.conf" in text:',
        'if "no pg_hba.conf entry" in text:',
        ("servers/test_access.py::test_a_server_that_wants_encryption_names_the_setting",),
    ),
    Mistake(
        "connectorx, which takes one host only, reads where several are named",
        "settings.py",
        '    if "," in values.get("pg_host", ""):\n',
        '    if "," in values.get("pg_host", "") and values.get("reader") == "connectorx":\n',
        ("servers/test_access.py::test_of_several_hosts_the_one_that_answers_is_read",),
    ),
    Mistake(
        "a materialization shows the first rows of a slice",
        "io_manager.py",
        "            for piece in obj:\n                started",
        (
            "            for piece in obj:\n"
            '                context.add_output_metadata({"pg_bronze/preview": '
            "dg.MetadataValue.md(str(piece.frame.head(5)))})\n"
            "                started"
        ),
        ("shell/test_secrets.py::test_the_materialization_carries_no_row",),
    ),
    Mistake(
        "a read keeps its statement out of the server's log, which only a superuser may",
        "reader.py",
        '    "client_encoding": "UTF8",\n}',
        '    "client_encoding": "UTF8",\n    "log_statement": "none",\n}',
        ("servers/test_copy.py::test_the_source_is_only_read",),
    ),
    Mistake(
        "rights to system columns are not asked for",
        "catalog.py",
        'system = ("xmin", "ctid", "tableoid") if partitioned else ("xmin", "ctid")',
        "system: tuple[str, ...] = ()",
        ("servers/test_catalog.py::test_missing_rights_are_answered_with_the_grant",),
    ),
    Mistake(
        "more rights are asked for than a read needs",
        "catalog.py",
        'system = ("xmin", "ctid", "tableoid") if partitioned else ("xmin", "ctid")',
        'system = ("xmin", "ctid", "tableoid")',
        ("servers/test_catalog.py::test_the_grants_it_names_are_enough",),
    ),
    Mistake(
        "an owner is thought to pass every policy",
        "catalog.py",
        "row_security_active(c.oid) as filtered",
        "c.relrowsecurity and not pg_has_role(c.relowner, 'usage') as filtered",
        ("servers/test_catalog.py::test_row_security_counts_where_it_applies_to_this_role",),
    ),
    Mistake(
        "a table between root and leaf has to be readable",
        "catalog.py",
        '        if node["kind"] == "p" and node is not root:\n'
        "            continue  # rows are read through the root or from a leaf, never through a table between\n",
        "",
        ("servers/test_catalog.py::test_a_closed_partition_skips_the_table_and_a_closed_one_in_between_does_not",),
    ),
    Mistake(
        "a partition that cannot be read is none of the table's business",
        "catalog.py",
        '    for node in nodes:\n        if node["kind"] == "p" and',
        '    for node in [root]:\n        if node["kind"] == "p" and',
        (
            "servers/test_catalog.py::test_a_closed_partition_skips_the_table_and_a_closed_one_in_between_does_not",
            "servers/test_catalog.py::test_a_foreign_partition_or_access_method_skips_the_whole_table",
        ),
    ),
    Mistake(
        "the grant that is named has no quotes",
        "refusal.py",
        "table = label if _PLAIN.fullmatch(label) else",
        "table = label if True else",
        ("unit/test_refusal.py::test_the_grant_that_is_named_can_be_run_as_it_stands",),
    ),
    Mistake(
        "an unlogged table is read on a standby",
        "catalog.py",
        '    if node["persistence"] == "u" and node["standby"]:\n',
        "    if False:\n",
        ("servers/test_catalog.py::test_an_unlogged_table_is_skipped_on_a_standby_only",),
    ),
    Mistake(
        "the catalog is read by somebody who writes",
        "catalog.py",
        '        where = cursor.execute("select datname',
        (
            "        cursor.execute(\"comment on schema public is 'looked at'\")\n"
            '        where = cursor.execute("select datname'
        ),
        ("servers/test_catalog.py::test_it_works_in_a_read_only_transaction_and_a_sql_ascii_database",),
    ),
    Mistake(
        "one table that may not be read stops the batch",
        "resources.py",
        "self._doubted = self._doubted or isinstance(error, SourceUnavailable | StoreUnavailable | AccessDenied)",
        "self._down = error",
        ("shell/test_assets.py::test_a_table_without_permission_does_not_stop_the_others",),
    ),
]
TAKEOVER: list[Mistake] = [
    Mistake(
        "what is set about the original system's traces does not reach the copy",
        "resources.py",
        "takeover=table.takeover,",
        "takeover=None,",
        (
            "shell/test_takeover.py::test_adopt_seed_goes_on_after_the_row_of_the_original_system",
            "shell/test_takeover.py::test_both_systems_side_by_side_are_refused_with_the_reason",
        ),
    ),
    Mistake(
        "a table with traces is copied whole unless somebody says otherwise",
        "resources.py",
        "takeover=table.takeover,",
        'takeover=table.takeover or "fresh",',
        ("shell/test_takeover.py::test_a_table_with_traces_waits_for_a_decision_and_others_do_not",),
    ),
    Mistake(
        "their objects are not looked for",
        "takeover.py",
        "    if not foreign_uri and (row is None or row.value is None):\n",
        "    if row is None or row.value is None:\n",
        ("servers/test_takeover.py::test_their_objects_without_ours_stop_the_table_and_name_both_ways",),
    ),
    Mistake(
        "a control row before an empty bucket is passed over",
        "takeover.py",
        "    if not foreign_uri and (row is None or row.value is None):\n",
        "    if not foreign_uri:\n",
        ("servers/test_takeover.py::test_a_control_row_before_an_empty_bucket_stops_the_table",),
    ),
    Mistake(
        "the row at the seed's value is copied again",
        "window.py",
        "(t.{column} <= {literal(region.seed.value)}) is not true",
        "(t.{column} < {literal(region.seed.value)}) is not true",
        (
            "servers/test_takeover.py::test_adopt_seed_leaves_out_what_lies_at_or_below_the_control_rows_value",
            "servers/test_takeover.py::test_adopt_seed_works_for_numbers_too",
        ),
    ),
    Mistake(
        "rows without a value are left out by the seed",
        "window.py",
        "(t.{column} <= {literal(region.seed.value)}) is not true",
        "(t.{column} > {literal(region.seed.value)})",
        ("servers/test_takeover.py::test_adopt_seed_leaves_out_what_lies_at_or_below_the_control_rows_value",),
    ),
    Mistake(
        "the seed goes on filtering after the first load",
        "planning.py",
        "        region = _region(table, None, leaf, tuple(oids), horizon)\n",
        "        region = dataclasses.replace(_region(table, None, leaf, tuple(oids), horizon), seed=watermark.seed)\n",
        (
            "servers/test_takeover.py::test_after_a_seeded_load_late_and_old_rows_are_copied_as_ever",
            "unit/test_planning.py::test_a_seed_bounds_first_loads_only",
        ),
    ),
    Mistake(
        "only the first block range of a seeded load is bounded",
        "planning.py",
        "seed=watermark.seed if leaf.swept is None else None,",
        "seed=watermark.seed if leaf.swept is None and leaf.pending is None else None,",
        ("servers/test_takeover.py::test_a_crash_in_a_seeded_load_of_many_slices_keeps_the_seed",),
    ),
    Mistake(
        "the seed is not checked against its column's type",
        "takeover.py",
        "sql.Literal(row.value), sql.SQL(column.declared)",
        'sql.Literal(row.value), sql.SQL("text")',
        (
            "servers/test_takeover.py::test_a_control_row_that_fits_no_column_is_an_error[no time]",
            "servers/test_takeover.py::test_a_value_in_the_control_row_is_text_and_never_sql",
        ),
    ),
    Mistake(
        "a reset keeps the seed",
        "copy.py",
        "            seed=None,\n",
        "",
        ("servers/test_takeover.py::test_a_reset_after_a_seeded_load_copies_the_whole_table",),
    ),
    Mistake(
        "only objects that are newer by their names are looked at",
        "copy.py",
        "            self.objects.look_back(recovered.watermark, self.now())\n",
        "            pass\n",
        ("servers/test_takeover.py::test_the_original_system_beside_us_is_seen_wherever_its_clock_is",),
    ),
    Mistake(
        "every object whose time is not that of its name is taken for another's",
        "commit.py",
        "            if at - usual > opened + LOOK_BACK_EVERY:\n",
        "            if at:\n",
        ("servers/test_takeover.py::test_what_was_there_before_us_or_is_late_is_nobody_beside_us",),
    ),
    Mistake(
        "objects of the original system after ours are passed over",
        "commit.py",
        "later = [item for item in items if item.key != watermark.key]",
        "later = [item for item in items if item.key != watermark.key and self.footer(item.key)]",
        (
            "servers/test_takeover.py::test_the_original_system_still_running_beside_us_stops_the_table_with_the_reason",
            "shell/test_takeover.py::test_both_systems_side_by_side_are_refused_with_the_reason",
            "servers/test_commit.py::test_a_foreign_object_newer_than_ours_stops_the_table",
        ),
    ),
    Mistake(
        "an empty control row is a trace",
        "takeover.py",
        "(row is None or row.value is None):\n        return None",
        "row is None:\n        return None",
        ("servers/test_takeover.py::test_an_empty_control_row_is_no_trace",),
    ),
    Mistake(
        "a first load beside their objects does not follow the last of them",
        "copy.py",
        "started = Watermark(place, self.table.oid, key=foreign_key)",
        "started = Watermark(place, self.table.oid)",
        ("servers/test_takeover.py::test_fresh_copies_the_whole_table_beside_their_objects",),
    ),
    Mistake(
        "adopt-seed without a control row copies the whole table",
        "takeover.py",
        "        return _seed(source, table, row)\n",
        "        return _seed(source, table, row) if row else None\n",
        ("servers/test_takeover.py::test_adopt_seed_without_a_control_row_is_an_error",),
    ),
]
RANGES: list[Mistake] = [
    Mistake(
        "a part of a block is told as a range of blocks",
        "window.py",
        "    if lines != (0, 0):\n        upto",
        "    if False:\n        upto",
        ("unit/test_window.py::test_a_region_is_told_in_words_that_fit_what_is_read",),
    ),
    Mistake(
        "a read that is cut off by its row limit counts as whole",
        "copy.py",
        "if row_limit is not None and frame.height >= row_limit:",
        "if row_limit is not None and frame.height > row_limit:",
        (
            "servers/test_copy.py::test_a_window_of_exactly_the_row_limit_is_one_slice_and_one_row_more_is_several",
            "servers/test_copy.py::test_a_large_window_in_a_large_table_is_split_too",
        ),
    ),
    Mistake(
        "each block range is read up to the horizon of its own tick",
        "planning.py",
        "_region(table, relation, leaf, (relation.oid,), pending.upto)",
        "_region(table, relation, leaf, (relation.oid,), horizon)",
        (
            "unit/test_planning.py::test_a_pending_window_goes_on_with_the_horizon_it_began_with",
            "unit/test_planning.py::test_every_read_is_new_and_all_together_are_everything",
            "servers/test_copy.py::test_block_ranges_that_go_on_after_a_crash_keep_the_horizon_they_began_with",
        ),
    ),
    Mistake(
        "the last block range ends where the table ended",
        "planning.py",
        "blocks=(pending.block, None if last else end_block),",
        "blocks=(pending.block, relation.page_count if last else end_block),",
        ("unit/test_planning.py::test_the_last_range_has_no_end_because_a_table_grows_while_it_is_read",),
    ),
    Mistake(
        "the file of a pending table is not compared",
        "planning.py",
        "if leaf.pending and leaf.pending.relfilenode != relation.relfilenode:",
        "if leaf.pending and leaf.pending.relfilenode != relation.relfilenode and table.partitioned:",
        (
            "unit/test_planning.py::test_a_rewrite_of_a_pending_table_is_a_new_generation",
            "servers/test_copy.py::test_a_table_rewritten_during_a_first_load_in_blocks_becomes_a_new_generation",
            "servers/test_generations.py::test_a_reload_during_a_first_load_in_blocks_becomes_a_new_generation",
            "servers/test_copy.py::test_a_rewrite_in_the_midst_of_a_ticks_block_ranges_loses_and_doubles_nothing",
        ),
    ),
    Mistake(
        "a range inside a block begins with the block",
        "planning.py",
        "lines=(pending.line, 0 if last else end_line),",
        "lines=(0, 0 if last else end_line),",
        (
            "unit/test_planning.py::test_a_block_that_holds_too_much_is_read_in_ranges_of_its_lines",
            "servers/test_copy.py::test_a_block_that_alone_exceeds_the_byte_limit_is_divided",
            "servers/test_copy.py::test_a_crash_inside_a_block_loses_and_doubles_nothing",
        ),
    ),
    Mistake(
        "a block range is measured by its rows and not by its bytes",
        "copy.py",
        "if rows > self._size.row_limit or (size_bytes > limit and rows > 1):",
        "if rows > self._size.row_limit:",
        (
            "servers/test_copy.py::test_a_block_that_alone_exceeds_the_byte_limit_is_divided",
            "servers/test_memory.py::test_a_worker_stays_within_200_mb_of_an_idle_one",
            "servers/test_copy.py::test_slices_of_large_values_keep_the_byte_limit_wherever_a_block_does",
        ),
    ),
    Mistake(
        "an ordinary window is read without a bound on its bytes",
        "copy.py",
        "            bound = window.Bound(limit, widths)\n",
        "            bound = None\n",
        ("servers/test_copy.py::test_a_window_that_holds_too_much_for_one_slice_is_divided",),
    ),
    Mistake(
        "compressed values are measured by the blocks they lie in",
        "planning.py",
        "return sum(item.page_count for item in relations) * BLOCK_BYTES * EXPANSION <= byte_limit",
        "return sum(item.page_count for item in relations) * BLOCK_BYTES <= byte_limit",
        (
            "unit/test_planning.py::test_only_a_small_table_without_values_out_of_line_is_certain_to_fit",
            "servers/test_copy.py::test_values_that_are_small_only_while_compressed_are_bounded_too",
            (
                "servers/test_memory.py::"
                "test_a_worker_stays_within_200_mb_of_an_idle_one[values that are large only while read]"
            ),
        ),
    ),
    Mistake(
        "a frame that was read across a change of the table is kept",
        "copy.py",
        "            if self._look() != table.fingerprint:\n                found = None",
        "            if found is None and self._look() != table.fingerprint:\n                found = None",
        (
            "servers/test_copy.py::test_a_table_altered_while_it_is_read_is_read_again",
            "servers/test_copy.py::test_a_table_altered_without_end_while_it_is_read_is_left_for_the_next_tick",
        ),
    ),
    Mistake(
        "the wait for a flushed log asks nobody to flush it",
        "source.py",
        "                self._nudge_log()\n",
        "                pass\n",
        ("servers/test_copy.py::test_an_open_transaction_on_an_idle_server_does_not_postpone_the_tick",),
    ),
    Mistake(
        "the block at which a range ends is read with it and with the next",
        "window.py",
        "parts.append(f\"t.ctid < '({last},{region.lines[1]})'::tid\")",
        "parts.append(f\"t.ctid < '({last + 1},{region.lines[1]})'::tid\")",
        (
            "servers/test_copy.py::test_nothing_is_lost_or_doubled_where_a_slice_is_full",
            "servers/test_copy.py::test_rows_written_while_a_window_is_split_come_with_the_next",
            "servers/test_copy.py::test_a_rewrite_in_the_midst_of_a_ticks_block_ranges_loses_and_doubles_nothing",
        ),
    ),
    Mistake(
        "parts of a block stay as small as one large row made them",
        "planning.py",
        "return dataclasses.replace(self, lines=self.lines * 2 if self.lines * 2 < LINES_PER_BLOCK else 0)",
        "return self",
        ("servers/test_copy.py::test_a_row_larger_than_a_slice_does_not_make_the_others_come_one_by_one",),
    ),
    Mistake(
        "a range is committed only if it holds a row",
        "planning.py",
        "must_commit=(last and pending.place > (0, 0)) or read_since_commit >= EMPTY_BLOCKS_PER_COMMIT,",
        "must_commit=False,",
        (
            "servers/test_copy.py::test_a_large_table_of_deleted_rows_is_walked_and_ends",
            "servers/test_copy.py::test_a_first_load_of_nothing_but_empty_blocks_ends",
        ),
    ),
    Mistake(
        "a window is read that begins where it ends",
        "planning.py",
        "        if leaf.swept != horizon:\n",
        "        if True:\n",
        ("unit/test_planning.py::test_a_quiet_table_says_since_when",),
    ),
    Mistake(
        "a table without partitions is said to be read up to here",
        "planning.py",
        "    if not relations:\n        return Quiet(",
        "    if False:\n        return Quiet(",
        ("unit/test_planning.py::test_a_table_without_partitions_is_quiet",),
    ),
    Mistake(
        "a table of just the size of a slice is read in ranges",
        "planning.py",
        "    small = relation.page_count <= size.blocks and",
        "    small = relation.page_count < size.blocks and",
        ("unit/test_planning.py::test_a_small_first_load_is_one_read",),
    ),
    Mistake(
        "each small leaf never read is a read of its own",
        "planning.py",
        "size, outlook) if table.partitioned else []",
        "size, outlook) if False else []",
        ("unit/test_planning.py::test_small_leaves_never_read_are_one_read_as_far_as_they_fit",),
    ),
    Mistake(
        "a first load is one read whatever its size",
        "planning.py",
        "    small = relation.page_count <= size.blocks and",
        "    small = True and",
        ("unit/test_planning.py::test_a_large_first_load_goes_by_ranges_of_blocks",),
    ),
    Mistake(
        "every window over a large table is read in ranges",
        "planning.py",
        "blocky = [oid for oid in oids if oid in outlook.by_blocks]",
        "blocky = [oid for oid in oids if oid in outlook.by_blocks or relations[oid].page_count > size.blocks]",
        ("unit/test_planning.py::test_an_ordinary_window_is_one_read",),
    ),
    Mistake(
        "a window that held too many rows is read whole again",
        "planning.py",
        "        if blocky:\n",
        "        if False:\n",
        ("unit/test_planning.py::test_a_window_with_too_many_rows_goes_by_blocks",),
    ),
    Mistake(
        "the limit is halved and not what was read",
        "planning.py",
        "blocks = min(self.blocks, page_count)",
        "blocks = self.blocks",
        ("unit/test_planning.py::test_a_small_first_load_with_too_many_rows_goes_by_blocks",),
    ),
    Mistake(
        "a block is the smallest range",
        "planning.py",
        "return self.blocks == 1 and self.lines == 1",
        "return self.blocks == 1",
        ("unit/test_planning.py::test_a_range_with_too_many_rows_is_halved_down_to_one_row",),
    ),
    Mistake(
        "a range of few rows that fill a slice grows",
        "planning.py",
        "if rows * 4 >= self.row_limit or size_bytes * 4 >= self.byte_limit:",
        "if rows * 4 >= self.row_limit:",
        ("unit/test_planning.py::test_ranges_grow_while_they_come_back_nearly_empty",),
    ),
    Mistake(
        "ranges inside a block grow beyond its lines",
        "planning.py",
        "lines=self.lines * 2 if self.lines * 2 < LINES_PER_BLOCK else 0",
        "lines=self.lines * 2",
        ("unit/test_planning.py::test_ranges_inside_a_block_grow_to_whole_blocks_again",),
    ),
    Mistake(
        "the last range of a window begins with its whole block",
        "planning.py",
        "lines=(pending.line, 0 if last else end_line)",
        "lines=(0 if last else pending.line, 0 if last else end_line)",
        ("unit/test_planning.py::test_a_range_that_begins_inside_a_block_may_end_with_the_table",),
    ),
    Mistake(
        "a long empty stretch is not committed",
        "planning.py",
        " or read_since_commit >= EMPTY_BLOCKS_PER_COMMIT,",
        ",",
        ("unit/test_planning.py::test_a_long_empty_stretch_is_committed",),
    ),
    Mistake(
        "the first of several leaves is read for all",
        "planning.py",
        "region = _region(table, None, leaf, tuple(oids), horizon)",
        "region = _region(table, relations[oids[0]], leaf, tuple(oids), horizon)",
        ("unit/test_planning.py::test_leaves_of_equal_state_are_one_read_through_the_root",),
    ),
    Mistake(
        "all leaves are read from where the first one stands",
        "planning.py",
        "groups.setdefault(leaf, []).append(oid)",
        "groups.setdefault(next(iter(groups), leaf), []).append(oid)",
        ("unit/test_planning.py::test_leaves_of_different_state_are_read_apart",),
    ),
    Mistake(
        "a leaf that came later is not loaded by itself",
        "planning.py",
        "if watermark.leaf(oid).swept is None]",
        "if watermark.leaf(oid).swept is None and not watermark.leaves]",
        ("unit/test_planning.py::test_an_unknown_leaf_is_a_first_load_of_its_own",),
    ),
    Mistake(
        "new leaves are read before a pending one",
        "planning.py",
        "        if watermark.leaf(oid).pending:\n",
        "        if watermark.leaf(oid).pending and all(watermark.leaf(other).swept for other in relations):\n",
        ("unit/test_planning.py::test_a_pending_leaf_comes_before_a_new_one_and_both_before_the_rest",),
    ),
    Mistake(
        "the first leaf of a group is read in ranges for another",
        "planning.py",
        "relations[blocky[0]]",
        "relations[oids[0]]",
        ("unit/test_planning.py::test_only_leaves_with_too_many_rows_go_by_blocks_alone",),
    ),
    Mistake(
        "a sweep leaves a box behind",
        "planning.py",
        "box = leaf.box and dataclasses.replace(leaf.box, upto=horizon)",
        "box = leaf.box",
        ("unit/test_planning.py::test_a_sweep_moves_a_box_along_and_leaves_its_floor",),
    ),
    Mistake(
        "a row is taken to have 100 bytes",
        "planning.py",
        "max(24.0, pages * BLOCK_BYTES / table.row_estimate)",
        "100.0",
        ("unit/test_planning.py::test_the_first_guess_follows_the_size_of_a_row",),
    ),
    Mistake(
        "the first guess leaves out what lies out of line",
        "planning.py",
        "int(slice_bytes / BLOCK_BYTES / (1 + out_of_line))",
        "int(slice_bytes / BLOCK_BYTES)",
        ("unit/test_planning.py::test_the_first_guess_of_blocks_counts_what_lies_out_of_line",),
    ),
    Mistake(
        "the first guess takes NULL for nothing",
        "planning.py",
        "int(slice_bytes / max(row_bytes, memory_bytes(table.columns)))",
        "int(slice_bytes / row_bytes)",
        ("unit/test_planning.py::test_the_first_guess_counts_columns_that_are_null",),
    ),
    Mistake(
        "the first guess may be less than a block",
        "planning.py",
        "blocks=max(1, blocks))",
        "blocks=blocks)",
        ("unit/test_planning.py::test_any_statistics_lead_to_a_guess_that_gets_on",),
    ),
    Mistake(
        "columns are named by their position",
        "planning.py",
        "{column.attnum: column.name for column in table.columns}",
        "{number: column.name for number, column in enumerate(table.columns)}",
        ("unit/test_planning.py::test_columns_are_named_by_attnum",),
    ),
    Mistake(
        "a leaf read alone is asked for its own number",
        "window.py",
        "    if not region.only:\n",
        "    if True:\n",
        ("unit/test_window.py::test_a_leaf_alone_needs_no_tableoid",),
    ),
    Mistake(
        "the last range of blocks ends somewhere",
        "window.py",
        "        if last is not None:\n",
        "        if True:\n",
        ("unit/test_window.py::test_a_range_of_blocks_is_half_open_and_the_last_one_has_no_end",),
    ),
    Mistake(
        "a box without a floor is asked for",
        "window.py",
        "if region.box is not None and region.box.floor is not None:",
        "if region.box is not None:",
        ("unit/test_window.py::test_a_box_without_a_floor_changes_nothing",),
    ),
    Mistake(
        "one NULL makes the size of a row NULL",
        "window.py",
        'f"coalesce({width}, 0)::bigint" for width in widths',
        'f"{width}::bigint" for width in widths',
        ("unit/test_window.py::test_a_measure_counts_rows_and_the_bytes_of_wide_columns",),
    ),
    Mistake(
        "a single row beyond the bound is never read",
        "window.py",
        "<= {bound.size_bytes} or t.{total} = t.{width} then",
        "<= {bound.size_bytes} then",
        ("unit/test_window.py::test_a_query_with_a_bound_fails_as_soon_as_its_rows_are_larger",),
    ),
    Mistake(
        "a range ends with the block before",
        "window.py",
        "({last},{region.lines[1]})'::tid",
        "({last},0)'::tid",
        ("unit/test_window.py::test_a_range_can_begin_and_end_inside_a_block",),
    ),
    Mistake(
        "what lies out of line is not measured",
        "catalog.py",
        "coalesce(pg_relation_size(toast.oid), 0)",
        "0",
        ("servers/test_catalog.py::test_sizes_are_measured_for_one_table_and_estimated_for_all",),
    ),
]
MISTAKES = [*COMMIT, *IDENTITY, *HISTORY, *FAULTS, *READING, *GATES_AND_RETRIES, *ACCESS, *TAKEOVER, *RANGES]


@dataclass(frozen=True)
class Outcome:
    """``unseen``: the tests that stayed green or never ran; empty if the mistake was found."""

    mistake: Mistake
    unseen: tuple[str, ...]

    @property
    def line(self) -> str:
        tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in self.mistake.tests)
        return f"| {self.mistake.title} | {'found' if not self.unseen else '**not found**'} | {tests} |"


def copy_project(folder: Path) -> None:
    """A copy of what the tests need; the servers and the installed packages are shared."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)


def plant(mistake: Mistake, project: Path) -> Outcome:
    """Run the tests with the mistake in ``project``, which is a copy, and take it out again."""
    file = project / mistake.path
    text = file.read_text(encoding="utf-8")
    if text.count(mistake.right) != 1:
        raise ValueError(
            f"{mistake.title}: the text stands {text.count(mistake.right)} times in {mistake.path}, not once"
        )
    file.write_text(text.replace(mistake.right, mistake.wrong), encoding="utf-8")
    try:
        red = _red_tests(project, mistake.tests, "-p", "no:xdist")
    finally:
        file.write_text(text, encoding="utf-8")
    return Outcome(mistake, tuple(test for test in mistake.tests if not _seen(test, red)))


def _red_tests(project: Path, tests: Iterable[str], *options: str) -> set[str]:
    """The names of those tests that fail in ``project``."""
    report = project / "junit.xml"
    report.unlink(missing_ok=True)
    # Two texts of one length within a second would share their bytecode.
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, f"--junitxml={report}",
         *(f"pg_bronze_tests/{test}" for test in tests)],
        cwd=project, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return set(_red(report)) if report.exists() else set()


def _red(report: Path) -> Iterator[str]:
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if any(child.tag == "failure" for child in case):
            yield case.get("name", "")


def _seen(test: str, red: set[str]) -> bool:
    name = test.rpartition("::")[2]
    return name in red or any(found.partition("[")[0] == name for found in red)


def plant_all(mistakes: list[Mistake]) -> Iterator[Outcome]:
    """Plant each by itself, ``AT_ONCE`` at a time, and give the outcomes in order.

    Raises ValueError if a test is red to begin with, or if a text does not stand once in its file.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        projects: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(AT_ONCE):
            project = Path(folder) / str(number)
            project.mkdir()
            copy_project(project)
            projects.put(project)
        tests = sorted({test for mistake in mistakes for test in mistake.tests})
        if red := _red_tests(project, tests, "-n", str(AT_ONCE), "--dist=worksteal"):
            raise ValueError(f"red without any mistake: {', '.join(sorted(red))}")

        def one(mistake: Mistake) -> Outcome:
            project = projects.get()
            try:
                return plant(mistake, project)
            finally:
                projects.put(project)

        yield from pool.map(one, mistakes)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", nargs="?", default="", help="of a title; all without")
    given = parser.parse_args()
    chosen = [mistake for mistake in MISTAKES if given.part in mistake.title]
    if not chosen:
        parser.error(f"no mistake has {given.part!r} in its title")
    unseen = 0
    for outcome in plant_all(chosen):
        print(outcome.line, flush=True)
        unseen += bool(outcome.unseen)
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
