"""The folder of a server's files: the requested one, or another where the server's user cannot enter that.

A project under /root is the usual case. Its database is then stored in a folder under /var/tmp that root owns, and the
requested folder records its path. The next data folder that has to be placed there removes unreferenced ones.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

from pg_bronze.demo.os_user import OsUser, is_private, temporary_folder

_POINTER, _BACK_POINTER = "location", "belongs-to"
_PREFIX = "pg_bronze-data-"


def open_data_dir(requested: Path, user: OsUser | None) -> Path:
    """Return the folder that stores the files of ``requested``, and create it if it is missing."""
    requested.mkdir(parents=True, exist_ok=True)
    pointer = requested / _POINTER
    with contextlib.suppress(FileNotFoundError):
        recorded = Path(pointer.read_text(encoding="utf-8").strip())
        if is_private(recorded):
            return recorded
    if user is None or user.can_enter(requested):
        return requested
    shared = temporary_folder(user, persistent=True)
    _remove_unreferenced(shared)
    actual = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=shared))
    actual.chmod(0o711)
    # In this order: a folder whose owner does not point back to it is removed as unreferenced.
    pointer.write_text(str(actual), encoding="utf-8")
    (actual / _BACK_POINTER).write_text(str(requested.absolute()), encoding="utf-8")
    return actual


def remove_data_dir(requested: Path) -> None:
    """Delete the folder and the one it points to."""
    with contextlib.suppress(FileNotFoundError):
        actual = Path((requested / _POINTER).read_text(encoding="utf-8").strip())
        if is_private(actual):
            shutil.rmtree(actual)
    shutil.rmtree(requested, ignore_errors=True)


def _remove_unreferenced(shared: Path) -> None:
    for folder in shared.glob(f"{_PREFIX}*"):
        if not is_private(folder):
            continue
        with contextlib.suppress(FileNotFoundError):
            requested = Path((folder / _BACK_POINTER).read_text(encoding="utf-8"))
            pointer = requested / _POINTER
            if not pointer.is_file() or pointer.read_text(encoding="utf-8").strip() != str(folder):
                shutil.rmtree(folder, ignore_errors=True)
