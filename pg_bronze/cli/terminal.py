"""What every command prints: one sentence for each error, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pg_bronze.errors import PgBronzeError


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """One sentence instead of a traceback for everything an operator can act on."""
    try:
        yield
    except PgBronzeError as error:
        print(f"pg-bronze: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
