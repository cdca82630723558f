"""Dagster's storage without Alembic and the daemon: what is left out is imported when it is used."""

import subprocess
import sys
from pathlib import Path

IMPORT = """
import sys
from pg_bronze.cli.storage_imports import import_storage
import_storage()
"""
# Opens a storage in a new folder: Dagster creates its tables, and records which migrations they contain.
CREATED = """
import dagster as dg
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
storage = SqliteRunStorage.from_local(sys.argv[1])
print(*storage.alembic_version(), "alembic" in sys.modules)
"""


def python(code: str, folder: Path) -> str:
    """Return what a new Python process prints."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_new_storage_has_the_newest_version_although_alembic_was_left_out(tmp_path: Path):
    """Without it, Dagster would demand a migration of each new storage."""
    recorded, newest, imported = python(IMPORT + CREATED, tmp_path).split()

    assert recorded == newest
    assert imported == "True"


def test_what_was_left_out_can_be_imported_completely_afterwards(tmp_path: Path):
    code = (
        "left_out = {'alembic', 'dagster._daemon'} - set(sys.modules)\n"
        "import alembic.command, dagster._daemon, dagster._daemon.types\n"
        "from dagster._core.storage.runs.base import DaemonHeartbeat\n"
        "assert dagster._daemon.DaemonHeartbeat is DaemonHeartbeat\n"
        "assert callable(alembic.command.stamp) and callable(dagster._daemon.get_daemon_statuses)\n"
        "print(*sorted(left_out))"
    )

    assert python(IMPORT + code, tmp_path) == "alembic dagster._daemon"


def test_a_dagster_that_needs_more_of_it_imports_all_of_it(tmp_path: Path):
    """A newer version may use a name while its modules are imported."""
    code = (
        "import sys\n"
        "from pg_bronze.cli import storage_imports\n"
        "storage_imports._DeferredModule.__getattr__ = lambda self, name: (_ for _ in ()).throw(AttributeError(name))\n"
        "storage_imports.import_storage()\n"
        "from dagster._core.storage import base_storage\n"
        "import alembic.command\n"
        "from dagster._core.storage import sql\n"
        "print(sql.stamp is alembic.command.stamp)"
    )

    assert python(code, tmp_path) == "True"
