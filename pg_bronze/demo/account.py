"""The account that PostgreSQL's programs run as, and what that account can reach.

PostgreSQL refuses to run as root. No folder's mode is ever changed to make it reachable: what the account cannot enter
is copied or placed where it can.
"""

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pg_bronze.demo.processes import as_owner
from pg_bronze.errors import SettingsError

# Both are world-writable by design: what is made in them is owned by us and checked before it is used again.
_TEMPORARY = ("/var/tmp", "/tmp")  # noqa: S108  (see above)


@dataclass(frozen=True)
class Account:
    """An unprivileged account, to run programs as when we are root."""

    name: str
    owner: tuple[int, int]

    def can_enter(self, folder: Path) -> bool:
        """Tell whether the account can enter the folder, which takes all its ancestors to let it pass."""
        command = ["/bin/sh", "-c", 'cd -- "$0"', str(folder)]
        return run(command, self).returncode == 0


def unprivileged() -> Account | None:
    """Return whom to run as: None for ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, (entry.pw_uid, entry.pw_gid))
    raise SettingsError("PostgreSQL does not run as root, and there is no account postgres or nobody. Add one.")


def run(command: list[str], account: Account | None) -> "subprocess.CompletedProcess[str]":
    """Run a short command as the account and return what it said; 126 if the account may not execute it."""
    owner = account.owner if account else None
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=clean_environment(),
            check=False,
            **as_owner(owner),
        )
    except PermissionError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))


def clean_environment() -> dict[str, str]:
    """Return an environment in which no locale, PG* or dynamic-linker setting of the user's matters."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def reachable_temporary(account: Account, *, lasting: bool) -> Path:
    """Return a folder for temporary things that the account can enter; ``lasting`` means they outlive a reboot."""
    choices = _TEMPORARY if lasting else (tempfile.gettempdir(), *reversed(_TEMPORARY))
    for choice in map(Path, choices):
        if choice.is_dir() and account.can_enter(choice):
            return choice
    raise SettingsError(f"the account {account.name} can enter none of {', '.join(choices)}. Set TMPDIR to one it can.")


def is_ours(folder: Path) -> bool:
    """Tell whether this is a real folder of ours that nobody else can write to."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return folder.is_dir() and not folder.is_symlink() and status.st_uid == os.geteuid() and not status.st_mode & 0o022
