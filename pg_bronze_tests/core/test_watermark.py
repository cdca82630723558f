import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.watermark import FORMAT, Box, Leaf, Pending, Place, Seed, Watermark
from pg_bronze.errors import FormatTooNew, LakeDamaged

PLACE = Place("7312345678901234567", 1, "0/16B3748", 16384, "bronze/sales")
xids = st.integers(3, 2**62)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
leaves = st.builds(
    Leaf,
    st.none() | xids,
    st.none() | st.builds(Box, st.integers(1, 1600), st.none() | texts, xids),
    st.none() | st.builds(Pending, xids, st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(0, 291)),
)
watermarks = st.builds(
    Watermark,
    place=st.builds(Place, texts, st.integers(1, 2**31), texts, st.integers(1, 2**32 - 1), texts),
    table=st.integers(1, 2**32 - 1),
    generation=st.integers(0),
    seq=st.integers(0),
    key=texts,
    first_key=texts,
    cursor=st.none() | texts,
    leaves=st.dictionaries(st.integers(1, 40) | st.integers(1, 2**32 - 1), leaves | st.just(Leaf(9)), max_size=8).map(
        MappingProxyType
    ),
    seed=st.none() | st.builds(Seed, st.integers(1, 1600), texts),
    columns_key=texts,
    columns_digest=texts,
    detached=st.frozensets(st.integers(1, 60)),
)


def text(watermark):
    return json.dumps(watermark.to_json())


@given(watermarks)
def test_a_watermark_survives_a_turn_through_json(before):
    assert Watermark.from_json(json.loads(text(before))) == before


@given(st.sets(st.integers(1, 60)))
def test_leaves_of_equal_state_come_back_each_and_no_others(oids):
    """An oid too many would count as copied without having been read."""
    before = Watermark(PLACE, 1).with_leaves(dict.fromkeys(oids, Leaf(9)))
    assert set(Watermark.from_json(before.to_json()).leaves) == oids


@pytest.mark.parametrize("step", [1, 3, 5], ids=["side by side", "with row types", "with a primary key"])
def test_500_leaves_of_equal_state_stay_below_1_kb(step):
    """PostgreSQL takes an oid for a table's row type, its array and each index too, so neighbours are apart."""
    oids = range(16384, 16384 + 500 * step, step)
    assert len(text(Watermark(PLACE, 1).with_leaves(dict.fromkeys(oids, Leaf(91377))))) < 1024


def test_an_unknown_leaf_has_nothing_delivered():
    assert Watermark(PLACE, 1).leaf(5) == Leaf(None, None, None)


def test_changing_one_leaf_leaves_the_others_and_the_original_alone():
    before = Watermark(PLACE, 1).with_leaves({5: Leaf(50), 6: Leaf(60)})
    after = before.with_leaves({6: Leaf(70)})
    assert dict(after.leaves) == {5: Leaf(50), 6: Leaf(70)}
    assert dict(before.leaves) == {5: Leaf(50), 6: Leaf(60)}


def test_a_newer_format_is_not_guessed_at():
    newer = {"format": FORMAT + 1, "something": "new"}
    with pytest.raises(FormatTooNew, match=f"format {FORMAT + 1}.*reads up to {FORMAT}"):
        Watermark.from_json(newer)


def test_every_watermark_is_written_in_the_current_format():
    whole, inside = (Watermark(PLACE, 1).with_leaves({5: Leaf(1, None, Pending(9, 3, 7, line))}) for line in (0, 2))
    assert (whole.to_json()["format"], inside.to_json()["format"]) == (3, 3)
    assert whole.to_json()["leaves"][0]["pending"] == {"upto": 9, "block": 3, "relfilenode": 7}
    assert inside.to_json()["leaves"][0]["pending"] == {"upto": 9, "block": 3, "relfilenode": 7, "line": 2}


