"""Aliases: the S3 server and the keys of an alias of the ``mc`` client.

They are looked up as ``mc`` does: first ``MC_HOST_<alias>``, then ``config.json``. The environment is an argument.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pg_bronze.errors import SettingsError
from pg_bronze.settings.files import absolute, read_text
from pg_bronze.settings.text_formats import parse_json, server_url

EXPLICIT = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")
_EXPLICIT_TEXT = "MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY"


def without_overridden_server(from_file: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Remove the server in ``.env`` if the environment sets one in the other way (alias, or endpoint and keys)."""
    explicit = any(environment.get(name) for name in EXPLICIT)
    if environment.get("MINIO_ALIAS") and not explicit:
        return {name: value for name, value in from_file.items() if name not in EXPLICIT}
    if environment.get("MINIO_ENDPOINT") and not environment.get("MINIO_ALIAS"):
        return {name: value for name, value in from_file.items() if name != "MINIO_ALIAS"}
    return from_file


def server(variables: Mapping[str, str], home: str | None) -> dict[str, str]:
    """Return the endpoint and the keys of ``MINIO_ALIAS``; empty if all three are set explicitly."""
    alias = variables.get("MINIO_ALIAS")
    present = [name for name in EXPLICIT if name in variables]
    missing = [name for name in EXPLICIT if name not in variables]
    if alias and present:
        raise SettingsError(
            f"MINIO_ALIAS and {', '.join(present)} are both set, and both select an S3 server. Remove one of them."
        )
    if alias:
        return dict(zip(EXPLICIT, _look_up(alias, variables, home), strict=True))
    if present and missing:
        raise SettingsError(f"{' and '.join(missing)} must be set too: {_EXPLICIT_TEXT} are required together.")
    if missing:
        raise SettingsError(
            "No S3 server is configured. Set MINIO_ALIAS to an alias created with `mc alias set`, or set "
            f"{_EXPLICIT_TEXT}."
        )
    return {}


def _look_up(alias: str, variables: Mapping[str, str], home: str | None) -> tuple[str, str, str]:
    """Return endpoint, access key and secret key of the alias."""
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


def _from_variable(variable: str, url: str) -> tuple[str, str, str]:
    # As in mc: the key ends at the first colon, the secret at the last @, nothing is decoded, a second colon means that
    # there is a session token.
    parts = re.fullmatch(r"(https?://)([^:@]+):([^:]+)@([^@]+)", url)
    if not parts:
        raise SettingsError(
            f"{variable}: it must be scheme://key:secret@host:port without a session token (value not shown)."
        )
    return _checked_url(variable, parts[1] + parts[4]), parts[2], parts[3]


def _from_entry(where: str, entry: object) -> tuple[str, str, str]:
    fields = [entry.get(key) if isinstance(entry, dict) else None for key in ("url", "accessKey", "secretKey")]
    url, key, secret = (field if isinstance(field, str) else "" for field in fields)
    if isinstance(entry, dict) and entry.get("sessionToken"):
        raise SettingsError(f"{where}: the alias has a session token, which expires. Use permanent keys.")
    if not key or not secret:
        raise SettingsError(f"{where}: the alias has no keys. Set them with `mc alias set`.")
    return _checked_url(where, url), key, secret


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
