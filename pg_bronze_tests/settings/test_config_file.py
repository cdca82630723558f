"""``pg_bronze.toml``: which options a table gets, and how problems in the file are reported."""

import json
import os
import re
from pathlib import Path

import pytest

from pg_bronze.settings import config_file
from pg_bronze.settings.choices import Mask
from pg_bronze.settings.docs import option_table, schema_text
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.table_options import TableOptions
from pg_bronze_tests.settings.conftest import MINIMUM, error_of, load

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def write(tmp_path):
    """Write the file beside an empty ``.env``, and return the path of that."""

    def written(text):
        (tmp_path / "pg_bronze.toml").write_text(text, encoding="utf-8")
        return tmp_path / ".env"

    return written


def options(env_file, label="movie", **more):
    return load_settings(MINIMUM | more, env_file).table_options(label)


def test_a_table_has_the_options_of_its_section_and_the_global_values(write):
    env_file = write('[tables.movie]\ncursor_column = "seen"\nslice_bytes = "1MiB"\n')

    found = options(env_file, PG_BRONZE_NAN="text")

    assert (found.cursor_column, found.slice_bytes, found.nan) == ("seen", 2**20, "text")
    assert options(env_file, "person").cursor_column is None


def test_the_environment_takes_precedence_then_the_name_then_the_last_pattern(write):
    env_file = write("""
        [tables.movie]
        slice_rows = 2
        nan = "null"
        [tables."*"]
        slice_rows = 3
        nan = "text"
        infinity = "text"
        bands = "off"
        [tables."m*"]
        infinity = "null"
    """)

    found = options(env_file, PG_BRONZE_TABLES='{"movie": {"slice_rows": 1}}', PG_BRONZE_NAN="error")

    assert (found.slice_rows, found.nan, found.infinity, found.bands) == (1, "null", "null", "off")


def test_a_section_of_a_table_does_not_uncover_what_a_pattern_hides(write):
    env_file = write("""
        [tables."*"]
        exclude_columns = ["notes"]
        masks = { email = "sha256", phone = "null" }
        tags = { team = "a", kind = "b" }
        [tables.movie]
        exclude_columns = ["title"]
        masks = { phone = { value = "-" } }
        tags = { team = "c" }
    """)

    found = options(env_file, PG_BRONZE_TABLES='{"movie": {"masks": {"zip": "null"}}}')

    assert set(found.exclude_columns) == {"notes", "title"}
    assert found.masks == {"email": Mask("sha256"), "phone": Mask("fixed", "-"), "zip": Mask("null")}
    assert found.tags == {"team": "c", "kind": "b"}


def test_a_codec_is_not_combined_with_the_level_of_another_one(write):
    env_file = write("""
        [tables."*"]
        compression = "zstd"
        compression_level = 19
        [tables.movie]
        compression = "gzip"
    """)

    assert options(env_file).compression_level is None
    assert options(env_file, "person").compression_level == 19


