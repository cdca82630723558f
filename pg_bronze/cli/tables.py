"""Tables on the terminal: columns of text, as wide as their cells. Nothing is cut off or wrapped."""

import io
import re
from collections.abc import Collection, Sequence

from pg_bronze.cli.terminal import terminal

# A value of a row may contain characters that a terminal would execute.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_WIDEST = 100_000


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> None:
    """Print rows of text below their titles.

    Args:
        titles: The title of each column.
        rows: The cells of each row.
        numbers: The places of columns that are aligned at the right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(Text(printable(title)), justify="right" if place in numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    drawn = io.StringIO()
    Console(file=drawn, width=_WIDEST, color_system=None).print(table)
    for line in drawn.getvalue().splitlines():
        if line.strip():
            terminal.print(line.rstrip())


def printable(text: str) -> str:
    """Return a text with an escape for each character that is not printed as itself."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
