"""Run tags: the list of runs names tables, rows and failures without a click."""

import re

from pg_bronze.defs.run_tags import copied, names, requested

# Dagster warns of any other key in every run.
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,63}")


def test_a_run_names_two_tables_and_the_number_of_the_others():
    assert names(["movie"]) == "movie"
    assert names(["movie", "person"]) == "movie, person"
    assert names(["movie", "person", "genre", "award"]) == "movie, person (+2)"


def test_long_names_do_not_exceed_a_tag():
    """MySQL rejects the run otherwise."""
    long = names(["m" * 130, "p" * 130, "genre"])

    assert len(long) == 255
    assert long.endswith("p… (+1)")


def test_a_requested_run_says_which_of_its_tables_are_loaded_for_the_first_time():
    assert requested(["movie", "person", "genre"], {"genre", "elsewhere"}) == {
        "tables": "movie, person (+1)",
        "first_load": "genre",
    }
    assert requested(["movie"], ()) == {"tables": "movie"}


def test_a_finished_run_has_its_rows_and_the_tables_that_failed():
    assert copied({"movie": 800, "genre": 12}, ["person"], ["orders"], known=True) == {
        "rows": "812",
        "failed": "orders",
    }
    assert copied({}, ["person"], [], known=True) == {}


def test_a_run_of_the_ui_gets_the_names_of_its_tables_when_it_ends():
    assert copied({"movie": 1}, ["genre"], ["award"], known=False) == {
        "tables": "award, genre (+1)",
        "rows": "1",
        "failed": "award",
    }


def test_dagster_accepts_the_keys():
    tags = requested(["a"], ["a"]) | copied({"a": 1}, [], ["b"], known=False)

    assert all(_KEY.fullmatch(key) for key in tags)
