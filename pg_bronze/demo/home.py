"""Where a server's files live: in the folder that was asked for, or, if the account cannot get there, elsewhere.

A project under /root is the usual reason: its database then lives in a folder of root's own under /var/tmp, and the
asked-for folder remembers which. Folders that nobody remembers are removed by the next one to need such a place.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from pg_bronze.demo.account import Account, is_ours, reachable_temporary

_POINTER, _BACK_POINTER = "location", "belongs-to"
_PREFIX = "pg_bronze-data-"


def open_home(asked: Path, account: Account | None) -> Path:
    """Return the folder to keep files in for ``asked``: itself, or one the account can enter; made if needed."""
    asked.mkdir(parents=True, exist_ok=True)
    pointer = asked / _POINTER
    with contextlib.suppress(FileNotFoundError):
        remembered = Path(pointer.read_text(encoding="utf-8").strip())
        if is_ours(remembered):
            return remembered
    if account is None or account.can_enter(asked):
        return asked
    _remove_orphans(reachable_temporary(account, lasting=True))
    elsewhere = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=reachable_temporary(account, lasting=True)))
    elsewhere.chmod(0o711)
    # In this order: a folder that names an owner which does not name it back is an orphan.
    pointer.write_text(str(elsewhere), encoding="utf-8")
    (elsewhere / _BACK_POINTER).write_text(str(asked.absolute()), encoding="utf-8")
    return elsewhere


def remove(asked: Path) -> None:
    """Delete the folder and the one it points to."""
    with contextlib.suppress(FileNotFoundError):
        elsewhere = Path((asked / _POINTER).read_text(encoding="utf-8").strip())
        if is_ours(elsewhere):
            shutil.rmtree(elsewhere)
    shutil.rmtree(asked, ignore_errors=True)


def _remove_orphans(shared: Path) -> None:
    for folder in shared.glob(f"{_PREFIX}*"):
        if not is_ours(folder):
            continue
        with contextlib.suppress(FileNotFoundError):
            owner = Path((folder / _BACK_POINTER).read_text(encoding="utf-8"))
            pointer = owner / _POINTER
            if not pointer.is_file() or pointer.read_text(encoding="utf-8").strip() != str(folder):
                shutil.rmtree(folder, ignore_errors=True)


def hand_over(path: Path, account: Account | None) -> None:
    """Make the account the owner of one file or folder of ours, and of nothing above it."""
    if account is not None:
        os.chown(path, *account.owner, follow_symlinks=False)
