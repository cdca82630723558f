"""docs/commands.md and the help of the commands."""

from pathlib import Path

import pytest
import typer

from pg_bronze.cli import docs
from pg_bronze.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
READS_ONLY = ["doctor", "plan", "scan", "status"]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_page_is_the_help_of_the_commands():
    """To update it: python -m pg_bronze.cli.docs > docs/commands.md."""
    assert PAGE.read_text(encoding="utf-8") == docs.page()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_of_it(name: str):
    assert COMMANDS[name].epilog.startswith(f"Example: `pg-bronze {name}")


@pytest.mark.parametrize("name", READS_ONLY)
def test_a_command_that_only_reads_can_print_json(name: str):
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)
