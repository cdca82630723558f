"""The lake of the servers' tests, filled as users fill it: the sensor looks, and a run of the asset writes."""

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
from pg_bronze_tests.harness.project import Project, asked, key, opened

_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class AssetLake(Lake):
    """A ``Lake`` whose tick is Dagster's: sensor, asset, IO manager, event, mirror, and what each has kept of it.

    A table that the sensor holds back after a crash is materialized as by hand, and so is one that is ``drain``ed:
    counters may come late.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project.database, project.bucket.store())
        self.project = project
        self.loaded = self.by_hand = False

    def tick(self, table: str = "movie", *, crash_at: str | Callable[[str], None] | None = None, **options):
        """One look of the sensor, and the run it asks for, if it does; ``options`` are settings by their names."""
        on_step = crash_after(crash_at) if isinstance(crash_at, str) else crash_at
        if not self.loaded:
            self.project.reload()
            self.loaded = True
        with self.project.monkeypatch.context() as patch:
            for name, value in options.items():
                patch.setenv(f"PG_BRONZE_{name.upper()}", str(value))
            if on_step is not None:
                patch.setattr(resources, "TableSync", functools.partial(TableSync, on_step=on_step))
                patch.setattr(io_managers, "SliceWriter", functools.partial(SliceWriter, on_step=on_step))
            look = self.project.look()
            held_back = "failing" in (look.skip_message or "")
            if self.by_hand or on_step is not None or held_back or any(table in tables for tables in asked(look)):
                return self._run(table)
            return Outcome(quiet=look.skip_message, watermark=self.recorded.get(table))

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
        self.by_hand = True
        try:
            return super().drain(table, **options)
        finally:
            self.by_hand = False

    def forget(self, table: str = "movie") -> None:
        """Wipe the asset, as the UI's button does."""
        super().forget(table)
        self.project.instance.wipe_assets([key(table)])


@contextmanager
def lake_of(database: Any, bucket: Any, folder: Path, through: str) -> Iterator[Lake]:
    """A lake filled by the ``copier`` alone, or ``through`` the ``assets``."""
    if through == "copier":
        yield Lake(database, bucket.store())
        return
    with asset_lake(database, bucket, folder) as lake:
        yield lake


@contextmanager
def asset_lake(database: Any, bucket: Any, folder: Path) -> Iterator[AssetLake]:
    """A project of its own, whose Dagster keeps what it knows in ``folder``; loaded at the first tick.

    Hundreds of ticks would fill the terminal with what each of them looked at; Dagster keeps it all the same.
    """
    with pytest.MonkeyPatch.context() as patch, opened(database, bucket, folder, patch) as project:
        console = "dagster._core.definitions.instigation_logger.create_console_logger"
        patch.setattr(console, lambda name, _level: logging.getLogger(f"{__name__}.{name}"))
        yield AssetLake(project)
