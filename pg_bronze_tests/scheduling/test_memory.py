"""The sensor's cursor: it is small, and what cannot be read of it counts as empty."""

import hashlib
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.formats import CURSOR_FORMAT
from pg_bronze.scheduling.due import SIGNATURE_DIGITS, Hint, signature
from pg_bronze.scheduling.memory import Memory, place_of

places = st.integers(0, 2**32 - 1).map("{:08x}".format)
signatures = st.one_of(st.just(""), st.integers(0, 2**40 - 1).map("{:010x}".format))
numbers = st.integers(0, 2**63)
times = st.integers(0, 2 * 10**12).map(lambda ms: ms / 1000)
hints = st.builds(Hint, signatures, numbers, numbers, st.integers(-1, 10**6), times, st.integers(0, 1000))
memories = st.builds(Memory, st.dictionaries(places, hints, max_size=20), numbers, times)


@given(memories)
def test_a_cursor_is_read_as_it_was_written(memory: Memory):
    assert Memory.from_cursor(memory.to_cursor()) == memory


def test_a_cursor_of_a_newer_version_counts_as_empty_and_one_without_a_number_is_read():
    """After a downgrade, a hint with another meaning could postpone a table. A lost cursor costs one read of each."""
    memory = Memory({"0" * 8: Hint()}, 7, 1.5)
    written = json.loads(memory.to_cursor())

    assert Memory.from_cursor(json.dumps({**written, "format": CURSOR_FORMAT + 1})) == Memory()
    del written["format"]
    assert Memory.from_cursor(json.dumps(written)) == memory


@given(memories, st.integers(0, 400), st.characters())
def test_a_cursor_that_was_edited_is_read_or_counts_as_empty(memory: Memory, place: int, character: str):
    text = memory.to_cursor()
    edited = text[: place % len(text)] + character + text[place % len(text) + 1 :]

    assert isinstance(Memory.from_cursor(edited), Memory)


def test_the_cursor_has_at_most_2_kb_and_20_bytes_a_table():
    """Dagster stores it with each of 8,640 ticks a day."""
    chance = random.Random(1)
    found = {}
    for number in range(1000):
        # One table in ten is busy. The others were read once in 15 minutes, in groups.
        busy = number % 10 == 0
        due_at = 1_796_000_000.123 if busy else 1_796_000_000.456 - 10 * chance.randrange(90)
        xid = 7_000_000 if busy else 7_000_000 - 100 * chance.randrange(90)
        counters = (chance.randrange(10**6),)
        found[place_of(f"bronze/table_{number}")] = Hint(signature((number,), counters), xid, xid, 0, due_at, 0)

    text = Memory(found, 7_000_000, 1_796_000_000.123).to_cursor()

    assert len(text) <= 2000 + 20 * 1000
    assert Memory.from_cursor(text).hints == found


def test_the_cursor_of_an_earlier_version_counts_as_empty():
    hint = {"signature": hashlib.sha256(b"").hexdigest()[:16], "next_xid": 1, "quiet_upto": 1, "generation": 0}
    old = {"hints": {"bronze/movie": {**hint, "due_at": 1.0, "asked": 0}}, "horizon": 1, "horizon_since": 2.0}

    assert Memory.from_cursor(json.dumps(old)) == Memory()
    assert SIGNATURE_DIGITS % 2 == 0


def test_the_hint_of_a_table_that_is_not_checked_any_more_is_kept_and_no_other():
    """Its lag begins when it was last covered, which its hint alone knows. Hints of dropped tables would add up."""
    before = Memory({place_of("a"): Hint(covered=7), place_of("b"): Hint(covered=8), place_of("c"): Hint(covered=9)})
    now = Memory({place_of("c"): Hint(covered=10)})

    kept = now.keeping([place_of("a"), place_of("c"), place_of("d")], before)

    assert {place: hint.covered for place, hint in kept.hints.items()} == {place_of("a"): 7, place_of("c"): 10}
