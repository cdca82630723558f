"""What ``dagster dev`` is started with: whose servers, which variables, which folder for Dagster's own storage.

``PG_DB`` or ``MINIO_BUCKET``, in the environment or in ``.env``, say that the user's own database or bucket is meant;
then everything about it is left as it is. Otherwise what the user has set about others must not leak in.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pg_bronze.errors import SettingsError
from pg_bronze.settings.project import Project

BUCKET = "meteo-bronze"
# In a shell that read env.sh: which of its variables are a demo's, and not the user's own servers.
_OURS = "PGBRONZE_DEMO_VARIABLES"
_DEMO_ONLY = ("PG_BRONZE_PG_BINDIR", "PG_BRONZE_MINIO_BIN")


@dataclass(frozen=True)
class Surroundings:
    """The user's variables, ``.env`` included, and what they say about whose servers are used."""

    variables: Mapping[str, str]

    @property
    def own_postgres(self) -> bool:
        """Whether a PostgreSQL of ours is wanted."""
        return not self.variables.get("PG_DB")

    @property
    def own_s3(self) -> bool:
        """Whether an S3 server of ours is wanted."""
        return not self.variables.get("MINIO_BUCKET")


def look_around(folders: tuple[Path, ...]) -> Surroundings:
    """Read the environment and the ``.env`` files of the folders; the environment wins, then the first folder."""
    from dotenv import dotenv_values

    variables: dict[str, str] = {}
    for folder in reversed(folders):
        found = dotenv_values(folder / ".env", interpolate=False)
        variables |= {name: value for name, value in found.items() if value is not None}
    # A demo started in a shell that read the env.sh of one before would take that one's dead servers for the user's.
    ours = {_OURS, *os.environ.get(_OURS, "").split()}
    return Surroundings(variables | {name: value for name, value in os.environ.items() if name not in ours})


def for_dagster(
    surroundings: Surroundings, project: Project, home: Path, postgres: Mapping[str, str], s3: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment for ``dagster dev``; ``postgres`` and ``s3`` are empty where the user's own are used."""
    variables = {name: value for name, value in surroundings.variables.items() if name not in _DEMO_ONLY}
    if postgres:
        # PG_* are the project's, PGHOST and its like are libpq's.
        variables = _without(variables, r"PG(?!_BRONZE_).*") | dict(postgres)
    if s3:
        variables = _without(variables, r"AWS_.*|MINIO_.*") | dict(s3)
        # A proxy for the loopback address would find nothing there.
        for name in ("NO_PROXY", "no_proxy"):
            variables[name] = ",".join(filter(None, (variables.get(name, ""), "127.0.0.1", "localhost")))
    variables["DAGSTER_HOME"] = str(home)
    if not project.has_defaults:
        path = (str(project.folder), variables.get("PYTHONPATH", ""))
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    # That `dagster dev` has a successor helps nobody here. Python compares the beginning of the warning's text.
    quiet = "ignore:Function `dev_command` is superseded"
    variables["PYTHONWARNINGS"] = ",".join(filter(None, (variables.get("PYTHONWARNINGS", ""), quiet)))
    # Lines reach the log when they are written.
    return variables | {"PYTHONUNBUFFERED": "1"}


def _without(variables: Mapping[str, str], pattern: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if not re.fullmatch(pattern, name)}


def dagster_home(surroundings: Surroundings, state_dir: Path, project: Project) -> tuple[Path, Path]:
    """Return Dagster's home and the folder to start it in; the user's home if there is one, else one in ``state_dir``.

    Ours is a copy of the project's dagster.yaml, with the paths in it made absolute: every command that is given this
    home then finds the same storage, wherever it is started. It is also where Dagster is started, because a ``.env``
    in that folder would win over the environment.
    """
    if chosen := surroundings.variables.get("DAGSTER_HOME"):
        if not Path(chosen).is_dir():
            raise SettingsError(f"DAGSTER_HOME is {chosen}, which is no folder. Make it, or unset DAGSTER_HOME.")
        return Path(chosen).absolute(), project.folder
    # Watermarks of the sample database mean nothing for tables of the same name in somebody's own.
    sample = surroundings.own_postgres and surroundings.own_s3
    home = state_dir / ("dagster_home" if sample else "dagster_home_yours")
    home.mkdir(exist_ok=True)
    text = (project.config_dir / "dagster.yaml").read_text(encoding="utf-8")
    (home / "dagster.yaml").write_text(absolute(text, home), encoding="utf-8")
    return home, home


def absolute(text: str, home: Path) -> str:
    """Replace the relative ``base_dir`` values of a dagster.yaml by folders in ``home``."""

    def replace(found: re.Match[str]) -> str:
        return found[1] + json.dumps(str(home / found[3]))

    return re.sub(r"""(?m)^([^\S\n]*base_dir:[^\S\n]+)(["']?)([^\s/"'{#][^"'\n#]*?)\2[^\S\n]*$""", replace, text)


def write_shell_file(file: Path, variables: Mapping[str, str]) -> None:
    """Write variables for ``. FILE``, readable for the user alone, because there are passwords among them."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
        for name, value in {**variables, _OURS: " ".join(variables)}.items():
            quoted = value.replace("'", "'\\''")
            output.write(f"export {name}='{quoted}'\n")
