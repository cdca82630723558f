"""The creation of a PostgreSQL database cluster with initdb."""

import shutil
import subprocess
from pathlib import Path

from pg_bronze.demo.binaries import Binaries
from pg_bronze.demo.os_user import OsUser, change_owner, clean_environment, run_as
from pg_bronze.errors import SourceUnavailable


def create_cluster(programs: Binaries, place: Path, user: OsUser | None, superuser: str, password: str) -> Path:
    """Create a cluster that ``user`` owns, and return its folder, which is to be renamed once it is complete."""
    draft, password_file = place / "data.new", place / "password.new"
    shutil.rmtree(draft, ignore_errors=True)
    password_file.unlink(missing_ok=True)
    draft.mkdir(mode=0o700)
    password_file.touch(mode=0o600)
    password_file.write_text(password, encoding="utf-8")
    for path in (draft, password_file):
        change_owner(path, user)
    # initdb fails with a locale that is not installed, so it uses none of the system's.
    locale = ["--locale=C"]
    if programs.major >= 17:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    login = ["-U", superuser, f"--pwfile={password_file}", "-A", "scram-sha-256"]
    done = subprocess.run(
        [programs / "initdb", *login, "-D", str(draft), "-E", "UTF8", *locale, "--no-sync", "--no-instructions"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=place,
        env=clean_environment(),
        check=False,
        **run_as(user),
    )
    password_file.unlink(missing_ok=True)
    if done.returncode != 0:
        raise SourceUnavailable(f"initdb failed: {done.stderr.strip()[-600:]}")
    return draft
