"""The operating-system user that PostgreSQL's programs run as, and which folders that user can enter.

PostgreSQL refuses to run as root. The mode of an existing folder is never changed: files in a folder that the user
cannot enter are copied or placed elsewhere.
"""

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pg_bronze.errors import SettingsError

# Both are world-writable by design. A folder in them is used again only if is_private() holds for it.
_TEMPORARY = ("/var/tmp", "/tmp")  # noqa: S108  (see above)


class PopenUser(TypedDict, total=False):
    """The arguments of subprocess that select the user a program runs as."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class OsUser:
    """An unprivileged user, to run programs as while this process runs as root."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Return whether the user can enter the folder, which requires access to all of its parents."""
        return run(["/bin/sh", "-c", 'cd -- "$0"', str(folder)], self).returncode == 0


def unprivileged_user() -> OsUser | None:
    """Return the user to run PostgreSQL as: None, meaning the current one, unless this process runs as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return OsUser(name, entry.pw_uid, entry.pw_gid)
    raise SettingsError("PostgreSQL does not run as root, and there is no user postgres or nobody. Create one of them.")


def run_as(user: OsUser | None) -> PopenUser:
    """Return the arguments that make subprocess run a program as the user, without supplementary groups."""
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def run(command: list[str], user: OsUser | None) -> "subprocess.CompletedProcess[str]":
    """Run a short command as the user and return its result; the exit code is 126 if the user may not execute it."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=clean_environment(),
            check=False,
            **run_as(user),
        )
    except PermissionError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))


def clean_environment() -> dict[str, str]:
    """Return an environment without the user's locale, ``PG*`` and dynamic-linker variables."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def temporary_folder(user: OsUser, *, persistent: bool) -> Path:
    """Return a folder for temporary files that the user can enter; a ``persistent`` one is kept over a reboot."""
    choices = _TEMPORARY if persistent else (tempfile.gettempdir(), *reversed(_TEMPORARY))
    for choice in map(Path, choices):
        if choice.is_dir() and user.can_enter(choice):
            return choice
    raise SettingsError(f"the user {user.name} can enter none of {', '.join(choices)}. Set TMPDIR to a folder it can.")


def is_private(folder: Path) -> bool:
    """Return whether this is a real folder, owned by the current user, that no other user can write to."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return folder.is_dir() and not folder.is_symlink() and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def change_owner(path: Path, user: OsUser | None) -> None:
    """Make the user the owner of one file or folder, not of its parents or contents."""
    if user is not None:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
