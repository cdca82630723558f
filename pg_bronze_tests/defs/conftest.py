"""A project in one process: a new database, a new bucket, an ephemeral Dagster instance, and no `.env`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bronze_tests.harness.project import MOVIES, Project, opened


@pytest.fixture
def project(database, bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose definitions are not loaded yet: create tables, then call ``reload()``."""
    with opened(database, bucket, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def cinema(project: Project) -> Project:
    """The project with two small tables, loaded. ``movie`` has a cursor column of type timestamptz."""
    project.database.execute(MOVIES)
    project.reload()
    return project
