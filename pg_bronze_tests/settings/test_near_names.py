"""Near names: the misspelled name of an option, in all places where options are set."""

import re
from string import ascii_lowercase

import pytest

from pg_bronze.settings import attributes
from pg_bronze.settings.near_names import misspellings, nearest

SOURCE = [item.name for item in attributes.of_source()]
TABLE = [item.name for item in attributes.of_table()]


@pytest.mark.parametrize("written", ["cursor_colum", "cursorColumn", "cursor-column", "CURSOR_COLUMN"])
def test_the_nearest_name_is_found_in_every_usual_form(written: str):
    assert nearest(written, TABLE) == "cursor_column"
    assert re.match(misspellings("cursor_column", TABLE), written) or written.isupper()


@pytest.mark.parametrize("written", ["PG_BRONZE_LAYOUT", "layuot", "layou"])
def test_the_name_of_a_variable_is_found(written: str):
    assert nearest(written, SOURCE) == "layout"
    assert re.match(misspellings("layout", SOURCE), written)


def test_a_name_that_is_similar_to_none_has_no_nearest_one():
    assert nearest("zoom", TABLE) is None
    assert not any(re.match(misspellings(name, TABLE), "zoom") for name in TABLE)


@pytest.mark.parametrize("names", [SOURCE, TABLE])
def test_no_valid_name_is_a_misspelling(names: list[str]):
    """`dg check yaml` would refuse a valid file."""
    assert [(name, other) for name in names for other in names if re.match(misspellings(name, names), other)] == []


@pytest.mark.parametrize("name", ["nan", "tags", "pg_user", "cursor_column", "include_columns", "lag_target_s"])
def test_one_wrong_character_anywhere_is_a_misspelling(name: str):
    places, pattern = range(len(name)), re.compile(misspellings(name, [*SOURCE, *TABLE]))
    missing = {name[:place] + name[place + 1 :] for place in places}
    added = {name[:place] + letter + name[place:] for place in [*places, len(name)] for letter in ascii_lowercase}
    replaced = {name[:place] + letter + name[place + 1 :] for place in places for letter in ascii_lowercase}
    exchanged = {name[:place] + name[place + 1] + name[place] + name[place + 2 :] for place in places[:-1]}
    valid = {*SOURCE, *TABLE}

    assert [text for text in (missing | added | replaced | exchanged) - valid if not pattern.match(text)] == []
    assert bool(pattern.match(name.removesuffix("_s"))) == name.endswith("_s"), "a unit that is missing"
