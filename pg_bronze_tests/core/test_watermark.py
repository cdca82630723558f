import json
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pg_bronze.core import watermark_text
from pg_bronze.core.band_rules import Sweeps
from pg_bronze.core.formats import FORMAT
from pg_bronze.core.leaf import Band, Leaf, Order, Sweep
from pg_bronze.core.row_counts import Poll, RowCounts
from pg_bronze.core.watermark import ControlVersion, Origin, Seed, Watermark
from pg_bronze.errors import FormatTooNew, LakeDamaged

ORIGIN = Origin("7312345678901234567", 1, "0/16B3748", 16384, "bronze/sales")
xids = st.integers(3, 2**62)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
sweeps = st.builds(
    Sweep,
    xids,
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 291),
    st.none() | texts,
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | texts,
)
leaves = st.builds(
    Leaf,
    st.none() | xids,
    st.none() | sweeps,
    st.none() | st.builds(Order, st.integers(1, 1600), texts) | st.builds(Order, relfilenode=st.integers(1)),
    st.lists(st.builds(Band, texts, st.none() | xids), max_size=3).map(tuple),
    st.none() | texts,
)
polls = st.builds(Poll, st.just(5), st.just(9), st.lists(xids, max_size=2).map(tuple), st.none() | texts)
watermarks = st.builds(
    Watermark,
    origin=st.builds(
        Origin,
        texts,
        st.integers(1, 2**31),
        texts,
        st.integers(1, 2**32 - 1),
        texts,
        st.none() | texts,
        st.none() | texts,
        st.none() | st.builds(ControlVersion, st.integers(1), st.integers(1), xids),
    ),
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
    next_layout=st.sampled_from(["", "flat", "date"]),
    sweeps=st.none() | st.builds(Sweeps, blocks=xids, since=texts, rejected=st.lists(xids, max_size=2).map(tuple)),
    counts=st.none()
    | st.builds(
        RowCounts, st.none() | xids, st.none() | xids, st.none() | xids, st.lists(polls, max_size=2).map(tuple)
    ),
)


def text(watermark):
    return json.dumps(watermark.to_json())


@settings(max_examples=40)
@given(watermarks)
def test_a_watermark_survives_a_round_trip_through_json(before):
    assert Watermark.from_json(json.loads(text(before))) == before
    assert watermark_text.from_text(watermark_text.to_text(before)) == before


@given(st.sets(st.integers(1, 60)))
def test_leaves_with_the_same_state_are_restored_exactly(oids):
    """An additional oid would count as copied without having been read."""
    before = Watermark(ORIGIN, 1).with_leaves(dict.fromkeys(oids, Leaf(9)))
    assert set(Watermark.from_json(before.to_json()).leaves) == oids


@pytest.mark.parametrize("step", [1, 3, 5], ids=["consecutive", "with row types", "with a primary key"])
def test_500_leaves_with_the_same_state_take_less_than_1_kb(step):
    """PostgreSQL assigns oids to row types, array types and indexes too, so oids of partitions are not consecutive."""
    oids = range(16384, 16384 + 500 * step, step)
    assert len(text(Watermark(ORIGIN, 1).with_leaves(dict.fromkeys(oids, Leaf(91377))))) < 1024


def test_an_unknown_leaf_has_nothing_delivered():
    assert Watermark(ORIGIN, 1).leaf(5) == Leaf(None, None)


def test_changing_one_leaf_does_not_change_the_others_or_the_original():
    before = Watermark(ORIGIN, 1).with_leaves({5: Leaf(50), 6: Leaf(60)})
    after = before.with_leaves({6: Leaf(70)})
    assert dict(after.leaves) == {5: Leaf(50), 6: Leaf(70)}
    assert dict(before.leaves) == {5: Leaf(50), 6: Leaf(60)}


def test_a_newer_format_is_refused():
    newer = {"format": FORMAT + 1, "something": "new"}
    with pytest.raises(FormatTooNew, match=f"format {FORMAT + 1}.*reads up to {FORMAT}"):
        Watermark.from_json(newer)


