"""Loading: the settings from the environment, ``.env``, ``pg_bronze.toml`` and the ``mc`` client's configuration."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pg_bronze.errors import SettingsError
from pg_bronze.settings.config_file import NAME, ConfigFile, read_config
from pg_bronze.settings.env_file import read_env_file
from pg_bronze.settings.files import absolute
from pg_bronze.settings.mc_alias import EXPLICIT, server, without_overridden_server
from pg_bronze.settings.model import FIELDS, SECRET_NAMES, Settings
from pg_bronze.settings.problems import (
    invalid_values,
    library_variables,
    one_error,
    shown,
    unknown_names,
    unreadable_values,
    without_service_variables,
)
from pg_bronze.settings.project import current_folder, find_project

NOTHING_SET = (
    "No setting is set. Set PG_HOST, PG_DB, PG_USER, PG_PASS, MINIO_BUCKET and MINIO_ENDPOINT, MINIO_ACCESS_KEY, "
    "MINIO_SECRET_KEY in the environment, or in .env, of which .env.example is a template."
)
_PASSWORDS = ("PG_PASS", "PG_PASS_SECRET_FILE", "PG_PASS_COMMAND")
_SOURCE_NAME = re.compile(r"PG_(?!BRONZE_).*")


def load_settings(
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = Path(".env"),
    *,
    lake_only: bool = False,
    config: ConfigFile | None = None,
) -> Settings:
    """Load the settings from the environment, from ``env_file`` and from ``pg_bronze.toml`` in the same folder.

    Call it at the entry point of a process only. The environment takes precedence over the files, and an empty value
    counts as not set.

    Args:
        environ: Replaces the environment of the process, unless it is None.
        env_file: A file that may be missing; None reads no file.
        lake_only: Ignore the settings of the source database and of its tables, for processes that only read the
            bucket.
        config: Replaces ``pg_bronze.toml``, unless it is None.

    Raises:
        SettingsError: One error that lists everything that is missing, unknown or invalid.
    """
    environment = dict(os.environ if environ is None else environ)
    from_file, problems = read_env_file(env_file) if env_file else ({}, [])
    environment = without_service_variables(environment)
    from_file = _without_overridden_password(without_overridden_server(from_file, environment), environment)
    variables = _set_variables(from_file | environment)
    problems += unknown_names(variables) + library_variables(environment)
    if lake_only:
        variables = {name: text for name, text in variables.items() if not _SOURCE_NAME.fullmatch(name)}
        variables["PG_DB"] = "none"

    values: dict[str, Any] = {name: text for name, text in variables.items() if name in FIELDS}
    if not values and not problems:
        raise SettingsError(NOTHING_SET)
    unreadable = unreadable_values(values)
    problems += unreadable.values()
    home = variables.get("HOME") or variables.get("USERPROFILE")
    problems += _make_paths_absolute(values, home)
    if config is None:
        config = ConfigFile() if lake_only else _config(values, env_file, home)
    problems += config.problems
    reported = set(unreadable)
    try:
        values |= server(variables, home)
    except SettingsError as error:
        problems.append(str(error))
        reported |= set(EXPLICIT)

    try:
        settings = Settings(**values, file_options=dict(config.options))
    except ValidationError as error:
        raise one_error(problems + invalid_values(error, reported)) from error
    # Dagster would have no partition to copy into.
    if settings.start_date and settings.start_date > (today := datetime.now(UTC).date()):
        problems.append(f"PG_BRONZE_START_DATE is '{settings.start_date}': it must be at most {today}, today in UTC.")
    if problems:
        raise one_error(problems)
    return settings


def home_variables() -> dict[str, str]:
    """Return the variables that name the folders of a person, where `mc` and others keep their configuration."""
    names = ("HOME", "USERPROFILE", "MC_CONFIG_DIR")
    return {name: value for name in names if (value := os.environ.get(name))}


def _without_overridden_password(from_file: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Remove the password in ``.env`` if the environment sets one in another way."""
    if not any(environment.get(name) for name in _PASSWORDS):
        return from_file
    return {name: value for name, value in from_file.items() if name not in _PASSWORDS}


def dagster_home() -> str | None:
    """Return ``DAGSTER_HOME``, or None if it is not set. It is needed before the settings are loaded.

    Raises:
        SettingsError: It is not an absolute path of a folder, which Dagster requires. As Dagster does, ``~`` is
            expanded.
    """
    value = os.environ.get("DAGSTER_HOME")
    if not value:
        return None
    path = os.path.expanduser(value)
    if not os.path.isabs(path):
        raise SettingsError(
            f"DAGSTER_HOME{shown(value)}: it must be an absolute path, such as {os.path.abspath(path)!r}. Set it to "
            "the folder of Dagster's state, or unset it."
        )
    if not os.path.isdir(path):
        raise SettingsError(f"DAGSTER_HOME{shown(value)}: there is no such folder. Create it, or unset DAGSTER_HOME.")
    return path


def log_format() -> str:
    """Return ``PG_BRONZE_LOG`` as it is set, or ``text``. It is needed before the settings are loaded.

    Raises:
        SettingsError: The ``.env`` of the project folder cannot be read.
    """
    from_file, _ = read_env_file(find_project(current_folder()).folder / ".env")
    return (os.environ.get("PG_BRONZE_LOG") or from_file.get("PG_BRONZE_LOG", "")).strip() or "text"


def unused_config(folder: Path) -> Path | None:
    """Return the ``pg_bronze.toml`` of a folder that settings are not read from; None if a setting names a file."""
    file = folder / NAME
    return file if file.exists() and not os.environ.get("PG_BRONZE_CONFIG") else None


def _set_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are not empty, without surrounding spaces except in secrets."""
    stripped = {name: value if name in SECRET_NAMES else value.strip() for name, value in variables.items()}
    return {name: value for name, value in stripped.items() if value}


def _config(values: dict[str, Any], env_file: Path | None, home: str | None) -> ConfigFile:
    """Return the contents of the file that ``PG_BRONZE_CONFIG`` names, or of the one beside ``.env``."""
    if named := values.get("PG_BRONZE_CONFIG"):
        values["PG_BRONZE_CONFIG"] = file = absolute(named, home)
        return read_config(file, required=True)
    return read_config(env_file.with_name(NAME), required=False) if env_file else ConfigFile()


def _make_paths_absolute(values: dict[str, Any], home: str | None) -> list[str]:
    """Replace the files among the values by absolute paths, and return a sentence for each unreadable file."""
    problems = []
    for name in ("PG_SSLROOTCERT", "PG_PASSFILE", "MINIO_CA", "PG_PASS_SECRET_FILE"):
        if file := values.get(name):
            values[name] = path = absolute(file, home)
            # A secret may be mounted later, or be replaced now: an unreadable one fails the connection.
            if name == "PG_PASS_SECRET_FILE":
                continue
            if not os.path.isfile(path) or not os.access(path, os.R_OK):
                problems.append(f"{name}{shown(file)}: the file does not exist or is not readable.")
    return problems
