"""One way for data: what the modules near the IO manager may import, and where settings are loaded."""

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
# Process entry points and sensor ticks. Every other module is passed the settings.
LOADS_SETTINGS = {
    "cli/batch.py",
    "cli/monitor/process.py",
    "cli/opened.py",
    "cli/status.py",
    "defs/build.py",
    "defs/component.py",
    "lake/reading/scan.py",
    "defs/run_workers/worker.py",
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(module: ast.Module) -> set[str]:
    """The dotted name of everything that is imported, anywhere in the module."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("name", ["io_managers.py", "metadata.py", "log_lines.py"])
def test_the_io_manager_and_the_metadata_know_only_the_report_of_a_sync(name: str):
    """One that calls the copier cannot be used for rows of another source, nor be tested without PostgreSQL."""
    found = imported(tree(TOP / "pg_bronze/defs" / name))

    of_sync = {item for item in found if item.startswith("pg_bronze.sync")}
    assert {item for item in of_sync if not item.startswith("pg_bronze.sync.report.")} == set()


def test_settings_are_loaded_only_where_a_process_or_a_tick_begins():
    """A second load in one run may find other values, and one in an error handler replaces the error."""
    package = TOP / "pg_bronze"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "settings"
        and any(item.rpartition(".")[2] == "load_settings" for item in imported(tree(path)))
    }

    assert found == LOADS_SETTINGS
