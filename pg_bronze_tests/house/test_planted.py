"""The planted faults fit the code and the tests of today; ``python -m pg_bronze_tests.planting`` plants them."""

import ast

import pytest

from pg_bronze_tests.planting import ROOT, Fault, all_faults

FAULTS = all_faults()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_changes_one_line_and_names_a_test_that_exists(fault: Fault):
    file, _, name = fault.test.partition("::")
    tests = ast.walk(ast.parse((ROOT / "pg_bronze_tests" / file).read_text(encoding="utf-8")))

    ast.parse(fault.source)
    assert "\n" not in fault.line + fault.wrong
    assert name.partition("[")[0] in {node.name for node in tests if isinstance(node, ast.FunctionDef)}


def test_there_are_as_many_as_a_person_can_read():
    assert 60 <= len(FAULTS) <= 80
