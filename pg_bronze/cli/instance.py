"""The Dagster instance of the command line: where Dagster's state is stored, and how it is opened."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import dagster_home, unused_config
from pg_bronze.settings.project import Project, current_folder, find_project

if TYPE_CHECKING:
    import dagster as dg

# What Dagster has logged in this process while the instance was opened.
_logged: set[str] = set()


@contextmanager
def open_instance() -> "Iterator[dg.DagsterInstance]":
    """Open the instance of ``DAGSTER_HOME``, or the one that the project's ``dagster.yaml`` configures.

    Changes the working directory to the project folder, because ``.env`` and the storage paths in ``dagster.yaml``
    are relative to it. Outside of a project the folder is the current one, and the state is stored in ``.dagster/``.

    Raises:
        SettingsError: The instance cannot be opened, or the current folder has a file of settings that would be
            ignored.
    """
    import dagster as dg

    from pg_bronze.cli.storage_imports import import_storage

    import_storage()
    project = enter_project()
    home = dagster_home()
    config_dir = str(project.config_dir)
    try:
        with _notes_once():
            opened = dg.DagsterInstance.get() if home else dg.DagsterInstance.from_config(config_dir)
    except Exception as error:
        raise SettingsError(_storage_error(error, home or config_dir)) from error
    with opened as instance:
        yield instance


def enter_project() -> Project:
    """Change the working directory to the project folder, as ``open_instance`` does, and return the project.

    Raises:
        SettingsError: The current folder has a file of settings that would be ignored.
    """
    here = current_folder()
    project = find_project(here)
    if here != project.folder:
        _check_folder(here, project.folder)
    os.chdir(project.folder)
    return project


def _check_folder(here: Path, folder: Path) -> None:
    if (here / ".env").exists():
        # Ignoring it would copy another database than the one it names.
        raise SettingsError(
            f"{here / '.env'} would be ignored: settings are read from {folder / '.env'} and the environment. "
            "Run pg-bronze in another folder, or export the variables of that file."
        )
    if file := unused_config(here):
        # Ignoring it would copy columns that it masks.
        raise SettingsError(
            f"{file} would be ignored: it is read from {folder}. Move it there, or set PG_BRONZE_CONFIG to its path."
        )


@contextmanager
def _notes_once() -> Iterator[None]:
    """Let Dagster log each text once in this process, such as that ``DAGSTER_HOME`` has no ``dagster.yaml``.

    `pg-bronze run` opens the instance in every batch.
    """
    logger = logging.getLogger("dagster")
    logger.addFilter(_is_new)
    try:
        yield
    finally:
        logger.removeFilter(_is_new)


def _is_new(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    known = text in _logged
    _logged.add(text)
    return not known


def _storage_error(error: Exception, config_dir: str) -> str:
    """Return why Dagster's storage cannot be opened. Texts of database drivers may contain a URL and are left out."""
    if missing := re.search(r'environment variable "(\w+)" which is not set', str(error)):
        return f"{missing[1]} is not set, and {config_dir}/dagster.yaml reads it from the environment. Set it."
    return (
        f"Dagster's own storage cannot be opened ({type(error).__name__}). Check {config_dir}/dagster.yaml, and if it "
        "names a database, that the database is running and reachable."
    )
