"""The list of planted mistakes fits the code and the tests of today; planting them is ``make proof``'s work."""

import ast

import pytest

from benchmarks.mistakes import MISTAKES, Mistake
from benchmarks.proof import DETERMINISTIC
from pg_bronze_tests.conftest import ROOT


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.title)
def test_a_planted_mistake_is_one_change_of_one_place(mistake: Mistake):
    text = (ROOT / mistake.path).read_text(encoding="utf-8")

    assert text.count(mistake.right) == 1
    ast.parse(text.replace(mistake.right, mistake.wrong))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.title)
def test_each_test_that_sees_a_mistake_says_so(mistake: Mistake):
    for test in mistake.tests:
        file, _, name = test.partition("::")
        module = ast.parse((ROOT / "pg_bronze_tests" / file).read_text(encoding="utf-8"))
        functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}

        assert "Seen red" in (ast.get_docstring(functions[name.partition("[")[0]]) or "")


NAMED = [name for names in DETERMINISTIC.values() for name in names]


@pytest.mark.parametrize("file", NAMED)
def test_each_test_that_proves_a_case_says_by_which_mistake_it_was_seen_red(file: str):
    module = ast.parse((ROOT / "pg_bronze_tests" / file).read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]

    assert [test.name for test in tests if "Seen red" not in (ast.get_docstring(test) or "")] == []


def test_the_proof_names_files_that_exist():
    assert [name for name in NAMED if not (ROOT / "pg_bronze_tests" / name).exists()] == []
