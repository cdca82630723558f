"""TODO settings.load."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)
from pydantic_core import ErrorDetails

from pg_bronze.errors import SettingsError
from pg_bronze.settings.env_file import read_env_file
from pg_bronze.settings.files import absolute
from pg_bronze.settings.mc_alias import EXPLICIT, one_server, server
from pg_bronze.settings.model import FIELDS, PREFIX, SECRET_NAMES, Settings, TableOptions, variable

_SOURCE = re.compile(r"PG_(?!BRONZE_).*")
# The demo's and the tests' own variables, and those that Kubernetes makes for every pod beside a service "pg-bronze…".
_FOREIGN = re.compile(
    r"PG_BRONZE_(PG_BINDIR|MINIO_BIN|DEMO_.*|TEST_.*"
    r"|(.*_)?SERVICE_HOST|(.*_)?SERVICE_PORT(_.*)?|(.*_)?PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def load_settings(
    environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env"), *, lake_only: bool = False
) -> Settings:
    """Read the settings from the environment and ``env_file``; the environment wins, an empty value counts as not set.

    ``environ`` stands in for the process's environment, None means that one. A missing ``env_file`` is no fault.
    ``lake_only`` is for who reads the bucket alone: what is said of the database is neither needed nor looked at.
    Raises one SettingsError that lists everything that is wrong.
    """
    environment = dict(os.environ if environ is None else environ)
    written, faults = read_env_file(env_file) if env_file else ({}, [])
    merged = one_server(written, environment) | environment
    variables = {
        name: text for name, value in merged.items() if (text := value if name in SECRET_NAMES else value.strip())
    }
    faults += _unknown(variables)
    if lake_only:
        variables = {name: text for name, text in variables.items() if not _SOURCE.fullmatch(name)}
        variables["PG_DB"] = "none"

    values: dict[str, Any] = {name: text for name, text in variables.items() if name in FIELDS}
    home = variables.get("HOME") or variables.get("USERPROFILE")
    for name in ("PG_SSLROOTCERT", "PG_PASSFILE"):
        if file := values.get(name):
            values[name] = path = absolute(file, home)
            if not os.path.isfile(path) or not os.access(path, os.R_OK):
                faults.append(f"{name} is {file!r}: there is no such file, or it may not be read.")
    server_is_known = True
    try:
        values |= server(variables, home)
    except SettingsError as fault:
        faults.append(str(fault))
        server_is_known = False

    try:
        settings = Settings(**values)
    except ValidationError as error:
        found = [e for e in error.errors() if server_is_known or e["type"] != "missing" or e["loc"][0] not in EXPLICIT]
        raise _all(faults + [_sentence(e) for e in found]) from error
    if faults:
        raise _all(faults)
    return settings


def dagster_home() -> str | None:
    """Dagster's own folder, where ``DAGSTER_HOME`` names one; needed before there are settings."""
    return os.environ.get("DAGSTER_HOME") or None


def _all(faults: list[str]) -> SettingsError:
    if len(faults) == 1:
        return SettingsError(faults[0])
    return SettingsError("\n- ".join([f"{len(faults)} settings need attention:", *faults]))


def _sentence(error: ErrorDetails) -> str:
    """Say one validation error as a sentence with the setting's name; a secret's value is left out."""
    name, *inner = (str(part) for part in error["loc"])
    name = name if name in FIELDS else variable(name)  # a default that fails goes by its field's name
    if error["type"] == "missing":
        return f"{name} is not set. Set it in the environment or in .env: {FIELDS[name].description}"
    where = f"{name} ({', '.join(inner)})" if inner else name
    found = "" if name in SECRET_NAMES else _shown(error["input"])
    return f"{where}{found}: {_reason(error)}."


def _shown(value: object) -> str:
    if value is None or isinstance(value, dict):
        return ""
    text = str(value)
    if "@" in text or "password" in text.lower():
        return " (its value is not shown, it may hold a password)"
    return f" is {text if len(text) <= 80 else text[:80] + '…'!r}"


def _reason(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "it must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "it must be a number"
        case "bool_parsing" | "bool_type":
            return "it must be true or false"
        case "byte_size" | "byte_size_unit":
            return "it must be a number of bytes, such as 33554432 or 32MiB"
        case "literal_error":
            return f"it must be {context['expected']}"
        case "greater_than_equal":
            return f"it must be at least {context['ge']}"
        case "less_than_equal":
            return f"it must be at most {context['le']}"
        case "extra_forbidden":
            return f"no such option; a table has {', '.join(TableOptions.model_fields)}"
        case "model_type":
            return f"it must be a JSON object with some of {', '.join(TableOptions.model_fields)}"
    return error["msg"][:1].lower() + error["msg"][1:]


def _unknown(variables: Mapping[str, str]) -> list[str]:
    faults = []
    for name in sorted(variables):
        if not name.upper().startswith(PREFIX) or name in FIELDS or _FOREIGN.fullmatch(name):
            continue
        near = difflib.get_close_matches(name.upper(), FIELDS, n=1)
        faults.append(f"{name} is no setting." + (f" Did you mean {near[0]}?" if near else " Remove it."))
    return faults
