"""Progress bars: how far the first loads of a command are, below its lines, on a terminal only."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeVar

from pg_bronze.cli.terminal import terminal

if TYPE_CHECKING:
    from pg_bronze.core.load_progress import LoadProgress

T = TypeVar("T")


class Bars:
    """One bar for each table that is being loaded."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[text]}")]
        # Drawn after each slice; nothing else changes them, so no thread has to.
        self._progress = Progress(
            *columns,
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, label: str, progress: "LoadProgress") -> None:
        """Draw the bar of a table."""
        from pg_bronze.core.load_progress import duration

        left = "" if progress.left_s is None else f", {duration(progress.left_s)} left"
        text = f"{progress.share:.1%}  {progress.row_count:,} rows, {progress.size_bytes / 1e6:,.1f} MB{left}"
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=1.0, text=text)
        self._progress.start()
        self._progress.update(self._tasks[label], completed=progress.share, text=text, refresh=True)

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bars."""
        self._progress.stop()


@contextmanager
def bars() -> Iterator[Bars | None]:
    """Yield the bars of one run, and remove them at its end; None if standard output is no terminal, or has JSON.

    Dagster redirects standard output into a file while a table is copied, and a second process copies that file to the
    terminal, late. The bars would be drawn between these lines, so bars and lines go to the terminal directly.
    """
    if not _is_terminal() or terminal.as_json:
        yield None
        return
    with open(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding) as stream:
        shown = Bars(stream)
        terminal.above_bars = shown.print
        try:
            yield shown
        finally:
            terminal.above_bars = None
            shown.close()


def counted(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield items, and show how many of them are done in a bar; no bar if standard output is no terminal.

    Args:
        what: What is done, such as ``verifying``.
    """
    if not _is_terminal() or not terminal.lines:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stdout)
    terminal.above_bars = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    try:
        yield from track(items, what, console=console, transient=True)
    finally:
        terminal.above_bars = None


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