OLD_FORMATS = {
    1: """{"format": 1, "system_id": "7", "timeline": 1, "lsn": "0/1", "database": 5, "bucket": "bronze", "table": 9,
        "generation": 0, "seq": 4, "key": "movie/movie_20260102000010.parquet", "first_key": "", "cursor": null,
        "seed": null, "leaves": [{"oids": [[9, 9, 1]], "swept": 50, "box": null,
        "pending": {"upto": 70, "block": 3, "relfilenode": 16400}}]}""",
    2: """{"format": 2, "system_id": "7", "timeline": 1, "lsn": "0/1", "database": 5, "bucket": "bronze", "table": 9,
        "generation": 0, "seq": 4, "key": "movie/movie_20260102000010.parquet", "first_key": "", "cursor": null,
        "seed": null, "columns_key": "", "columns_digest": "", "detached": [], "leaves": [{"oids": [[9, 9, 1]],
        "swept": 50, "box": null, "pending": {"upto": 70, "block": 3, "relfilenode": 16400, "line": 2}}]}""",
}


@pytest.mark.parametrize("number", OLD_FORMATS)
def test_a_watermark_in_an_older_format_is_read(number):
    """Otherwise an upgrade would copy every table again."""
    place = Place("7", 1, "0/1", 5, "bronze")
    expected = Watermark(place, 9, seq=4, key="movie/movie_20260102000010.parquet").with_leaves(
        {9: Leaf(50, None, Pending(70, 3, 16400, {1: 0, 2: 2}[number]))}
    )
    assert Watermark.from_json(json.loads(OLD_FORMATS[number])) == expected


def without(name):
    return {key: value for key, value in Watermark(PLACE, 1).to_json().items() if key != name}


ADDED_LATER = {"columns_key", "columns_digest", "detached"}


def test_a_state_written_before_there_were_columns_in_it_is_read():
    old = {key: value for key, value in Watermark(PLACE, 1).to_json().items() if key not in ADDED_LATER}
    assert (Watermark.from_json(old).columns_key, Watermark.from_json(old).columns_digest) == ("", "")


def test_objects_with_the_same_columns_all_name_the_first_of_them():
    first = Watermark(PLACE, 1, seq=1, key="a").with_columns("x", Watermark(PLACE, 1))
    second = Watermark(PLACE, 1, seq=2, key="b").with_columns("x", first)
    third = Watermark(PLACE, 1, seq=3, key="c").with_columns("y", second)
    fourth = Watermark(PLACE, 1, seq=4, key="d").with_columns("x", third)
    assert [mark.columns_key for mark in (first, second, third, fourth)] == ["a", "a", "c", "d"]


def test_a_new_generation_names_none_of_the_old_ones_objects():
    """They are moved away: a reader would look for the columns in an object that is not there."""
    before = Watermark(PLACE, 1, seq=1, key="a").with_columns("x", Watermark(PLACE, 1))
    assert Watermark(PLACE, 1, generation=1, seq=2, key="b").with_columns("x", before).columns_key == "b"


def test_columns_known_by_digest_alone_begin_with_the_next_object():
    before = Watermark(PLACE, 1, seq=1, key="a", columns_digest="x")
    assert Watermark(PLACE, 1, seq=2, key="b").with_columns("x", before).columns_key == "b"


@pytest.mark.parametrize("name", sorted(set(Watermark(PLACE, 1).to_json()) - {"format"} - ADDED_LATER))
def test_a_missing_entry_is_damage(name):
    with pytest.raises(LakeDamaged, match=name):
        Watermark.from_json(without(name))


@pytest.mark.parametrize(
    "changed",
    [
        {"leaves": 5},
        {"leaves": [5]},
        {"leaves": [{"oids": [[1]], "swept": 5, "box": None, "pending": None}]},
        {"leaves": [{"oids": "abc", "swept": 5, "box": None, "pending": None}]},
        {"leaves": [{"oids": [[1, 2, 1]], "swept": 5, "box": {"of": 1}, "pending": None}]},
        {"leaves": [{"oids": [[1, 2, 1]], "swept": 5, "box": None, "pending": 7}]},
        {"seed": {"value": 1}},
    ],
)
def test_anything_else_is_damage_and_not_a_traceback(changed):
    with pytest.raises(LakeDamaged, match="not a watermark"):
        Watermark.from_json({**Watermark(PLACE, 1).to_json(), **changed})


@pytest.mark.parametrize("garbage", [None, 5, "text", [1], True])
def test_what_is_not_even_an_object_is_damage(garbage):
    with pytest.raises(LakeDamaged):
        Watermark.from_json(garbage)
