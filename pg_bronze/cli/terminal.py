"""The terminal: the lines that commands print, and errors as sentences."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import typer

from pg_bronze.errors import PgBronzeError

_RETRIES = {
    "It is retried at the next tick": "Run the command again to retry it",
    "It is retried after the fix": "Run the command again after the fix",
    "Retried after the fix": "Run the command again after the fix",
}


class Terminal:
    """Standard output and standard error of this process. No copy fails because a line cannot be printed.

    Attributes:
        lasting: The command runs until Ctrl-C and retries what failed: every line begins with the time.
        as_json: Every line is a JSON object with time, level and message; ``PG_BRONZE_LOG=json``.
        is_read: False after the reader of standard output has gone, as in ``pg-bronze tick | head -1``.
        above_bars: Prints a line of standard output while progress bars are shown; None without them.
        lines: Whether ``print`` prints. A command that prints one JSON document prints no lines.
    """

    def __init__(self) -> None:
        self.lasting = False
        self.as_json = False
        self.is_read = True
        self.above_bars: Callable[[str], None] | None = None
        self.lines = True

    def print(self, text: str) -> None:
        """Print a line on standard output, unless the command prints a document instead of lines."""
        if self.lines:
            self._out(text)

    def document(self, data: Any) -> None:
        """Print one JSON document on standard output, which ``PG_BRONZE_LOG`` does not change."""
        self._out(json.dumps(data, indent=2, ensure_ascii=False), is_line=False)

    def _out(self, text: str, is_line: bool = True) -> None:
        if (error := self._write(sys.stdout, text, is_line)) is None:
            return
        self.is_read = not isinstance(error, BrokenPipeError)
        if self.is_read:
            self.complain(
                f"standard output cannot be written ({error.strerror}). Tables are copied, and their lines are lost."
            )

    def complain(self, sentence: str) -> None:
        """Print a sentence on standard error, with what is true of a command that ends."""
        self._write(sys.stderr, sentence if self.lasting else of_a_command(sentence))

    def _write(self, stream: TextIO | None, text: str, is_line: bool = True) -> OSError | None:
        """Print a text at once; otherwise a pipe or the journal shows it some batches later."""
        if stream is None:  # it was closed when the process started
            return None
        line = self._line(text, "error" if stream is sys.stderr else "info") if is_line else text
        # A table may have a name that the terminal's encoding lacks.
        encoding = stream.encoding or "utf-8"
        line = line.encode(encoding, "backslashreplace").decode(encoding)
        try:
            if self.above_bars is not None and stream is sys.stdout:
                self.above_bars(line)
            else:
                print(line, file=stream, flush=True)
        except OSError as error:
            _discard(stream)
            return error
        return None

    def _line(self, text: str, level: str) -> str:
        now = datetime.now(UTC)
        if self.as_json:
            time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            return json.dumps({"time": time, "level": level, "message": text})
        text = f"pg-bronze: {text}" if level == "error" else text
        return f"{now:%Y-%m-%d %H:%M:%S} UTC  {text}" if self.lasting else text


def _discard(stream: TextIO) -> None:
    """Connect a stream to nothing: its buffer still has the line, and is written again when the process ends."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


def of_a_command(sentence: str) -> str:
    """Return a sentence about a retry as it is true of a command that ends."""
    for of_a_tick, instead in _RETRIES.items():
        sentence = sentence.replace(of_a_tick, instead)
    return sentence


terminal = Terminal()


@contextmanager
def errors_as_sentences(as_json: bool = False) -> Iterator[None]:
    """Print an error of pg_bronze as one sentence instead of a traceback, and exit with 1.

    Args:
        as_json: Standard output gets one JSON document and no lines; of an error, it is the error.
    """
    terminal.lines = not as_json
    try:
        yield
    except PgBronzeError as error:
        terminal.complain(str(error))
        if as_json:
            terminal.document({"error": {"sentence": of_a_command(str(error)), "retry": error.retry}})
        raise typer.Exit(1) from error
    finally:
        terminal.lines = True
