"""Aliases: the S3 server and the keys of an alias of the ``mc`` client, and which other settings exclude one.

They are looked up as ``mc`` does: first ``MC_HOST_<alias>``, then ``config.json``. The environment is an argument.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pg_bronze.errors import SettingsError
from pg_bronze.settings.bucket import is_aws
from pg_bronze.settings.files import absolute, read_text
from pg_bronze.settings.text_formats import parse_json, server_url

EXPLICIT = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")
_EXPLICIT_TEXT = "MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY"
_TOKEN = "MINIO_SESSION_TOKEN"  # noqa: S105  (the name of a variable)
_KEYS = ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", _TOKEN)
_BY_AWS = ("MINIO_PROFILE", "MINIO_CREDENTIALS")


def without_overridden_server(from_file: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Remove from the variables of ``.env`` what the environment sets in another way.

    The ways are: an alias; an endpoint; and for the credentials alone, keys, or a source of AWS.
    """
    replaced: set[str] = set()
    explicit = any(environment.get(name) for name in EXPLICIT)
    if environment.get("MINIO_ALIAS") and not explicit:
        replaced |= {*EXPLICIT, _TOKEN, *_BY_AWS}
    elif environment.get("MINIO_ENDPOINT") and not environment.get("MINIO_ALIAS"):
        replaced |= {"MINIO_ALIAS"}
    if _is_by_aws(environment):
        replaced |= {"MINIO_ALIAS", *_KEYS}
    elif environment.get("MINIO_ACCESS_KEY"):
        replaced |= {*_BY_AWS, _TOKEN}  # a token belongs to its keys
    return {name: value for name, value in from_file.items() if name not in replaced}


def server(variables: Mapping[str, str], home: str | None) -> dict[str, str]:
    """Return the endpoint and the keys of ``MINIO_ALIAS``; empty if they are set explicitly, or come from AWS."""
    alias = variables.get("MINIO_ALIAS")
    present = [name for name in (*EXPLICIT, _TOKEN) if name in variables]
    missing = [name for name in EXPLICIT if name not in variables]
    if _is_by_aws(variables):
        _check_by_aws(variables)
        return {}
    if alias and present:
        raise SettingsError(
            f"MINIO_ALIAS and {', '.join(present)} are both set, and both select an S3 server. Remove one of them."
        )
    if alias:
        return _look_up(alias, variables, home)
    if _is_on_aws_without_keys(variables):
        return {}
    if present and missing:
        raise SettingsError(f"{' and '.join(missing)} must be set too: {_EXPLICIT_TEXT} are required together.")
    if missing:
        raise SettingsError(
            "No S3 server is configured. Set MINIO_ALIAS to an alias created with `mc alias set`, or set "
            f"{_EXPLICIT_TEXT}, or MINIO_CREDENTIALS=aws for a bucket on AWS."
        )
    return {}


def _is_by_aws(variables: Mapping[str, str]) -> bool:
    return bool(variables.get("MINIO_PROFILE")) or variables.get("MINIO_CREDENTIALS") == "aws"


def _check_by_aws(variables: Mapping[str, str]) -> None:
    """Raise SettingsError if keys are set besides the source that finds others."""
    if variables.get("MINIO_PROFILE") and variables.get("MINIO_CREDENTIALS") == "keys":
        raise SettingsError("MINIO_PROFILE is set and MINIO_CREDENTIALS is keys. Remove one of them.")
    chosen = "MINIO_PROFILE" if variables.get("MINIO_PROFILE") else "MINIO_CREDENTIALS=aws"
    if others := [name for name in ("MINIO_ALIAS", *_KEYS) if name in variables]:
        raise SettingsError(
            f"{chosen} and {', '.join(others)} are both set, and both select the credentials of the S3 server. Remove "
            "one of them."
        )


def _is_on_aws_without_keys(variables: Mapping[str, str]) -> bool:
    """Return whether a bucket is named, and neither a server other than AWS nor any credentials are."""
    named = any(name in variables for name in (*_KEYS, "MINIO_CREDENTIALS"))
    endpoint = variables.get("MINIO_ENDPOINT")
    if named or "MINIO_BUCKET" not in variables:
        return False
    return endpoint is None or is_aws(endpoint)


def _look_up(alias: str, variables: Mapping[str, str], home: str | None) -> dict[str, str]:
    """Return endpoint, keys and session token of the alias, as the settings of the same meaning."""
    variable = f"MC_HOST_{alias}"
    if url := variables.get(variable):
        return _from_variable(variable, url)
    where = f"MINIO_ALIAS is {alias!r}"
    folder = variables.get("MC_CONFIG_DIR") or (home and str(Path(home) / ".mc"))
    if not folder:
        raise SettingsError(
            f"{where}: mc's config.json cannot be located, because neither MC_CONFIG_DIR nor HOME is set. Set one."
        )
    file = absolute(folder, home) / "config.json"
    aliases = _read_aliases(alias, file)
    if alias not in aliases:
        raise SettingsError(
            f"{where}: {file} does not contain this alias (it contains: {', '.join(sorted(aliases)) or 'none'}). "
            f"Create it with `mc alias set {alias} URL ACCESS_KEY SECRET_KEY`."
        )
    return _from_entry(f"{where}, in {file}", aliases[alias])


def _from_variable(variable: str, url: str) -> dict[str, str]:
    # As in mc: the key ends at the first colon, the secret at the last @, nothing is decoded, a second colon means that
    # there is a session token.
    parts = re.fullmatch(r"(https?://)([^:@]+):([^:]+)(?::(.+))?@([^@]+)", url)
    if not parts:
        raise SettingsError(
            f"{variable}: it must be scheme://key:secret@host:port, or scheme://key:secret:token@host:port (value not "
            "shown)."
        )
    return _server(_checked_url(variable, parts[1] + parts[5]), parts[2], parts[3], parts[4])


def _from_entry(where: str, entry: object) -> dict[str, str]:
    names = ("url", "accessKey", "secretKey", "sessionToken")
    fields = [entry.get(name) if isinstance(entry, dict) else None for name in names]
    url, key, secret, token = (field if isinstance(field, str) else "" for field in fields)
    if not key or not secret:
        raise SettingsError(f"{where}: the alias has no keys. Set them with `mc alias set`.")
    return _server(_checked_url(where, url), key, secret, token)


def _server(url: str, key: str, secret: str, token: str | None) -> dict[str, str]:
    return dict(zip(EXPLICIT, (url, key, secret), strict=True)) | ({_TOKEN: token} if token else {})


def _checked_url(where: str, url: str) -> str:
    try:
        return server_url(url)
    except ValueError as error:
        raise SettingsError(f"{where}: the URL is invalid; {error}.") from None


def _read_aliases(alias: str, file: Path) -> dict[str, Any]:
    where = f"MINIO_ALIAS is {alias!r}"
    text = read_text(file, f"{where}: mc's configuration {file}")
    if text is None:
        raise SettingsError(
            f"{where}: mc's configuration {file} does not exist. Create it with `mc alias set {alias} …`, or set "
            f"MC_CONFIG_DIR, MC_HOST_{alias}, or {_EXPLICIT_TEXT}."
        )
    try:
        config = parse_json(text)
        aliases = config.get("aliases", {}) if isinstance(config, dict) else None
    except ValueError:
        aliases = None
    if not isinstance(aliases, dict):
        raise SettingsError(
            f"{where}: {file} is not a configuration file of mc. Repair it, or recreate it with `mc alias set`."
        )
    return aliases
