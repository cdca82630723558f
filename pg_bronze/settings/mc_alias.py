"""Aliases: which S3 server and keys a name stands for, found where the ``mc`` client itself looks.

Reads mc's configuration file when asked; the environment is passed in.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pg_bronze.errors import SettingsError
from pg_bronze.settings.files import absolute, read_text

EXPLICIT = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")


def one_server(written: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Drop from ``.env`` the way to the bucket's server that the environment replaces by the other one."""
    explicit = any(environment.get(name) for name in EXPLICIT)
    if environment.get("MINIO_ALIAS") and not explicit:
        return {name: value for name, value in written.items() if name not in EXPLICIT}
    if environment.get("MINIO_ENDPOINT") and not environment.get("MINIO_ALIAS"):
        return {name: value for name, value in written.items() if name != "MINIO_ALIAS"}
    return written


def server(variables: Mapping[str, str], home: str | None) -> dict[str, str]:
    """Find the server and keys that ``MINIO_ALIAS`` stands for; nothing to add when all three are given."""
    alias = variables.get("MINIO_ALIAS")
    given = [name for name in EXPLICIT if name in variables]
    missing = [name for name in EXPLICIT if name not in variables]
    if alias and given:
        raise SettingsError(
            f"MINIO_ALIAS and {', '.join(given)} are both set, and each names a server for the bucket: keep one."
        )
    if alias:
        return dict(zip(EXPLICIT, _alias(alias, variables, home), strict=True))
    if given and missing:
        raise SettingsError(f"{', '.join(missing)}: not set, but {', '.join(given)} is; the three belong together.")
    if missing:
        raise SettingsError(
            "No server is named for the bucket. Set MINIO_ALIAS to an alias made with `mc alias set`, or all of "
            f"{', '.join(EXPLICIT)}."
        )
    return {}


def _alias(alias: str, variables: Mapping[str, str], home: str | None) -> tuple[str, str, str]:
    """Return endpoint, access key and secret key of the alias, from where ``mc`` itself looks, in its order."""
    variable = f"MC_HOST_{alias}"
    if url := variables.get(variable):
        # As mc reads it: key to the first colon, secret to the last @, nothing decoded, a second colon means a token.
        parts = re.fullmatch(r"(https?://)([^:@]+):([^:]+)@([^@]+)", url)
        if not parts:
            raise SettingsError(
                f"{variable}: it must be scheme://key:secret@host:port, no session token (its value is not shown)."
            )
        return _checked(variable, parts[1] + parts[4], parts[2], parts[3])

    folder = variables.get("MC_CONFIG_DIR") or (home and str(Path(home) / ".mc"))
    if not folder:
        raise SettingsError(
            f"MINIO_ALIAS is {alias!r}: mc's config.json cannot be found, neither MC_CONFIG_DIR nor HOME is set."
        )
    file = absolute(folder, home) / "config.json"
    aliases = _read_aliases(alias, file)
    if alias not in aliases:
        raise SettingsError(
            f"MINIO_ALIAS is {alias!r}: {file} has no such alias (it has {', '.join(sorted(aliases)) or 'none'}). "
            f"Make it with `mc alias set {alias} URL ACCESS_KEY SECRET_KEY`."
        )
    entry = aliases[alias]
    fields = [entry.get(key) if isinstance(entry, dict) else None for key in ("url", "accessKey", "secretKey")]
    url, key, secret = (field if isinstance(field, str) else "" for field in fields)
    if isinstance(entry, dict) and entry.get("sessionToken"):
        raise SettingsError(f"MINIO_ALIAS is {alias!r}: it has a session token in {file}; use keys that do not expire.")
    if not key or not secret:
        raise SettingsError(f"MINIO_ALIAS is {alias!r}: it has no keys in {file}. Set them with `mc alias set`.")
    return _checked(f"MINIO_ALIAS is {alias!r}, in {file}", url, key, secret)


def _checked(where: str, url: str, key: str, secret: str) -> tuple[str, str, str]:
    try:
        return endpoint(url), key, secret
    except ValueError as fault:
        raise SettingsError(f"{where}: of its URL, {fault}.") from None


def _read_aliases(alias: str, file: Path) -> dict[str, Any]:
    text = read_text(file, f"MINIO_ALIAS is {alias!r}: mc's configuration {file}")
    if text is None:
        raise SettingsError(
            f"MINIO_ALIAS is {alias!r}: mc's {file} does not exist. Make it with `mc alias set {alias} …` "
            f"or set MC_CONFIG_DIR, MC_HOST_{alias}, or {', '.join(EXPLICIT)}."
        )
    try:
        config = parse_json(text)
        aliases = config.get("aliases", {}) if isinstance(config, dict) else None
    except ValueError:
        aliases = None
    if not isinstance(aliases, dict):
        raise SettingsError(
            f"MINIO_ALIAS is {alias!r}: {file} is not the JSON that mc writes. Repair it, or make it anew."
        )
    return aliases


def endpoint(value: str) -> str:
    """Return the server's URL as ``scheme://host[:port]``; raises ValueError without quoting what was given."""
    wrong = ValueError(
        "it must be http://host:port or https://host:port without path, user or query; bucket and keys have settings "
        "of their own"
    )
    if "://" not in value:
        # MinIO's own habit. A bare host is refused: nobody should send keys in the clear for want of a scheme.
        if not re.fullmatch(r".+:\d+", value):
            raise wrong
        value = f"http://{value}"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or re.search(r"\s", value):
        raise wrong
    if parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
        raise wrong
    return f"{parts.scheme}://{parts.netloc}"


def parse_json(text: str) -> Any:
    """Parse JSON; a key that occurs twice is an error, not the last one's victory."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if doubled := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"the JSON names {', '.join(doubled)} twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error.msg}, at character {error.pos + 1})") from None
