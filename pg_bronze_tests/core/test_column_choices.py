"""Column choices: what remains of a table, and which choices are refused."""

from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest

from pg_bronze.core import band_rules, column_types, cursor_column, drift
from pg_bronze.core.column_choices import ColumnChoices, uncovered_by_rename, uncovers
from pg_bronze.core.key_identity import EXACT, key_identity
from pg_bronze.core.table import Column, Relation, SourceTable
from pg_bronze.core.type_docs import ENTRIES
from pg_bronze.errors import SettingsError
from pg_bronze.settings.choices import Mask

NULL, HASH = Mask("null"), Mask("sha256")


def column(attnum, name, base="text", declared=None, **more):
    return Column(attnum, name, declared or base, base, -1, not_null=True, **more)


COLUMNS = (
    column(1, "id", "int4"),
    column(2, "email"),
    column(3, "updated_at", "timestamptz"),
    column(4, "price", "numeric", "numeric(10,2)"),
)
RELATION = Relation(9, "public", "movie", 9, 1000, 0, ordered_by=("id", "updated_at"))
TABLE = SourceTable(9, "public", "movie", False, None, COLUMNS, ("id",), (RELATION,), 1.0, None, "f")


def test_the_columns_are_those_included_and_not_excluded():
    chosen = ColumnChoices(include=("id", "email", "price"), exclude=("price",)).apply(TABLE)

    assert [item.name for item in chosen.columns] == ["id", "email"]
    assert chosen.excluded == ((3, "updated_at"), (4, "price"))
    assert ColumnChoices().apply(TABLE) is TABLE


@pytest.mark.parametrize("mask", [NULL, HASH, Mask("fixed", "x")])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.declared)
def test_no_mask_lets_the_query_return_a_value(entry, mask):
    """NULL and the fixed value do not even name the column; the hash is computed by the server."""
    masked = replace(entry.column, mask=mask)

    query = column_types.projection([masked])

    if mask is HASH:
        assert query.startswith("pg_catalog.encode(pg_catalog.sha256(")
    else:
        assert query.startswith("null::pg_catalog.")
        assert query.count('"c"') == 1  # its name in the result
    assert column_types.applicable_policies(masked) == {}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.declared)
def test_null_is_stored_in_the_type_of_the_column(entry):
    masked = replace(entry.column, mask=NULL)
    read = pl.DataFrame(schema=column_types.read_schema([masked])).clear(2)

    frame, counts = column_types.conform(read, [masked], "movie")

    assert frame.schema == column_types.stored_schema([entry.column])
    assert frame["c"].to_list() == [None, None]
    assert counts == ()


@pytest.mark.parametrize(
    "base, typmod, text, value",
    [
        ("text", -1, "XX", "XX"),
        ("int2", -1, "7", 7),
        ("bool", -1, "true", True),
        ("float8", -1, "1.5", 1.5),
        ("numeric", (10 << 16 | 2) + 4, "1.5", Decimal("1.50")),
        ("numeric", (30 << 16 | 2) + 4, "1.5", Decimal("1.50")),
    ],
)
def test_a_fixed_value_is_in_every_row(base, typmod, text, value):
    masked = Column(1, "c", base, base, typmod, not_null=False, mask=Mask("fixed", text))
    read = pl.DataFrame(schema=column_types.read_schema([masked])).clear(2)

    frame, _ = column_types.conform(read, [masked], "movie")

    assert frame["c"].to_list() == [value, value]
    assert frame.schema == column_types.stored_schema([masked])


@pytest.mark.parametrize(
    "base, text",
    [
        *[("int2", "70000"), ("int4", "XX"), ("bool", "yes"), ("date", "2024"), ("bytea", "x"), ("float4", "x")],
        ("timestamp", "2024-01-01 00:00+00:00"),
    ],
)
def test_a_fixed_value_of_another_type_is_refused(base, text):
    table = replace(TABLE, columns=(*COLUMNS, column(5, "c", base)))
    choices = ColumnChoices(masks={"c": Mask("fixed", text)})

    with pytest.raises(
        SettingsError, match=r"^movie: the mask of column 'c' \(.*\) is not valid: the type .* has no va"
    ):
        choices.check_values(choices.apply(table))


@pytest.mark.parametrize(
    "choices, problem",
    [
        (ColumnChoices(exclude=("id",)), "column 'id' is excluded and belongs to the primary key"),
        (ColumnChoices(include=("email",)), "column 'id' is excluded and belongs to the primary key"),
        (ColumnChoices(masks={"id": NULL}), "column 'id' belongs to the primary key, and its mask stores the same"),
        (ColumnChoices(masks={"id": Mask("fixed", "1")}), "belongs to the primary key, and its mask stores the same"),
        (ColumnChoices(masks={"emial": NULL}, named=frozenset({"emial"})), "does not exist. Did you mean 'email'?"),
        (ColumnChoices(exclude=("zzz",), named=frozenset({"zzz"})), "does not exist. Its columns are 'id', 'email', "),
    ],
)
def test_choices_that_lose_the_key_or_name_no_column_are_refused(choices, problem):
    """After a rename in the source, the values of a masked column would be copied."""
    with pytest.raises(SettingsError, match=r"^movie: ") as error:
        choices.check(TABLE)

    assert problem in str(error.value)


def test_a_column_of_a_pattern_need_not_exist_and_a_key_may_be_hashed():
    ColumnChoices(exclude=("zzz",), masks={"id": HASH}).check(TABLE)