@pytest.mark.parametrize(
    "value, text",
    [
        *[("0", "0"), ("true", "true"), ("1.5", "1.5"), ('"x"', "x"), ("1900-01-01", "1900-01-01")],
        ("1900-01-01T00:00:00Z", "1900-01-01 00:00:00+00:00"),
    ],
)
def test_a_fixed_value_of_a_mask_may_have_any_type_of_toml(write, value, text):
    env_file = write(f"[tables.movie]\nmasks.born = {{ value = {value} }}")

    assert options(env_file).masks == {"born": Mask("fixed", text)}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("x = 1", ": x is not a known key. The options of a table are below [tables.<name>]."),
        ("tabels.movie.slice_rows = 5", ": tabels is not a known key. Did you mean tables?"),
        ("[movie]\nslice_rows = 5", ": movie is not a known key. Did you mean [tables.movie]?"),
        ("slice_row = 5", ": slice_row is not a known key. Did you mean slice_rows, below [tables.<name>]?"),
        ("tables = 5", ": tables must contain a table for each name: [tables.movie]."),
        ("tables.movie = 5", ", [tables.movie] is '5': it must be a table with options of cursor_column, "),
        ("[tables.movie]\nslice_row = 5", "slice_row is '5': it is not an option of a table. Did you mean slice_rows?"),
        ("[tables.movie]\ncursorColumn = 'id'", "mean cursor_column? See docs/settings.md#the-file-pg_bronzetoml."),
        ("[tables.movie]\nslice_rows = '5'", ", [tables.movie]: slice_rows is '5': it must be a whole number."),
        ("[tables.movie]\nslice_bytes = 'many'", "slice_bytes is 'many': it must be a number of bytes, such as "),
        ("[tables.movie]\nslice_bytes = 5", "slice_bytes is '5': it must be at least 65536."),
        ("[tables.movie]\ncompression = 'zip'", "compression is 'zip': it must be 'zstd', 'snappy', 'gzip', "),
        ("[tables.movie]\ncompression_level = 3", "compression_level is '3': it needs compression in the same place."),
        ("[tables.movie]\ncompression='lz4'\ncompression_level = 3", "'3': lz4 has no levels; remove it."),
        ("[tables.movie]\nmasks.email = 'sha255'", "masks.email is 'sha255': it must be 'null', 'sha256' or "),
        ("[tables.movie]\nmasks.email = 'sha255'", "Did you mean 'sha256'?"),
        ("[tables.movie]\nmasks.email = { val = 1 }", "masks.email: it must be 'null', 'sha256' or { value = … } with"),
        ("[tables.movie]\nmasks.email = { value = [] }", "masks.email: it must be 'null', 'sha256' or "),
        ("[tables.movie]\nexclude_columns = 'email'", "exclude_columns is 'email': it must be a list of names."),
        ("[tables.movie]\ninclude_columns = []", "include_columns is '[]': it must contain at least one column."),
        (
            "[tables.movie]\nowners = ['ana']",
            "an owner must be an e-mail address or team:<name>, and 'ana' is neither.",
        ),
        ("[tables.movie]\ntags.'a b' = 'c'", "the tag 'a b' must have 1 to 63 letters, digits and _ . - after"),
        ("[tables.movie]\ntags.'dagster/x' = 'c'", "the prefixes dagster/ and pg_bronze/ are reserved."),
        ("[tables.movie]\ntags.a = 'b c'", "the value of the tag 'a' must have at most 63 letters, digits and _ . -."),
        ("[tables.movie]\nsweep_budget = 2", "sweep_budget is '2': it must be at most 1.0."),
        (
            "[tables.'public.movie']",
            '[tables."public.movie"]: tables of the schema public are named without it: movie.',
        ),
        ("[tables.'m[']", "[tables.\"m[\"]: the pattern 'm[' has a [ without a ]."),
        ("[tables.movie", " is not valid TOML: Expected ']' at the end of a table declaration (at "),
        ("a = " + "[" * 20_000, " is not valid TOML: "),
        ("a = " + "1" * 10_000, " is not valid TOML: "),
    ],
)
def test_a_problem_names_the_file_the_key_and_the_nearest_valid_one(write, text, problem):
    env_file = write(text)

    message = error_of(MINIMUM, env_file)

    assert str(env_file.with_name("pg_bronze.toml")) in message
    assert problem in message


def test_all_problems_are_reported_at_once_together_with_those_of_the_environment(write):
    env_file = write("[tables.movie]\nslice_row = 5\n[tables.person]\nslice_rows = 'x'\nnan = 'y'\n")

    message = error_of(MINIMUM | {"PG_BRONZE_LAYOUT": "z"}, env_file)

    assert message.startswith("4 problems in the settings:\n- ")
    assert all(name in message for name in ("[tables.movie]", "[tables.person]: slice_rows", "nan", "PG_BRONZE_LAYOUT"))


def test_a_file_that_is_not_utf_8_is_reported(write):
    env_file = write("")
    env_file.with_name("pg_bronze.toml").write_bytes(b"\xff")

    assert (
        error_of(MINIMUM, env_file) == f"{env_file.with_name('pg_bronze.toml')} is not valid UTF-8. Save it as UTF-8."
    )


