"""TODO cli.instance."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import dagster_home

if TYPE_CHECKING:
    import dagster as dg


def project_root() -> Path:
    """The folder that holds workspace.yaml: above the current one, or where this package lies."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "workspace.yaml").is_file() and (folder / "dagster.yaml").is_file():
            return folder
    return here


@contextmanager
def open_instance() -> "Iterator[dg.DagsterInstance]":
    """The instance that `dagster dev` in the project root uses: DAGSTER_HOME, or the project's dagster.yaml."""
    import dagster as dg

    # Relative storage folders and .env mean the project's, whatever folder the command was called from.
    root, here = project_root(), Path.cwd()
    if here != root and (here / ".env").exists():
        # Copying the database of another .env than the one in sight would be a silent mistake.
        raise SettingsError(
            f"there is a .env in {here}, and settings are read from {root / '.env'} and the environment. Call "
            "pg-bronze from another folder, or export what that file says."
        )
    os.chdir(root)
    home = dagster_home()
    try:
        opened = dg.DagsterInstance.get() if home else dg.DagsterInstance.from_config(str(project_root()))
    except Exception as error:
        raise SettingsError(_no_instance(error, home or str(project_root()))) from error
    with opened as instance:
        yield instance


def _no_instance(error: Exception, home: str) -> str:
    """Why Dagster's own storage cannot be opened; its drivers' texts may hold a URL and are not repeated."""
    if missing := re.search(r'environment variable "(\w+)" which is not set', str(error)):
        return f"{missing[1]} is not set, and {home}/dagster.yaml takes it from the environment. Set it."
    return (
        f"Dagster's own storage cannot be opened ({type(error).__name__}). Check {home}/dagster.yaml, and if it names "
        "a database, that this is up and reachable."
    )
