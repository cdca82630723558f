"""Errors on the terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pg_bronze.errors import PgBronzeError


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Print an error of pg_bronze as one sentence instead of a traceback, and exit with 1."""
    try:
        yield
    except PgBronzeError as error:
        print(f"pg-bronze: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
