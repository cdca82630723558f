"""Credentials: which setting they come from, and which settings exclude one another."""

import pytest

from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import SECRET_NAMES
from pg_bronze_tests.settings.conftest import MINIMUM, WITH_ALIAS, error_of, error_with, load

BUCKET = {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze"}
ON_AWS = "https://s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    "more, source, endpoint",
    [
        (MINIMUM, "keys", "http://127.0.0.1:9000"),
        (MINIMUM | {"MINIO_CREDENTIALS": "keys", "MINIO_ENDPOINT": ON_AWS}, "keys", ON_AWS),
        ({"MINIO_CREDENTIALS": "aws"}, "aws", "https://s3.us-east-1.amazonaws.com"),
        ({"MINIO_CREDENTIALS": "aws", "MINIO_REGION": "cn-north-1"}, "aws", "https://s3.cn-north-1.amazonaws.com.cn"),
        ({"MINIO_CREDENTIALS": "aws", "MINIO_ENDPOINT": "http://minio:9000"}, "aws", "http://minio:9000"),
        ({"MINIO_PROFILE": "shop"}, "aws", "https://s3.us-east-1.amazonaws.com"),
        ({"MINIO_ENDPOINT": ON_AWS}, "aws", ON_AWS),
        ({}, "aws", "https://s3.us-east-1.amazonaws.com"),
    ],
)
def test_the_credentials_are_keys_unless_a_setting_or_a_server_of_aws_says_otherwise(more, source, endpoint):
    s3 = load_settings(BUCKET | more, None).s3

    assert (s3.source, s3.endpoint_url, s3.profile) == (source, endpoint, more.get("MINIO_PROFILE", ""))
    assert s3.is_chosen == bool(more), "a bucket is not created on a server that nobody has named"


def test_an_alias_may_have_a_session_token():
    """mc writes it behind the second colon. It may contain all characters of Base64."""
    s3 = load_settings(WITH_ALIAS | {"MC_HOST_mi_minio": "https://ak:s/k+:to/k+en==@minio.example:9443"}, None).s3

    found = [secret.get_secret_value() for secret in (s3.access_key, s3.secret_key, s3.session_token)]
    assert (s3.endpoint_url, *found) == ("https://minio.example:9443", "ak", "s/k+", "to/k+en==")


@pytest.mark.parametrize(
    "more, problem",
    [
        ({"MINIO_PROFILE": "shop"}, "MINIO_PROFILE and MINIO_ACCESS_KEY, MINIO_SECRET_KEY are both set"),
        ({"MINIO_CREDENTIALS": "aws"}, "MINIO_CREDENTIALS=aws and MINIO_ACCESS_KEY, MINIO_SECRET_KEY are both set"),
        ({"MINIO_CREDENTIALS": "iam"}, "MINIO_CREDENTIALS is 'iam': it must be 'keys' or 'aws'."),
        ({"MINIO_SESSION_TOKEN": "a b"}, "MINIO_SESSION_TOKEN: it must not contain spaces"),
        ({"PG_PASS": "x", "PG_PASS_COMMAND": "true"}, "PG_PASS_COMMAND: PG_PASS is set too"),
        ({"PG_PASS": "x", "PG_PASS_SECRET_FILE": "/f"}, "PG_PASS_SECRET_FILE is '/f': PG_PASS is set too"),
        ({"PG_PASS_COMMAND": "true", "PG_PASS_SECRET_FILE": "/f"}, "PG_PASS_COMMAND: PG_PASS_SECRET_FILE is set too"),
        ({"PG_PASS_COMMAND": "echo 'pl4nted"}, "PG_PASS_COMMAND: it must be a program with arguments"),
    ],
)
def test_two_sources_of_credentials_or_an_invalid_one_are_reported(more, problem):
    message = error_with(**more)

    assert message.startswith(problem)
    assert "pl4nted" not in message