@pytest.mark.parametrize("number", [0, -1, True, 3.0, "4", None, [3]])
def test_a_format_that_is_no_number_of_a_version_is_damage(number):
    """A newer version may count in another way, and its watermark would be read as one of today."""
    with pytest.raises(LakeDamaged, match="a watermark has no format number"):
        Watermark.from_json({**Watermark(ORIGIN, 1).to_json(), "format": number})


def test_the_text_of_a_watermark_is_one_line_of_half_its_size():
    """Dagster's page shows JSON of this size as a tree of 30 lines, and stores the text twice."""
    mark = Watermark(ORIGIN, 9, key="movie/movie_20260102000010.parquet").with_leaves({9: Leaf(91377)})
    short = watermark_text.to_text(mark)
    assert "\n" not in short
    assert len(short) < len(text(mark)) / 2


@pytest.mark.parametrize("garbage", ["", "{", "[1]", "5", '{"leaves": 5}', '{"leaves": [5]}', '{"sweeps": 5}', "{}"])
def test_a_text_that_is_no_watermark_is_damage(garbage):
    with pytest.raises(LakeDamaged):
        watermark_text.from_text(garbage)


def test_a_leaf_is_written_with_its_bands_in_the_current_format():
    leaf = Leaf(5, Sweep(9, 3, 7, 2, "8", 12), Order(2, "int8"), (Band("8", 9), Band("11", 20)), "2026-01-01")
    data = Watermark(ORIGIN, 1).with_leaves({5: leaf}).to_json()
    assert data["format"] == 3
    assert data["leaves"] == [
        {
            "oids": [[5, 5, 1]],
            "order": {"column": 2, "type": "int8"},
            "bands": [[None, 5], ["8", 9], ["11", 20]],
            "sweep": {"upto": 9, "block": 3, "relfilenode": 7, "line": 2, "below": "8", "end": 12, "began_at": None},
            "swept_at": "2026-01-01",
        }
    ]
    blocks = Watermark(ORIGIN, 1).with_leaves({5: Leaf(5, None, Order(relfilenode=7), (Band("8", 9),))}).to_json()
    assert blocks["leaves"][0]["order"] == {"blocks": 7}


OLD_FORMATS = {
    1: """{"format": 1, "system_id": "7", "timeline": 1, "lsn": "0/1", "database": 5, "bucket": "bronze", "table": 9,
        "generation": 0, "seq": 4, "key": "movie/movie_20260102000010.parquet", "first_key": "", "cursor": null,
        "seed": null, "leaves": [{"oids": [[9, 9, 1]], "swept": 50, "box": null,
        "pending": {"upto": 70, "block": 3, "relfilenode": 16400}}]}""",
    3: """{"format": 3, "system_id": "7", "timeline": 1, "lsn": "0/1", "database": 5, "bucket": "bronze", "table": 9,
        "generation": 0, "seq": 4, "key": "movie/movie_20260102000010.parquet", "first_key": "", "cursor": null,
        "seed": null, "columns_key": "", "columns_digest": "", "detached": [], "leaves": [{"oids": [[9, 9, 1]],
        "swept": 50, "box": null, "pending": {"upto": 70, "block": 3, "relfilenode": 16400}}]}""",
    2: """{"format": 2, "system_id": "7", "timeline": 1, "lsn": "0/1", "database": 5, "bucket": "bronze", "table": 9,
        "generation": 0, "seq": 4, "key": "movie/movie_20260102000010.parquet", "first_key": "", "cursor": null,
        "seed": null, "columns_key": "", "columns_digest": "", "detached": [], "leaves": [{"oids": [[9, 9, 1]],
        "swept": 50, "box": null, "pending": {"upto": 70, "block": 3, "relfilenode": 16400, "line": 2}}]}""",
}


