"""The request count: every attempt is counted under its operation."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.lake import request_count
from pg_bronze.lake.request_count import from_text, to_text

names = st.sampled_from(["put", "list", "get", "head", "copy", "delete", "other"])


@given(st.dictionaries(names, st.integers(1, 10**9)))
def test_a_tag_is_read_as_it_was_written(counts: dict[str, int]):
    assert from_text(to_text(counts)) == counts


@given(st.text())
def test_a_tag_that_was_edited_is_read_without_an_error(text: str):
    assert all(count >= 0 for count in from_text(text).values())


def test_the_most_frequent_operation_is_first():
    assert to_text({"list": 1, "put": 2, "get": 0}) == "put 2, list 1"
    assert from_text("") == Counter()


def test_each_request_of_a_store_is_counted_once(bucket):
    store = bucket.store()
    before = request_count.current()

    store.create("count/one", b"x")
    store.create("count/one", b"y")
    store.get("count/one")
    list(store.list("count/"))
    store.delete("count/one")

    assert request_count.current() - before == {"put": 2, "get": 1, "list": 1, "delete": 1}
