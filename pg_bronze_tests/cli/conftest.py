"""The project of the Dagster tests, for commands that run in this process."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from pg_bronze.cli import batch, opened, scan
from pg_bronze.cli.app import app
from pg_bronze_tests.defs.conftest import cinema, project
from pg_bronze_tests.harness import bucket_pool
from pg_bronze_tests.harness.project import MOVIES, Project
from pg_bronze_tests.harness.project import opened as opened_project
from pg_bronze_tests.harness.servers import fresh_database

__all__ = ["cinema", "copied", "project"]


@dataclass
class Printed:
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document that is all of standard output."""
        return json.loads(self.out)


@dataclass
class Commands:
    """`pg-bronze` in this process, with the Dagster instance of a project."""

    project: Project

    def run(self, *arguments: str, answer: str | None = None, **environment: str) -> Printed:
        done = CliRunner().invoke(app, arguments, input=answer, env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Printed(done.exit_code, done.stdout, done.stderr)


@contextlib.contextmanager
def commands_of(project: Project) -> Iterator[Commands]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (batch, opened):
            patch.setattr(module, "open_instance", lambda: contextlib.nullcontext(project.instance))
        patch.setattr(scan, "enter_project", lambda: None)
        yield Commands(project)


@pytest.fixture(scope="module")
def copied(postgres_server, s3_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A project with two copied tables, for all tests of a module. Each test leaves the tables of the others alone."""
    with (
        bucket_pool.empty_bucket(s3_server) as bucket,
        fresh_database(postgres_server) as database,
        pytest.MonkeyPatch.context() as patch,
        opened_project(database, bucket, tmp_path_factory.mktemp("project"), patch) as project,
        commands_of(project) as commands,
    ):
        database.execute(MOVIES)
        project.set(PG_BRONZE_FORGET_AFTER_H="0.0000001")  # tests drop their tables
        assert commands.run("tick").code == 0
        yield commands


@pytest.fixture
def environment(copied: Commands, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Changes of the environment that end with the test; the module-scoped project has set the rest."""
    return monkeypatch
