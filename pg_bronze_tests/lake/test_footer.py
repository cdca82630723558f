import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.formats import FORMAT
from pg_bronze.core.leaf import Leaf, Sweep
from pg_bronze.core.region import Region
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.errors import FormatTooNew, LakeDamaged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import Footer

PLACE = Origin("7", 1, "0/1", 5, "bronze")
BEFORE = Watermark(PLACE, 9, seq=3, key="movie/movie_20260102000009.parquet").with_leaves({9: Leaf(50)})
AFTER = dataclasses.replace(BEFORE, seq=4, key="movie/movie_20260102000010.parquet").with_leaves({9: Leaf(70)})
REGION = Region("public", "movie", True, (9,), 50, 70, blocks=(0, None))
CLAIM = Claim("a1", BEFORE, AFTER, REGION, {9: 16400})
FOOTER = Footer("a1", BEFORE, AFTER, REGION, 812, [{"attnum": 1, "name": "ñ"}], "_pg_xid", 170000)
KEY = "movie/movie_20260102000010.parquet"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    nonce=texts,
    region=st.none() | st.just(REGION),
    nodes=st.dictionaries(st.integers(1, 2**32), st.integers(0, 2**32)),
    reason=st.none() | texts,
)
def test_a_claim_is_unchanged_after_writing_and_reading_its_text(nonce, region, nodes, reason):
    before = Claim(nonce, BEFORE, AFTER, region, nodes, reason)
    assert Claim.from_text(before.to_text(), KEY) == before
    assert Claim.from_text(before.to_text().encode(), KEY) == before


@given(nonce=texts, region=st.none() | st.just(REGION), count=st.integers(0), repaired=st.booleans(), name=texts)
def test_a_footer_is_unchanged_after_writing_and_reading_its_text(nonce, region, count, repaired, name):
    found = (ExceptionalCount(name, "nan", "null", count),)
    before = Footer(
        nonce, BEFORE, AFTER, region, count, [{"name": name}], name, 140000, repaired, name, exceptional=found
    )
    assert Footer.from_text(before.to_text(), KEY) == before


def test_a_footer_repeats_number_previous_key_and_encoding_for_readers():
    data = json.loads(FOOTER.to_text())
    assert (data["seq"], data["prev_key"], data["row_count"]) == (4, BEFORE.key, 812)
    assert (data["time_zone"], data["encoding"]) == ("UTC", "UTF8")


def test_a_footer_contains_the_primary_key():
    keyed = dataclasses.replace(FOOTER, primary_key=("kind", "id"))
    assert json.loads(keyed.to_text())["primary_key"] == ["kind", "id"]
    assert Footer.from_text(keyed.to_text(), KEY).described.primary_key == ("kind", "id")


def test_a_footer_without_a_primary_key_entry_is_read():
    old = {key: value for key, value in json.loads(FOOTER.to_text()).items() if key != "primary_key"}
    assert Footer.from_text(json.dumps(old), KEY).primary_key == ()


def test_an_object_continues_only_the_watermark_that_it_follows():
    assert FOOTER.continues(BEFORE)
    assert not FOOTER.continues(AFTER)
    assert not FOOTER.continues(dataclasses.replace(BEFORE, seq=4))
    assert not FOOTER.continues(dataclasses.replace(BEFORE, key="movie/movie_20260102000008.parquet"))


def changed(text, **entries):
    return json.dumps({**json.loads(text), **entries})


of_both_kinds = pytest.mark.parametrize("kind, text", [(Claim, CLAIM.to_text()), (Footer, FOOTER.to_text())])


@of_both_kinds
def test_a_newer_format_is_refused_before_anything_else_is_read(kind, text):
    with pytest.raises(FormatTooNew, match=rf"the {kind.__name__.lower()} .*{KEY} has format {FORMAT + 1}"):
        kind.from_text(json.dumps({"format": FORMAT + 1}), KEY)


@of_both_kinds
def test_a_newer_format_of_an_inner_watermark_is_refused(kind, text):
    with pytest.raises(FormatTooNew, match=f"watermark in the {kind.__name__.lower()} .*{KEY} has format {FORMAT + 1}"):
        kind.from_text(changed(text, after={"format": FORMAT + 1}), KEY)


@pytest.mark.parametrize("garbage", ["", "PAR1", b"\xff\xfe\x00", "[1, 2]", "null", "7", "{}", '{"format": 1}'])
@of_both_kinds
def test_garbage_is_an_error_that_names_the_object(kind, text, garbage):
    with pytest.raises(LakeDamaged, match=KEY):
        kind.from_text(garbage, KEY)