def test_a_file_that_is_being_written_does_not_count_as_one_without_options(write):
    """An editor empties it first, and a tick at that moment would copy values that are masked."""
    env_file = write("")

    assert error_of(MINIMUM, env_file).endswith("pg_bronze.toml is empty. Write the options, or remove the file.")
    assert load_settings(MINIMUM, write("# nothing yet\n")).file_options == {}


def test_an_unchanged_file_is_not_parsed_again_and_a_changed_one_is(write, monkeypatch):
    """The sensors load the settings in every tick: parsing 1,000 sections takes 40 ms."""
    env_file = write("[tables.movie]\nslice_rows = 1\n")
    first = load_settings(MINIMUM, env_file)
    monkeypatch.setattr(config_file, "_parsed", None)
    assert load_settings(MINIMUM, env_file) == first
    monkeypatch.undo()

    write("[tables.movie]\nslice_rows = 2\n")
    os.utime(env_file.with_name("pg_bronze.toml"), ns=(1, 1))
    second = load_settings(MINIMUM, env_file)

    assert (first.table_options("movie").slice_rows, second.table_options("movie").slice_rows) == (1, 2)
    assert first.fingerprint() != second.fingerprint()


def test_a_setting_may_name_another_file(tmp_path, write):
    env_file = write("[tables.movie]\nslice_rows = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[tables.movie]\nslice_rows = 2\n")

    assert options(env_file, PG_BRONZE_CONFIG=str(other)).slice_rows == 2
    missing = error_of(MINIMUM | {"PG_BRONZE_CONFIG": str(tmp_path)}, env_file)
    assert missing == f"PG_BRONZE_CONFIG is '{tmp_path}': there is no such file."


def test_a_reader_of_the_lake_does_not_need_the_file(write):
    assert load_settings(MINIMUM, write("["), lake_only=True).file_options == {}


def test_without_the_file_nothing_changes(tmp_path):
    assert load_settings(MINIMUM, tmp_path / ".env") == load()


def test_a_section_whose_table_does_not_exist_is_named_with_the_nearest_table(write):
    """Its masks would silently have no effect."""
    settings = load_settings(
        MINIMUM, write("tables.moive = {}\ntables.person = {}\ntables.'s.*' = {}\ntables.'*' = {}")
    )

    assert settings.unknown_tables(["movie", "person"]) == [
        "pg_bronze.toml has options of moive, and there is no such table. Did you mean movie?",
        "pg_bronze.toml has options of s.*, and there is no such table",
    ]


def test_only_columns_named_for_the_table_itself_must_exist(write):
    env_file = write('[tables."*"]\nmasks.email = "null"\n[tables.movie]\nexclude_columns = ["notes"]\n')

    settings = load_settings(MINIMUM | {"PG_BRONZE_TABLES": '{"movie": {"masks": {"zip": "null"}}}'}, env_file)

    assert settings.named_columns("movie") == {"notes", "zip"}
    assert settings.named_columns("person") == frozenset()


def test_the_schema_in_the_docs_is_that_of_the_models():
    """To update it: pg-bronze schema > docs/pg_bronze.schema.json."""
    assert (DOCS / "pg_bronze.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_has_every_option_and_no_reference():
    tables = json.loads(schema_text())["properties"]["tables"]
    found = tables["additionalProperties"]

    assert list(found["properties"]) == list(TableOptions.model_fields)
    assert found["additionalProperties"] is False
    assert all({"type", "anyOf", "enum"} & option.keys() for option in found["properties"].values())
    assert "$ref" not in schema_text()


def test_the_page_contains_every_option():
    """To update it: python -c "from pg_bronze.settings.docs import option_table; print(option_table())"."""
    assert option_table() in (DOCS / "settings.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_loads(write):
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / "settings.md").read_text(encoding="utf-8"), re.DOTALL)
    settings = load_settings(MINIMUM, write(blocks[0]))

    assert settings.table_options("customer").masks["country"] == Mask("fixed", "XX")
    assert settings.table_options("sales.order_line").compression == "gzip"
