"""The protocol on a simulated cluster and bucket: nothing is lost or doubled, whatever happens at any step."""

import itertools
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from pg_bronze.errors import (
    TransientError,
)
from pg_bronze_tests.harness.protocol_model import (
    BandedProtocol,
    ParallelProtocol,
    PartitionedBandedProtocol,
    PartitionedProtocol,
    Protocol,
    first_load,
    scene,
)
from pg_bronze_tests.harness.repetitions import also, combinations, repetition

EXAMPLES = settings(
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    "machine, count",
    [(Protocol, 15), (PartitionedBandedProtocol, 15)]
    + [
        pytest.param(machine, 100, marks=repetition)
        for machine in (Protocol, PartitionedBandedProtocol, PartitionedProtocol, BandedProtocol, ParallelProtocol)
    ],
)
def test_every_live_row_is_in_the_lake_exactly_once(machine, count):
    run_state_machine_as_test(machine, settings=settings(EXAMPLES, max_examples=count))


# The cases that are no repetitions contain every step once.
@pytest.mark.parametrize(
    "recorded, change, first", combinations(["latest", "older", "none"], ["recreate", "insert", "rewrite"], [2, 3, 4])
)
def test_a_crash_at_any_step_loses_and_doubles_nothing(recorded, change, first):
    for step in range(first, 75, 3):
        with scene() as model:
            model.tick({1: change, step: "crash"}, recorded, 2, eager=step % 2 == 0, dated=False, passed_s=1, stale="")
            model.an_undisturbed_tick(recorded, rows=3)


@pytest.mark.parametrize("event", ["rewrite", *also("crash", "other", "detach", "recreate", "update")])
def test_nothing_at_any_step_of_a_load_in_parallel_loses_or_doubles_a_row(event):
    """Ranges are read before those before them are committed."""
    for step in range(1, 50, 3):
        with first_load() as model:
            model.tick({step: event}, "latest", 2, eager=step % 2 == 0, dated=False, passed_s=1, stale="")
            model.an_undisturbed_tick("latest", rows=3)


# Each step before which one writer pauses, with each step at which the other one dies, or with none.
PAIRS = list(itertools.product(range(1, 40), (None, *range(9, 60, 7))))


@pytest.mark.parametrize("pairs", [PAIRS[::8], *also(PAIRS)], ids=["an eighth", "all"])
def test_a_second_writer_between_any_two_steps_loses_and_doubles_nothing(pairs):
    """There is no lock here: only the claim keeps order."""
    for step, other_dies_at in pairs:
        with scene() as model:
            model.two_writers(step, other_dies_at, rows=2)


# These cases lost and doubled nothing, but stopped the table with an error for the operator.


def test_a_writer_that_is_superseded_before_recovery_reports_no_restored_database():
    with scene() as model:
        model._tick({1: "other"}, model._recorded("latest"), rows=2)


def test_a_writer_that_is_superseded_by_a_new_generation_reports_no_foreign_object():
    with scene() as model:
        model.an_undisturbed_tick("latest", rows=2)
        model.cluster.recreate(0)
        model._tick({2: "other"}, model.recorded[0], rows=2)


@pytest.mark.parametrize("first", [8, *also(9, 10)])
def test_a_writer_that_is_superseded_between_two_listings_reports_no_missing_object(first):
    for other_dies_at in range(first, 60, 3):
        with scene() as model:
            model.other_dies_at = other_dies_at
            with suppress(TransientError):
                model._tick({2: "other"}, model._recorded("latest"), rows=2)


@pytest.mark.parametrize("first", [9, *also(8, 10)])
def test_a_claim_above_the_horizon_of_the_tick_is_redone_without_an_error(first):
    for other_dies_at in range(first, 60, 3):
        with scene() as model:
            model.remember_this_moment()
            model.load(nth=0, count=3, per_block=1)
            model.other_dies_at = other_dies_at
            with suppress(TransientError):
                model._tick({1: "other"}, model._recorded("latest"), rows=2, stale="horizon")
