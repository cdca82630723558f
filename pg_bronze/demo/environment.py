"""The environment of ``dagster dev``: its variables, and the folder of Dagster's state.

``PG_DB`` or ``MINIO_BUCKET``, in the environment or in ``.env``, select a database or bucket of the user. All variables
for it are then passed on unchanged. For a server of the demo, the variables of the user for other servers are removed.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pg_bronze.errors import SettingsError
from pg_bronze.settings.config_file import NAME
from pg_bronze.settings.project import Project

BUCKET = "meteo-bronze"
# In a shell that has read env.sh: the names of the variables that came from a demo and not from the user.
_DEMO_VARIABLES = "PGBRONZE_DEMO_VARIABLES"
_CONFIG = "PG_BRONZE_CONFIG"
_DEMO_ONLY = ("PG_BRONZE_PG_BINDIR", "PG_BRONZE_MINIO_BIN")


@dataclass(frozen=True)
class Environment:
    """The variables of the user, including those in ``.env``, and which servers they select."""

    variables: Mapping[str, str]

    @property
    def needs_postgres(self) -> bool:
        """Whether the demo has to start a PostgreSQL server."""
        return not self.variables.get("PG_DB")

    @property
    def needs_s3(self) -> bool:
        """Whether the demo has to start an S3 server."""
        return not self.variables.get("MINIO_BUCKET")

    @property
    def risk(self) -> str | None:
        """What an incomplete configuration would copy to the wrong place; None if there is no such risk."""
        if not self.needs_postgres and self.needs_s3:
            return (
                f"PG_DB is set and MINIO_BUCKET is not: the demo would copy the database {self.variables['PG_DB']} to "
                "a local S3 server whose files every user of this machine can read."
            )
        if self.needs_postgres and not self.needs_s3:
            return (
                "MINIO_BUCKET is set and PG_DB is not: the demo would write sample data to the bucket "
                f"{self.variables['MINIO_BUCKET']}."
            )
        return None


def read_environment(folders: tuple[Path, ...]) -> Environment:
    """Read the environment and the ``.env`` files of the folders. The environment wins, then the first folder."""
    from dotenv import dotenv_values

    variables: dict[str, str] = {}
    for folder in reversed(folders):
        values = dotenv_values(folder / ".env", interpolate=False)
        variables |= {name: value for name, value in values.items() if value is not None}
    # In a shell that has read the env.sh of an earlier demo, they would select the servers of that one.
    ignored = {_DEMO_VARIABLES, *os.environ.get(_DEMO_VARIABLES, "").split()}
    variables |= {name: value for name, value in os.environ.items() if name not in ignored}
    found = Environment(variables)
    config = variables.get(_CONFIG) or _config_file(folders)
    # `dagster dev` runs in another folder, and without the file it would copy columns of the user that are masked.
    return found if found.needs_postgres or not config else Environment({**variables, _CONFIG: os.path.abspath(config)})


def _config_file(folders: tuple[Path, ...]) -> str | None:
    return next((str(file) for folder in folders if (file := folder / NAME).exists()), None)


def dagster_variables(
    environment: Environment, project: Project, home: Path, postgres: Mapping[str, str], s3: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables for ``dagster dev``.

    Args:
        environment: The environment of the user.
        project: Where the code location is loaded from.
        home: The value of ``DAGSTER_HOME``.
        postgres: The variables of the demo's PostgreSQL server; empty if there is none.
        s3: The variables of the demo's S3 server; empty if there is none.
    """
    variables = {name: value for name, value in environment.variables.items() if name not in _DEMO_ONLY}
    if postgres:
        # PG_* are variables of pg_bronze, PGHOST and the like of libpq.
        variables = _without(variables, r"PG(?!_BRONZE_).*") | dict(postgres)
    if s3:
        variables = _without(variables, r"AWS_.*|MINIO_.*") | dict(s3)
        # A proxy cannot reach the loopback address of this machine.
        for name in ("NO_PROXY", "no_proxy"):
            variables[name] = ",".join(filter(None, (variables.get(name, ""), "127.0.0.1", "localhost")))
    variables["DAGSTER_HOME"] = str(home)
    if not project.has_defaults:
        path = (str(project.folder), variables.get("PYTHONPATH", ""))
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    # `dagster dev` warns that another command supersedes it. Python compares the beginning of the text.
    superseded = "ignore:Function `dev_command` is superseded"
    variables["PYTHONWARNINGS"] = ",".join(filter(None, (variables.get("PYTHONWARNINGS", ""), superseded)))
    # The demo prints slices from the log, which would otherwise be written in blocks.
    return variables | {"PYTHONUNBUFFERED": "1"}


def _without(variables: Mapping[str, str], pattern: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if not re.fullmatch(pattern, name)}


def dagster_home(environment: Environment, state_dir: Path, project: Project) -> tuple[Path, Path]:
    """Return Dagster's home and the working directory of ``dagster dev``.

    The home is the ``DAGSTER_HOME`` of the user, or a folder in ``state_dir``. The latter contains the project's
    dagster.yaml with absolute paths, so that every command with this home uses the same storage. It is also the working
    directory, because Dagster prefers a ``.env`` there to the environment.
    """
    if chosen := environment.variables.get("DAGSTER_HOME"):
        folder = Path(os.path.expanduser(chosen))
        if not folder.is_dir():
            raise SettingsError(f"DAGSTER_HOME is {chosen}, which is not a folder. Create it, or unset DAGSTER_HOME.")
        return folder.absolute(), project.folder
    # The watermarks of the sample database do not belong to tables of the same name in the user's database.
    is_sample = environment.needs_postgres and environment.needs_s3
    home = state_dir / ("dagster_home" if is_sample else "dagster_home_yours")
    home.mkdir(exist_ok=True)
    text = (project.config_dir / "dagster.yaml").read_text(encoding="utf-8")
    (home / "dagster.yaml").write_text(with_absolute_paths(text, home), encoding="utf-8")
    return home, home


def with_absolute_paths(text: str, home: Path) -> str:
    """Return a dagster.yaml in which the relative ``base_dir`` values are folders in ``home``."""

    def replace(match: re.Match[str]) -> str:
        return match[1] + json.dumps(str(home / match[3]))

    return re.sub(r"""(?m)^([^\S\n]*base_dir:[^\S\n]+)(["']?)([^\s/"'{#][^"'\n#]*?)\2[^\S\n]*$""", replace, text)


def write_shell_file(file: Path, variables: Mapping[str, str]) -> None:
    """Write a file for ``. FILE`` that exports the variables. Only the user can read it, because it has passwords."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
        for name, value in {**variables, _DEMO_VARIABLES: " ".join(variables)}.items():
            quoted = value.replace("'", "'\\''")
            output.write(f"export {name}='{quoted}'\n")
