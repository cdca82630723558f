"""The page ``docs/commands.md``, generated from the help of the commands: ``python -m pg_bronze.cli.docs``."""

import typer

from pg_bronze.cli.app import app
from pg_bronze.cli.terminal import terminal

_WIDTH = 100
_BEGINNING = """# Commands

Generated from `pg-bronze --help` by `python -m pg_bronze.cli.docs`; a test compares both.

Lines and tables are printed on standard output, and sentences about trouble on standard error. With `--json`, standard
output is one JSON document, also of an error: `{"error": {"sentence": …, "retry": …}}`, where `retry` is `automatic`,
`after_fix` or `never`. Progress bars are drawn only on a terminal.

| exit status | meaning |
|---|---|
| 0 | done, or nothing to do |
| 1 | a table failed, or something is wrong; the sentence is on standard error |
| 2 | a wrong argument, or a question that nobody can answer because standard input is no terminal |
| 3 | `tick --strict`: new rows are blocked by an open transaction. Without `--strict` it is 0 |
| 4 | `tick --strict`: a table that was copied before is not any more, and no other failed. Without `--strict` it is \
1 if its right was revoked, and 0 if it was dropped or renamed |
"""
TICK_ENTRIES = """
| entry | meaning |
|---|---|
| `ok` | no table failed, and no right was revoked |
| `rows`, `objects` | copied in total |
| `tables` | each `table` that was read, with its new `rows`, `objects` and `bytes`; zeros if it had no new row. \
`object` is the address of the newest of its new objects, or null |
| `failed` | each failed `table`, with its `sentence` and what a `retry` requires |
| `state`, `lag_s` | of both: the state of the table after the copy, and its lag in seconds, as in the document of \
status. Null if the database did not answer any more |
| `not_copied` | each `table` that was copied before and is not any more, with the `sentence` that has the remedy |
| `blocked` | which open transaction keeps new rows from being copied; null if none lasts for a second |
"""
TICK_DOCUMENT = f"""
The document of `pg-bronze tick --json`:
{TICK_ENTRIES}"""


def page() -> str:
    """Return the page."""
    group = typer.main.get_command(app)
    context = group.make_context("pg-bronze", ["tick"], resilient_parsing=True)
    commands = [(name, group.get_command(context, name)) for name in group.list_commands(context)]  # type: ignore[attr-defined]
    sections = [_section(name, command) for name, command in commands]
    return "\n".join([_BEGINNING, *sections])


def _section(name: str, command: typer.core.TyperCommand) -> str:
    command.rich_markup_mode = None  # plain text, without the boxes of a terminal
    context = command.context_class(command, info_name=f"pg-bronze {name}", terminal_width=_WIDTH)
    text = f"## pg-bronze {name}\n\n```text\n{command.get_help(context)}\n```\n"
    return text + TICK_DOCUMENT if name == "tick" else text


if __name__ == "__main__":
    terminal.print(page().rstrip("\n"))
