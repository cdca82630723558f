"""The tree: the files at the top, and texts that no file may contain."""

import os
import re
import shutil
import subprocess
import sysconfig
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
    return files_below(TOP)


def files_below(top: Path) -> list[str]:
    """Every file that .gitignore does not exclude, found without git, because a copy of the tree has to pass too."""
    ignored = [".git", *(line.strip("/") for line in (TOP / ".gitignore").read_text().splitlines() if line)]
    found = []
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not matches(name, ignored)]
        found += [str(Path(folder, name).relative_to(top)) for name in names if not matches(name, ignored)]
    return sorted(found)


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def test_the_top_level_contains_no_unexpected_file(files):
    assert {name.split("/")[0] for name in files} <= {*PACKAGE, *BESIDE}


@pytest.mark.parametrize("name", ["build", "dist", ".venv2", ".idea", ".vscode", "pg_bronze.egg-info"])
def test_folders_that_tools_of_a_contributor_create_break_neither_the_tests_nor_ruff(tmp_path, name):
    (tmp_path / name / "lib").mkdir(parents=True)
    (tmp_path / name / "lib" / "broken.py").write_text("import of nothing")
    shutil.copy(TOP / "pyproject.toml", tmp_path)

    ruff = subprocess.run([Path(sysconfig.get_path("scripts"), "ruff"), "check", "--no-cache"], cwd=tmp_path)

    assert files_below(tmp_path) == ["pyproject.toml"]
    assert ruff.returncode == 0


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