@pytest.mark.parametrize(
    "expression, name, refused",
    [
        ("split_part(email, '@'::text, 2)", "email", True),
        ("lower((email)::text)", "email", True),
        ('lower("E mail")', "E mail", True),
        ("lower(title)", "lower", False),
        ("(title)::date", "date", False),
        ("(title || 'email'::text)", "email", False),
        ("lower(emails)", "email", False),
    ],
)
def test_a_generated_column_does_not_uncover_a_value(expression, name, refused):
    computed = column(6, "computed", generated="stored", generated_as=expression)
    table = replace(TABLE, columns=(COLUMNS[0], column(5, name), computed))
    for choices in (ColumnChoices(masks={name: HASH}), ColumnChoices(exclude=(name,))):
        if not refused:
            choices.check(table)
            continue
        with pytest.raises(
            SettingsError, match=f"column 'computed' is computed from column '{name}', which is excluded"
        ):
            choices.check(table)
        replace(choices, exclude=(*choices.exclude, "computed")).check(table)


@pytest.mark.parametrize("choices", [ColumnChoices(exclude=("updated_at",)), ColumnChoices(masks={"updated_at": HASH})])
def test_a_hidden_column_shows_no_progress_and_divides_no_table(choices):
    """Its values would be in the watermark, in metadata and in etl_control."""
    chosen = choices.apply(TABLE)

    assert cursor_column.choose(TABLE).name == "updated_at"
    assert cursor_column.choose(chosen).name == "id"
    with pytest.raises(
        SettingsError, match=r"'updated_at' is (excluded|masked), and the values of the cursor column are"
    ):
        cursor_column.choose(chosen, configured="updated_at")
    assert [order.attnum for order in band_rules.orders(TABLE, ["updated_at"], None)] == [3, 1, None]
    assert [order.attnum for order in band_rules.orders(chosen, ["updated_at"], None)] == [1, None]


def test_a_footer_describes_the_mask_and_no_default_or_label():
    """The default of an added column, and the labels of an enum, are values of the column."""
    plain = replace(TABLE, columns=(COLUMNS[0], column(2, "mood", "public.mood", missing="sad", labels=("sad", "ok"))))
    described = drift.describe_table(ColumnChoices(masks={"mood": Mask("fixed", "x")}).apply(plain))

    assert described.columns[1]["mask"] == ["fixed", "x"]
    assert not {"missing", "labels"} & described.columns[1].keys()
    assert described.source_columns[1].mask == Mask("fixed", "x")
    assert "mask" not in drift.describe_table(plain).columns[1]


def test_drift_tells_an_excluded_column_from_a_dropped_one():
    before = drift.describe_table(TABLE)
    excluded = drift.describe_table(ColumnChoices(exclude=("email",)).apply(TABLE))
    masked = drift.describe_table(ColumnChoices(masks={"id": HASH}).apply(TABLE))

    assert drift.drift(before, excluded) == ("column 'email' (text) is excluded now",)
    assert drift.drift(excluded, before) == (
        "column 'email' (text) is not excluded any more; rows copied earlier have NULL until they are copied again",
    )
    assert drift.drift(before, masked) == (
        "column 'id' is masked by sha256 now; rows copied earlier keep what was stored",
        "column 'id' is now stored as String, previously as Int32",
    )
    assert len({before.digest, excluded.digest, masked.digest}) == 3


@pytest.mark.parametrize("hiding", [ColumnChoices(exclude=("email",)), ColumnChoices(masks={"email": HASH})])
def test_a_hidden_column_that_is_renamed_is_not_copied_as_it_is(hiding):
    """A pattern hides columns by name, and would not hide the new name."""
    before = drift.describe_table(hiding.apply(TABLE))
    renamed = replace(TABLE, columns=(COLUMNS[0], replace(COLUMNS[1], name="mail")))

    assert "column 'email', which was excluded or masked, is called 'mail' now" in uncovered_by_rename(before, renamed)
    assert uncovered_by_rename(before, ColumnChoices(masks={"mail": NULL}).apply(renamed)) is None
    assert uncovered_by_rename(before, ColumnChoices(exclude=("mail",)).apply(renamed)) is None
    assert uncovered_by_rename(before, TABLE) is None


def test_a_missing_object_is_not_written_again_with_values_that_are_hidden_now():
    plain = drift.describe_table(TABLE)
    hashed = ColumnChoices(masks={"email": HASH}).apply(TABLE)

    assert uncovers(plain, hashed)
    assert uncovers(plain, ColumnChoices(exclude=("email",)).apply(TABLE))
    assert uncovers(drift.describe_table(hashed), ColumnChoices(masks={"email": NULL}).apply(TABLE))
    assert not uncovers(drift.describe_table(hashed), TABLE)
    assert not uncovers(drift.describe_table(hashed), hashed)


@pytest.mark.parametrize(
    "eras, refused",
    [
        ([column(1, "k", mask=HASH)], None),
        ([column(1, "k", "int4", mask=HASH)], None),
        ([column(1, "k", "numeric", mask=HASH)], "equal values may have different texts"),
        ([column(1, "k", "bpchar", mask=HASH)], "equal values may have different texts"),
        ([column(1, "k"), column(1, "k", mask=HASH)], "some of its values were stored masked, others not"),
        ([column(1, "k", mask=NULL)], "its mask stores different values of it as the same value"),
    ],
)
def test_hashed_keys_identify_rows_if_equal_values_have_one_text(eras, refused):
    found = key_identity(eras, "C", pl.String(), "k")

    assert found == EXACT if refused is None else refused in found