@pytest.mark.parametrize(
    "entry, value",
    [
        ("before", None),
        ("before", 5),
        ("before", {}),
        ("after", {"format": 1}),
        ("after", []),
        ("region", 5),
        ("region", {"schema": "public"}),
    ],
)
@of_both_kinds
def test_a_damaged_part_is_an_error_that_names_the_object(kind, text, entry, value):
    """Without the key, an operator would have to search thousands of objects."""
    with pytest.raises(LakeDamaged, match=KEY):
        kind.from_text(changed(text, **{entry: value}), KEY)


@pytest.mark.parametrize("nodes", [[1], 5, {"nine": 1}])
def test_relfilenodes_that_are_not_a_mapping_are_an_error(nodes):
    with pytest.raises(LakeDamaged, match=KEY):
        Claim.from_text(changed(CLAIM.to_text(), relfilenodes=nodes), KEY)


# Texts that earlier versions wrote.
OLD_AFTER = """{"format": 1, "system_id": "7", "timeline": 1, "lsn": "0/1", "database": 5, "bucket": "bronze",
    "table": 9, "generation": 0, "seq": 4, "key": "movie/movie_20260102000010.parquet", "first_key": "", "cursor": null,
    "seed": null, "columns_key": "", "columns_digest": "", "detached": [],
    "leaves": [{"oids": [[9, 9, 1]], "swept": 70, "box": null, "pending": null}]}"""
OLD_BEFORE = OLD_AFTER.replace('"seq": 4', '"seq": 3').replace("00010.parquet", "00009.parquet").replace("70", "50")
OLD_REGION = """{"schema": "public", "name": "movie", "only": true, "leaves": [9], "start": 50, "end": 70,
    "box": null, "blocks": [0, null], "seed": null}"""
OLD_FOOTER = f"""{{"format": 1, "pg_bronze": "0.1.0", "nonce": "a1", "seq": 4,
    "prev_key": "movie/movie_20260102000009.parquet", "before": {OLD_BEFORE}, "after": {OLD_AFTER},
    "region": {OLD_REGION}, "window": null, "row_count": 812, "drift": [],
    "columns": [{{"attnum": 1, "name": "ñ"}}], "primary_key": [], "xid_column": "_pg_xid", "table": {{}},
    "database": {{}}, "server_version": 170000, "time_zone": "UTC", "encoding": "UTF8", "repaired": false,
    "reason": null, "exceptional": []}}"""
OLD_CLAIM = f"""{{"format": 1, "nonce": "a1", "before": {OLD_BEFORE}, "after": {OLD_AFTER}, "region": {OLD_REGION},
    "relfilenodes": {{"9": 16400}}, "reason": null}}"""
# A claim that ends inside block 3, at line 2: the only objects that were written in format 2.
OLD_CLAIM_2 = f"""{{"format": 2, "nonce": "a1", "before": {OLD_BEFORE}, "after": {
    OLD_AFTER.replace('"format": 1', '"format": 2')
    .replace('"swept": 70', '"swept": 50')
    .replace('"pending": null', '"pending": {"upto": 70, "block": 3, "relfilenode": 16400, "line": 2}')
}, "region": {OLD_REGION.replace("[0, null]", "[0, 3]").replace('"seed": null', '"seed": null, "lines": [0, 2]')},
    "relfilenodes": {{"9": 16400}}, "reason": null}}"""


def test_footers_and_claims_of_formats_1_and_2_are_read():
    """Otherwise an upgrade could neither find the watermark of a table nor redo a claim left behind."""
    pending = dataclasses.replace(AFTER).with_leaves({9: Leaf(50, Sweep(70, 3, 16400, 2))})
    region = dataclasses.replace(REGION, blocks=(0, 3), lines=(0, 2))
    assert Footer.from_text(OLD_FOOTER, KEY) == FOOTER
    assert Claim.from_text(OLD_CLAIM, KEY) == CLAIM
    assert Claim.from_text(OLD_CLAIM_2, KEY) == Claim("a1", BEFORE, pending, region, {9: 16400})


@of_both_kinds
def test_everything_is_written_in_format_3(kind, text):
    data = json.loads(text)
    assert (data["format"], data["before"]["format"], data["after"]["format"], FORMAT) == (3, 3, 3, 3)
