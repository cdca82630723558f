from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bronze.demo.postgres import PostgresServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that has not been started; removed with its data afterwards, wherever that is stored."""
    new = PostgresServer(tmp_path / "a folder with spaces", options={"fsync": "off"})
    yield new
    new.remove()
