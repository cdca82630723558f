"""What people are told about a first load."""

import pytest

from pg_bronze.core.leaf import Leaf, Sweep
from pg_bronze.core.load_progress import LoadProgress, duration, is_loading, left_s, share_of
from pg_bronze_tests.harness.literals import mark, sized_table


@pytest.mark.parametrize(
    "leaf, share",
    [
        (Leaf(), 0.0),
        (Leaf(None, Sweep(60, 25, 1)), 0.25),
        (Leaf(None, Sweep(60, 25, 1, end=50)), 0.5),
        (Leaf(None, Sweep(60, 400, 1)), 1.0),
        (Leaf(60), 1.0),
    ],
)
def test_the_share_is_that_of_the_blocks(leaf, share):
    assert share_of(mark({9: leaf}), sized_table(100)) == share
    assert is_loading(mark({9: leaf}), sized_table(100)) == (leaf.swept is None)


def test_the_share_of_a_partitioned_table_counts_its_leaves_by_their_size():
    leaves = {10: Leaf(60), 11: Leaf(None, Sweep(60, 5, 1)), 12: Leaf()}
    assert share_of(mark(leaves), sized_table(60, 10, 30)) == 0.65
    assert share_of(mark(), sized_table()) == 0.0
    assert share_of(mark(), sized_table(0)) == 0.0


def test_the_time_left_follows_from_the_pace_of_this_run():
    assert left_s(0.5, 0.4, 10.0) == pytest.approx(50.0)
    assert left_s(1.0, 0.4, 10.0) == 0.0
    assert left_s(0.4, 0.4, 10.0) is None


def test_the_sentence_names_rows_bytes_share_and_time():
    progress = LoadProgress(1_234_567, 45_600_000, 0.123, 600.0)
    assert progress.sentence("movie") == (
        "first load of movie: 12.3% copied, 1,234,567 rows, 45.6 MB, about 10 min of loading left"
    )
    assert LoadProgress(0, 0, 0.0, None).sentence("movie") == "first load of movie: 0.0% copied, 0 rows, 0.0 MB"


@pytest.mark.parametrize("seconds, text", [(40.2, "40 s"), (720.0, "12 min"), (12_600.0, "3.5 h")])
def test_a_duration_is_said_as_people_do(seconds, text):
    assert duration(seconds) == text
