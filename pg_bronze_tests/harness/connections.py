"""Counts the connections of SQLAlchemy, with which Dagster opens its storage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Dialect, Engine, event


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


def asked_tables(monkeypatch: pytest.MonkeyPatch, dialect: type[Dialect]) -> set[str]:
    """Return the names of the tables that SQLAlchemy asks the database about from now on."""
    asked: set[str] = set()

    def noted(name: str) -> Any:
        original = getattr(dialect, name)

        def ask(self: Dialect, connection: Any, table_name: str, *args: Any, **kwargs: Any) -> Any:
            asked.add(table_name)
            return original(self, connection, table_name, *args, **kwargs)

        return ask

    for name in ("has_table", "get_columns"):
        monkeypatch.setattr(dialect, name, noted(name))
    return asked