@pytest.mark.parametrize("number", OLD_FORMATS)
def test_a_watermark_in_an_older_format_is_read(number):
    """Otherwise an upgrade would copy every table again."""
    place = Origin("7", 1, "0/1", 5, "bronze")
    expected = Watermark(place, 9, seq=4, key="movie/movie_20260102000010.parquet").with_leaves(
        {9: Leaf(50, Sweep(70, 3, 16400, {1: 0, 2: 2, 3: 0}[number]))}
    )
    assert Watermark.from_json(json.loads(OLD_FORMATS[number])) == expected


def without(name):
    return {key: value for key, value in Watermark(ORIGIN, 1).to_json().items() if key != name}


ADDED_LATER = {
    "columns_key",
    "columns_digest",
    "detached",
    "started",
    "checkpoint",
    "control",
    "next_layout",
    "sweeps",
    "counts",
}


def test_a_watermark_without_columns_from_an_older_version_is_read():
    old = {key: value for key, value in Watermark(ORIGIN, 1).to_json().items() if key not in ADDED_LATER}
    assert (Watermark.from_json(old).columns_key, Watermark.from_json(old).columns_digest) == ("", "")
    assert Watermark.from_json(old).origin == ORIGIN


def test_objects_with_the_same_columns_name_the_first_of_them():
    first = Watermark(ORIGIN, 1, seq=1, key="a").with_columns("x", Watermark(ORIGIN, 1))
    second = Watermark(ORIGIN, 1, seq=2, key="b").with_columns("x", first)
    third = Watermark(ORIGIN, 1, seq=3, key="c").with_columns("y", second)
    fourth = Watermark(ORIGIN, 1, seq=4, key="d").with_columns("x", third)
    assert [mark.columns_key for mark in (first, second, third, fourth)] == ["a", "a", "c", "d"]


def test_a_new_generation_names_no_object_of_the_old_one():
    """They are moved, so a reader would look for the columns in an object that is missing."""
    before = Watermark(ORIGIN, 1, seq=1, key="a").with_columns("x", Watermark(ORIGIN, 1))
    assert Watermark(ORIGIN, 1, generation=1, seq=2, key="b").with_columns("x", before).columns_key == "b"


def test_columns_known_by_digest_only_start_with_the_next_object():
    before = Watermark(ORIGIN, 1, seq=1, key="a", columns_digest="x")
    assert Watermark(ORIGIN, 1, seq=2, key="b").with_columns("x", before).columns_key == "b"


@pytest.mark.parametrize("name", sorted(set(Watermark(ORIGIN, 1).to_json()) - {"format"} - ADDED_LATER))
def test_a_missing_entry_is_damage(name):
    with pytest.raises(LakeDamaged, match=name):
        Watermark.from_json(without(name))


@pytest.mark.parametrize(
    "changed",
    [
        {"leaves": 5},
        {"leaves": [5]},
        {"leaves": [{"oids": [[1, 2, 1]], "order": None, "bands": [], "sweep": None, "swept_at": None}]},
        {"leaves": [{"oids": [[1, 2, 1]], "order": {}, "bands": [[None, 5]], "sweep": None, "swept_at": None}]},
        {"leaves": [{"oids": [[1]], "swept": 5, "box": None, "pending": None}]},
        {"leaves": [{"oids": "abc", "swept": 5, "box": None, "pending": None}]},
        {"leaves": [{"oids": [[1, 2, 1]], "swept": 5, "box": {"of": 1}, "pending": None}]},
        {"leaves": [{"oids": [[1, 2, 1]], "swept": 5, "box": None, "pending": 7}]},
        {"seed": {"value": 1}},
    ],
)
def test_invalid_entries_are_damage(changed):
    with pytest.raises(LakeDamaged, match="not a watermark"):
        Watermark.from_json({**Watermark(ORIGIN, 1).to_json(), **changed})


@pytest.mark.parametrize("garbage", [None, 5, "text", [1], True])
def test_anything_but_a_json_object_is_damage(garbage):
    with pytest.raises(LakeDamaged):
        Watermark.from_json(garbage)
