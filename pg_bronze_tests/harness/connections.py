"""Counts the connections of SQLAlchemy, with which Dagster opens its storage."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event


@contextmanager
def counted_connections() -> Iterator[list[object]]:
    """Count the connections that SQLAlchemy opens."""
    opened: list[object] = []

    def note(connection: object, _record: object) -> None:
        opened.append(connection)

    event.listen(Engine, "connect", note)
    try:
        yield opened
    finally:
        event.remove(Engine, "connect", note)
