"""docs/glossary.md: each word once, and what the program shows is among them."""

import re
from pathlib import Path

from pg_bronze.scheduling.health import STATES

PAGE = (Path(__file__).parents[2] / "docs/glossary.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"(?m)^\| ([a-z][^|]*?) \| (.+) \|$", PAGE))


def test_each_word_has_one_row():
    """A word with two meanings is what the page excludes."""
    words = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")]

    assert len(words) == len(set(words)) == len(ROWS)


def test_the_words_that_messages_and_pages_use_are_explained():
    assert {"alert", "check", "forget", "lag", "mask", "state", "sweep", "tick", "watermark"} <= set(ROWS)


def test_the_row_about_states_names_each_state():
    assert re.findall(r"`(\w+)`", ROWS["state"].partition(": ")[2]) == list(STATES)
