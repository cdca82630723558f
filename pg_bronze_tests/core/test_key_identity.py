"""Which values of a key PostgreSQL treats as equal, compared with literals."""

import dataclasses

import polars as pl
import pytest

from pg_bronze.core.key_identity import key_identity
from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import Policies

CITEXT = "public.citext"
EQUAL = {
    "numeric": [["1", "1.0", "1.000"], ["10"], ["0", "0.00"], ["-1.50", "-1.5"], ["NaN"], ["100", "100.0"], ["1.01"]],
    "float8": [[0.0, -0.0], [1.5], [float("nan"), -float("nan")], [float("inf")]],
    "float4": [[0.0, -0.0], [-1.0]],
    "bpchar": [["a", "a  "], [" a"], ["", "   "], ["a\t"]],
    "public.citext": [["a", "A"], ["bcD", "BCd"], ["é"], ["1"], ["z", "Z"]],
    "text": [["a"], ["A"], ["a "], ["1"], ["1.0"]],
    "int4": [[1], [2]],
}
REFUSED = ("interval", "jsonb", "numrange", "_numeric", "_float8", "_bpchar", "public.pair", "public.cube", "_jsonb")


def column(base: str, **attributes) -> Column:
    if base == CITEXT:
        attributes["extension"] = "citext"
    return Column(1, "code", base, base, -1, True, **attributes)


def identity(*columns: Column, locale: str = "en_US.UTF-8", stored: pl.DataType | None = None):
    found = key_identity(columns, locale, stored or pl.String(), "code")
    assert not isinstance(found, str), found
    return found


def refusal(*columns: Column, locale: str = "en_US.UTF-8") -> str:
    found = key_identity(columns, locale, pl.String(), "code")
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("base", EQUAL)
def test_spellings_of_one_value_have_one_form_and_different_values_do_not(base):
    dtype = {"float8": pl.Float64(), "float4": pl.Float32(), "int4": pl.Int32()}.get(base, pl.String())
    values = pl.DataFrame(
        [(number, value) for number, spellings in enumerate(EQUAL[base]) for value in spellings],
        schema={"group": pl.Int32(), "value": dtype},
        orient="row",
    )
    form = identity(column(base), stored=dtype).form
    formed = values.with_columns(form(pl.col("value")) if form else pl.col("value"))

    assert formed.schema == values.schema
    assert formed.unique().height == len(EQUAL[base]) == formed["value"].n_unique()


@pytest.mark.parametrize("base", REFUSED)
def test_a_type_whose_equality_needs_the_server_is_refused(base):
    assert refusal(column(base)).startswith(f"column 'code' ({base}) cannot identify a row outside the database: ")


@pytest.mark.parametrize("base", ["uuid", "text", "timestamptz", "_text", "tstzrange", "inet"])
def test_most_types_are_compared_as_they_are(base):
    assert identity(column(base)).form is None
    assert identity(column("public.mood", labels=("sad",))).form is None
    assert identity().form is None


@pytest.mark.parametrize("base", ["x.citext", "x._citext", "x.int4", "x.numeric", "x.bpchar", "x.float8", "citext"])
def test_a_type_is_not_known_by_the_last_part_of_its_name(base):
    """A composite type of that name prints (Anna) and (anna), which are two keys."""
    assert "may treat different texts of this type as equal" in refusal(column(base))
    assert identity(column("x.citext", labels=("a", "A"))).form is None


def test_objects_from_before_the_extension_was_recorded_are_compared_as_the_newest():
    before = dataclasses.replace(column(CITEXT), extension=None)
    assert identity(before, column(CITEXT)).form is not None
    refusal(before)
    assert "its type was x.citext" in refusal(column("x.citext"), column(CITEXT))


def test_a_collation_is_accepted_only_if_it_is_deterministic():
    for known in (
        column("text", collation="pg_catalog.C"),
        column("text", collation="public.german", deterministic=True),
        column(CITEXT, collation="public.ci", deterministic=False),  # citext ignores it
    ):
        identity(known)
    for unknown in (None, False):
        for base in ("text", "varchar", "bpchar", "_text"):
            found = refusal(column(base, collation="public.ci", deterministic=unknown))
            assert "its collation public.ci is not known to be deterministic" in found


@pytest.mark.parametrize("locale", ["tr_TR.UTF-8", "tr-TR", "az_AZ"])
def test_citext_is_refused_where_i_has_no_dot(locale):
    assert "lower case of I" in refusal(column("public.citext"), locale=locale)


@pytest.mark.parametrize(
    "one, other",
    [("É", "é"), ("ΟΔΟΣ", "οδος"), ("οδοσ", "οδος"), ("İ", "i"), ("I", "ı"), ("ẞ", "ß"), ("\u212a", "k"), ("Ǆ", "ǆ")],
)
def test_letters_beyond_ascii_are_recognized_as_doubtful(one, other):
    """glibc, ICU and the builtin provider lower them in different ways."""
    found = identity(column("public.citext"))
    both = pl.DataFrame({"value": [one, other]})
    assert both.select(found.form(pl.col("value")))["value"].n_unique() == 2
    assert both.select(found.widest(pl.col("value")))["value"].n_unique() == 1


@pytest.mark.parametrize("bases", [("int4", "numeric"), ("numeric", "int8"), ("float4", "float8"), ("int2", "int8")])
def test_a_number_that_was_widened_is_compared_as_a_number(bases):
    identity(*map(column, bases))


@pytest.mark.parametrize(
    "bases",
    [
        *[("bpchar", "text"), ("public.citext", "text"), ("text", "public.citext"), ("int4", "float8")],
        *[("inet", "cidr"), ("time", "timetz"), ("macaddr", "macaddr8")],
        *[("daterange", "tsrange"), ("date", "timestamp")],
    ],
)
def test_a_column_that_was_compared_in_another_way_is_refused(bases):
    assert f"its type was {bases[0]}, whose values are compared in another way" in refusal(*map(column, bases))


def test_a_text_of_another_length_is_compared_as_before():
    assert identity(column("varchar"), column("text")).form is None


def test_an_enum_key_whose_label_was_renamed_is_refused():
    """The objects keep the former label, so one row would have two keys."""
    before, added = column("public.mood", labels=("sad",)), column("public.mood", labels=("sad", "happy"))
    assert identity(before, added).form is None

    found = refusal(added, column("public.mood", labels=("sad", "glad")))

    assert "its type had a label that was renamed or removed since" in found


@pytest.mark.parametrize("policy", [{"infinity": "null"}, {"late_dates": "null"}])
def test_a_key_of_which_different_values_are_stored_as_null_is_refused(policy):
    for base in ("date", "timestamp", "timestamptz"):
        assert "a policy stores different values of it as NULL" in refusal(column(base, policies=Policies(**policy)))
    identity(column("text", policies=Policies(**policy)))