@pytest.mark.parametrize(
    "more, problem",
    [
        (WITH_ALIAS | {"MINIO_SESSION_TOKEN": "t"}, "MINIO_ALIAS and MINIO_SESSION_TOKEN are both set"),
        (WITH_ALIAS | {"MINIO_CREDENTIALS": "aws"}, "MINIO_CREDENTIALS=aws and MINIO_ALIAS are both set"),
        (BUCKET | {"MINIO_SESSION_TOKEN": "t"}, "MINIO_ENDPOINT and MINIO_ACCESS_KEY and MINIO_SECRET_KEY must be set"),
        (BUCKET | {"MINIO_CREDENTIALS": "keys"}, "No S3 server is configured."),
        (BUCKET | {"MINIO_PROFILE": "x", "MINIO_CREDENTIALS": "keys"}, "MINIO_PROFILE is set and MINIO_CREDENTIALS is"),
    ],
)
def test_credentials_without_their_server_are_reported(more, problem):
    assert error_of(more).startswith(problem)


@pytest.mark.parametrize(
    "in_file, environment, expected",
    [
        ("PG_PASS=x", {"PG_PASS_COMMAND": "print-token"}, ("", None)),
        ("PG_PASS_COMMAND=print-token\nPG_PASS_SECRET_FILE=/f", {"PG_PASS": "x"}, ("x", None)),
        ("PG_PASS=x", {"PG_PASS_SECRET_FILE": "/run/secrets/pg"}, ("", "/run/secrets/pg")),
    ],
)
def test_a_password_in_the_environment_replaces_another_one_in_the_file(tmp_path, in_file, environment, expected):
    (tmp_path / ".env").write_text(in_file)

    settings = load_settings(MINIMUM | environment, tmp_path / ".env")

    file = settings.pg_pass_secret_file
    assert (settings.pg_pass.get_secret_value(), file and str(file)) == expected
    assert (settings.pg_pass_command is not None) == ("PG_PASS_COMMAND" in environment)


@pytest.mark.parametrize("environment", [{"MINIO_PROFILE": "shop"}, {"MINIO_CREDENTIALS": "aws"}])
def test_a_source_of_credentials_in_the_environment_replaces_keys_in_the_file(tmp_path, environment):
    keys = {name: MINIMUM[name] for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")} | {"MINIO_SESSION_TOKEN": "t"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in keys.items()))

    s3 = load_settings(BUCKET | {"MINIO_ENDPOINT": "http://minio:9000"} | environment, tmp_path / ".env").s3

    assert (s3.source, s3.session_token.get_secret_value()) == ("aws", "")
    (tmp_path / ".env").write_text("MINIO_PROFILE=shop\nMINIO_SESSION_TOKEN=t\n")
    assert load_settings(MINIMUM, tmp_path / ".env").s3.source == "keys"


def test_the_password_of_a_file_or_a_command_is_not_part_of_a_url(tmp_path):
    """Each connection adds the current one."""
    for more in ({"PG_PASS_SECRET_FILE": str(tmp_path / "absent")}, {"PG_PASS_COMMAND": "echo pl4nted"}):
        settings = load(**more)

        assert (settings.source_conninfo("x")["password"], ":@" in settings.source_url()) == ("", False)
        assert settings.connectorx_limitation is None


def test_a_rotated_secret_changes_neither_fingerprint_nor_mark():
    """Every rotation would reload the definitions, and would be a new attempt of every failing table."""
    first, second = (
        load(PG_PASS_COMMAND=f"echo {name}", MINIO_SESSION_TOKEN=name, MINIO_ACCESS_KEY=name, MINIO_SECRET_KEY=name)
        for name in ("first", "second")
    )

    assert (first.fingerprint(), first.mark()) == (second.fingerprint(), second.mark())
    assert first.mark() != load().mark(), "that there is one is a change"


def test_every_secret_is_known_by_its_name():
    """Their values are left out of messages, fingerprints and the fields of a component."""
    found = {name for name in SECRET_NAMES if name.startswith(("PG_PASS", "MINIO_"))}

    assert found == {"PG_PASS", "PG_PASS_COMMAND", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"}
