"""A ``Lake`` that sensor, asset and IO manager fill, as for users."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pg_bronze.defs import io_managers, resources
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness.lake import Lake, Outcome, crash_after
from pg_bronze_tests.harness.project import Project, key, opened, requested

_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class AssetLake(Lake):
    """A ``Lake`` whose ``tick`` is an evaluation of the sensor and a run of the asset.

    A table that is failing after a crash is materialized as by a person, and so is a table in ``drain``, because
    counters may change late.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project.database, project.bucket.store())
        self.project = project
        self.loaded = self.manual = False

    def tick(self, table: str = "movie", *, crash_at: str | Callable[[str], None] | None = None, **options):
        """Evaluate the sensor and run the table if it is due; ``options`` are settings by their names."""
        on_step = crash_after(crash_at) if isinstance(crash_at, str) else crash_at
        options.pop("bands", None)  # those of the project's settings
        if not self.loaded:
            self.project.reload()
            self.loaded = True
        with self.project.monkeypatch.context() as patch:
            for name, value in options.items():
                patch.setenv(f"PG_BRONZE_{name.upper()}", str(value))
            if on_step is not None:
                patch.setattr(resources, "TableSync", functools.partial(TableSync, on_step=on_step))
                patch.setattr(io_managers, "SliceWriter", functools.partial(SliceWriter, on_step=on_step))
            data = self.project.evaluate()
            failing = "failing" in (data.skip_message or "")
            if self.manual or on_step is not None or failing or any(table in tables for tables in requested(data)):
                return self._run(table)
            return Outcome(quiet=data.skip_message, watermark=self.recorded.get(table))

    def _run(self, table: str) -> Outcome:
        try:
            result = self.project.copy(table, raise_on_error=True, run_config=_SILENT)
        except dg.Failure as failure:
            if isinstance(failure.__cause__, PgBronzeError):
                raise failure.__cause__ from failure
            raise
        self.recorded[table] = watermark = self.project.watermark(table)
        wrote = any(event.is_step_materialization for event in result.all_events)
        return Outcome(quiet=None if wrote else "nothing new", watermark=watermark)

    def drain(self, table: str = "movie", **options) -> list[Outcome]:
        self.manual = True
        try:
            return super().drain(table, **options)
        finally:
            self.manual = False

    def forget(self, table: str = "movie") -> None:
        """Wipe the asset, as the button in the UI does."""
        super().forget(table)
        self.project.instance.wipe_assets([key(table)])


@contextmanager
def lake_of(database: Any, bucket: Any, folder: Path, through: str) -> Iterator[Lake]:
    """Yield a lake that the ``copier`` fills, or that is filled ``through`` the ``assets``."""
    if through == "copier":
        yield Lake(database, bucket.store())
        return
    with asset_lake(database, bucket, folder) as lake:
        yield lake


@contextmanager
def asset_lake(database: Any, bucket: Any, folder: Path) -> Iterator[AssetLake]:
    """Yield a lake with a separate project, whose Dagster storage is in ``folder``. The first tick loads it.

    The sensor's log lines are not printed, because hundreds of ticks would fill the terminal.
    """
    with pytest.MonkeyPatch.context() as patch, opened(database, bucket, folder, patch) as project:
        console = "dagster._core.definitions.instigation_logger.create_console_logger"
        patch.setattr(console, lambda name, _level: logging.getLogger(f"{__name__}.{name}"))
        yield AssetLake(project)
