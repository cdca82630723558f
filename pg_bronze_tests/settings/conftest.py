"""Settings from literals: no test reads the environment of the developer, and none needs a server."""

import json

import pytest

from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import load_settings

MINIMUM = {
    "PG_DB": "cine",
    "MINIO_BUCKET": "meteo-bronze",
    "MINIO_ENDPOINT": "http://127.0.0.1:9000",
    "MINIO_ACCESS_KEY": "access-in-clear",
    "MINIO_SECRET_KEY": "secret-in-clear",
}
WITH_ALIAS = {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze", "MINIO_ALIAS": "mi_minio"}


def load(**more):
    return load_settings(MINIMUM | more, env_file=None)


def error_of(environ, env_file=None):
    """Return the message of the error that loading these variables raises."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, env_file)
    return str(caught.value)


def error_with(**more):
    return error_of(MINIMUM | more)


@pytest.fixture
def mc(tmp_path):
    """Write a configuration file as `mc alias set` does, and return an environment that refers to it."""

    def write(folder=tmp_path / "mc", **aliases):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"version": "10", "aliases": aliases}))
        return WITH_ALIAS | {"MC_CONFIG_DIR": str(folder)}

    return write


def entry(url="http://127.0.0.1:9000", key="ak", secret="sk", **more):
    return {"url": url, "accessKey": key, "secretKey": secret, "api": "s3v4", "path": "auto", **more}
