"""The S3 server: an alias of the `mc` client, or an endpoint with both keys."""

import pytest

from pg_bronze.settings.load import load_settings
from pg_bronze_tests.settings.conftest import MINIMUM, WITH_ALIAS, entry, error_of


def test_server_and_keys_are_read_from_the_configuration_of_mc(mc):
    s3 = load_settings(mc(mi_minio=entry("https://minio.example", "ak", "s/k+")), env_file=None).s3

    assert (s3.endpoint_url, s3.use_ssl, s3.ca) == ("https://minio.example", True, None)
    assert (s3.access_key.get_secret_value(), s3.secret_key.get_secret_value()) == ("ak", "s/k+")


def test_the_configuration_of_mc_is_in_the_home_directory_by_default(mc, tmp_path):
    mc(tmp_path / ".mc", mi_minio=entry())

    assert load_settings(WITH_ALIAS | {"HOME": str(tmp_path)}, env_file=None).minio_endpoint == "http://127.0.0.1:9000"


def test_the_variable_of_mc_takes_precedence_over_its_file(mc):
    """mc does not percent-decode it: a decoded key is a different key."""
    environ = mc(mi_minio=entry()) | {"MC_HOST_mi_minio": "https://ak2:s%2F@k2@minio.example:9443/"}

    s3 = load_settings(environ, env_file=None).s3

    assert (s3.endpoint_url, s3.use_ssl) == ("https://minio.example:9443", True)
    assert (s3.access_key.get_secret_value(), s3.secret_key.get_secret_value()) == ("ak2", "s%2F@k2")


@pytest.mark.parametrize(
    "url", ["minio.example", "https://hunter2@minio.example", "https://ak:hunter2@minio.example/b"]
)
def test_an_invalid_variable_of_mc_is_reported_without_its_value(url):
    message = error_of(WITH_ALIAS | {"MC_HOST_mi_minio": url})

    assert message.startswith("MC_HOST_mi_minio: ")
    assert "hunter2" not in message


def test_the_session_token_of_an_alias_is_used(mc):
    """The server rejects temporary keys without it."""
    s3 = load_settings(mc(mi_minio=entry(sessionToken="t")), env_file=None).s3

    assert s3.session_token.get_secret_value() == "t"


def test_an_unknown_alias_is_reported_with_the_known_ones(mc):
    message = error_of(mc(local=entry(), play=entry()))

    assert message.startswith("MINIO_ALIAS is 'mi_minio': ")
    assert "config.json does not contain this alias (it contains: local, play)" in message
    assert "mc alias set mi_minio" in message


def test_a_missing_configuration_of_mc_is_reported(tmp_path):
    message = error_of(WITH_ALIAS | {"MC_CONFIG_DIR": str(tmp_path)})

    assert f"{tmp_path / 'config.json'} does not exist" in message


def test_an_alias_without_a_home_directory_is_reported():
    assert "neither MC_CONFIG_DIR nor HOME is set" in error_of(WITH_ALIAS)


@pytest.mark.parametrize(
    "content", ['{"aliases": {"mi_minio": {"secretKey": "hunter2"', "[]", '{"aliases": "hunter2"}']
)
def test_a_damaged_configuration_of_mc_is_reported_without_its_content(tmp_path, content):
    (tmp_path / "config.json").write_text(content)

    message = error_of(WITH_ALIAS | {"MC_CONFIG_DIR": str(tmp_path)})

    assert "is not a configuration file of mc" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("alias", [entry(key="", secret=""), {}, "x", {"url": 3}])
def test_an_alias_without_keys_is_reported(mc, alias):
    assert "the alias has no keys" in error_of(mc(mi_minio=alias))


def test_an_invalid_url_of_an_alias_is_reported_with_the_alias(mc):
    message = error_of(mc(mi_minio=entry("minio")))

    assert message.startswith("MINIO_ALIAS is 'mi_minio', in ")
    assert "the URL is invalid; it must be http://host:port" in message


def test_an_alias_and_a_server_together_are_an_error(mc):
    """Choosing one of them silently might copy a database to the wrong server."""
    message = error_of(mc(mi_minio=entry()) | MINIMUM)

    assert message == (
        "MINIO_ALIAS and MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY are both set, "
        "and both select an S3 server. Remove one of them."
    )


def test_an_endpoint_without_keys_is_an_error():
    message = error_of(WITH_ALIAS | {"MINIO_ALIAS": "", "MINIO_ENDPOINT": "http://127.0.0.1:9000"})

    assert message == (
        "MINIO_ACCESS_KEY and MINIO_SECRET_KEY must be set too: "
        "MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY are required together."
    )


def test_without_a_server_the_ways_to_configure_it_are_named():
    message = error_of({"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze", "MINIO_CREDENTIALS": "keys"})

    assert message == (
        "No S3 server is configured. Set MINIO_ALIAS to an alias created with `mc alias set`, or set MINIO_ENDPOINT, "
        "MINIO_ACCESS_KEY and MINIO_SECRET_KEY, or MINIO_CREDENTIALS=aws for a bucket on AWS."
    )
