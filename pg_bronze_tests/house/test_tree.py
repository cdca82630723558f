"""The tree: the files at the top, and texts that no file may contain."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PACKAGE = ["pg_bronze", "pg_bronze_tests", "workspace.yaml", "pyproject.toml", "dagster.yaml", "README.md"]
BESIDE = [
    "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "requirements", ".ci", ".env.example", "docs",
    "benchmarks", "deploy", ".gitignore",
]  # fmt: skip


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Every file that .gitignore does not exclude, found without git, because a copy of the tree has to pass too."""
    ignored = [".git", *(line.strip("/") for line in (TOP / ".gitignore").read_text().splitlines() if line)]
    found = []
    for folder, folders, names in os.walk(TOP):
        folders[:] = [name for name in folders if not matches(name, ignored)]
        found += [str(Path(folder, name).relative_to(TOP)) for name in names if not matches(name, ignored)]
    return sorted(found)


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def test_the_top_level_contains_no_unexpected_file(files):
    assert {name.split("/")[0] for name in files} <= {*PACKAGE, *BESIDE}


def test_the_project_has_its_six_parts(files):
    assert set(PACKAGE) <= {name.split("/")[0] for name in files}


def test_no_file_contains_a_path_of_one_machine(files):
    """It would work on no other machine."""
    place = re.compile(r"(?<![\w.}])/(work|root|home/\w+|Users/\w+)/(?!\.\.)[\w.]")
    found = [f"{name}:{number}: {line}" for name, number, line in lines(files) if place.search(line)]

    assert found == []


def test_no_file_names_a_package_index(files):
    """The user chooses the index at installation."""
    option = re.compile(r"--(extra-)?index-url[ =]+\S*:|--find-links[ =]|//(pypi|files\.pythonhosted)\.")
    found = [f"{name}:{number}: {line}" for name, number, line in lines(files) if option.search(line)]

    assert [line for line in found if not line.startswith("pg_bronze_tests/house/")] == []


def lines(files: list[str]):
    for name in files:
        try:
            text = (TOP / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            yield name, number, line
