from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bronze.demo.postgres import PostgresServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that has not been started; removed with its data afterwards, wherever they lie."""
    made = PostgresServer(tmp_path / "a folder with blanks", options={"fsync": "off"})
    yield made
    made.remove()
