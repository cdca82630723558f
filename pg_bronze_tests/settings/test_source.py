"""Connection strings: both readers connect to the same database with the same checks."""

from urllib.parse import parse_qs, unquote, urlsplit

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze_tests.settings.conftest import error_with, load


def test_both_readers_connect_to_the_same_database():
    settings = load(PG_USER="uñ", PG_PASS="s3cr@t:/p#w?d% +", PG_DB="ci ne/2", PG_HOST="db.example", PG_PORT="5433")

    url = urlsplit(settings.source_url())
    info = settings.source_conninfo("pg_bronze")

    assert (unquote(url.username), unquote(url.password), unquote(url.path[1:])) == (
        info["user"],
        info["password"],
        info["dbname"],
    )
    assert (url.hostname, url.port) == (info["host"], info["port"])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_libpq_decodes_any_password_in_the_url(password):
    url = load(PG_PASS=password).source_url()

    assert psycopg.conninfo.conninfo_to_dict(url)["password"] == password


@pytest.mark.parametrize("host, in_url", [("/run/postgresql", "%2Frun%2Fpostgresql"), ("[::1]", "[::1]")])
def test_sockets_and_ipv6_addresses_are_valid_hosts(host, in_url):
    settings = load(PG_HOST=host)

    assert f"@{in_url}:5432/" in settings.source_url()
    assert psycopg.conninfo.conninfo_to_dict(settings.source_url())["host"] == settings.source_conninfo("x")["host"]


def test_an_empty_password_is_passed_on():
    """Otherwise libpq uses PGPASSWORD, which is not a setting."""
    assert load().source_conninfo("x")["password"] == ""
    assert "postgres@127.0.0.1" in load().source_url()


def test_verify_ca_is_translated_for_each_reader(tmp_path):
    certificate = tmp_path / "root ca.crt"
    certificate.touch()

    settings = load(PG_SSLMODE="verify-ca", PG_SSLROOTCERT=str(certificate))

    options = parse_qs(urlsplit(settings.source_url()).query)
    assert (options["sslmode"], options["sslrootcert"]) == (["require"], [str(certificate)])
    info = settings.source_conninfo("x")
    assert (info["sslmode"], info["sslrootcert"]) == ("verify-ca", str(certificate))


def test_a_certificate_that_would_not_be_verified_is_an_error(tmp_path):
    certificate = tmp_path / "ca.crt"
    certificate.touch()

    for mode in ("verify-ca", "verify-full"):
        assert error_with(PG_SSLMODE=mode).startswith(f"PG_SSLROOTCERT: PG_SSLMODE {mode} requires a file")
    assert "PG_SSLMODE prefer does not verify certificates" in error_with(PG_SSLROOTCERT=str(certificate))


def unsupported_by_connectorx(folder) -> list[dict[str, str]]:
    certificate, passwords = folder / "ca.crt", folder / "pgpass"
    certificate.touch()
    passwords.touch()
    return [
        {"PG_SSLMODE": "verify-full", "PG_SSLROOTCERT": str(certificate)},
        {"PG_HOST": "one.example, [::1]"},
        {"PG_PASSFILE": str(passwords)},
    ]


def test_settings_that_connectorx_does_not_support_select_the_other_reader(tmp_path):
    """With verify-full, connectorx would silently not check the host name."""
    assert load().source_url() is not None
    assert load(PG_BRONZE_READER="copy").source_url() is None
    for variables in unsupported_by_connectorx(tmp_path):
        settings = load(**variables)
        assert settings.source_url() is None
        psycopg.conninfo.make_conninfo(**settings.source_conninfo("x"))
        assert "; set it to auto or copy." in error_with(**variables, PG_BRONZE_READER="connectorx")


def test_several_hosts_are_passed_to_libpq():
    assert load(PG_HOST="one.example, [::1]").source_conninfo("x")["host"] == "one.example,::1"


def test_a_password_file_is_passed_to_libpq(tmp_path):
    (tmp_path / "passwords").touch()

    info = load(HOME=str(tmp_path), PG_PASSFILE="~/passwords").source_conninfo("x")

    assert info["passfile"] == str(tmp_path / "passwords")


def test_timeouts_are_in_the_unit_of_each_reader():
    settings = load(PG_BRONZE_CONNECT_TIMEOUT_S="7")

    options = parse_qs(urlsplit(settings.source_url()).query)
    info = settings.source_conninfo("x")

    assert int(options["connect_timeout"][0]) == info["connect_timeout"] == 7
    assert int(options["tcp_user_timeout"][0]) * 1000 == info["tcp_user_timeout"]
    assert "client_encoding" not in options
    assert info["client_encoding"] == "utf8"


def test_libpq_accepts_every_option():
    psycopg.conninfo.make_conninfo(**load().source_conninfo("x"))
    psycopg.conninfo.make_conninfo(**load(PG_CONTROL_URL="postgresql://u@db.example/ops").control_conninfo("x"))


def test_the_control_table_is_in_the_source_database_or_elsewhere_or_off():
    url = "postgresql://u:p@db.example/ops"

    assert (load().control_mirror, load().control_conninfo("x")) == ("source", load().source_conninfo("x"))
    elsewhere = load(PG_CONTROL_URL=url)
    assert (elsewhere.control_mirror, elsewhere.control_conninfo("x")["conninfo"]) == ("url", url)
    assert (load(PG_CONTROL_URL="OFF").control_mirror, load(PG_CONTROL_URL="OFF").control_conninfo("x")) == (
        "off",
        None,
    )


@pytest.mark.parametrize("most, runs", [("", None), ("4", 1), ("5", 1), ("6", 2), ("1000", 499)])
def test_a_limit_of_connections_leaves_two_for_each_run(most, runs):
    """Sensor and catalog have one each."""
    assert load(PG_BRONZE_MAX_CONNECTIONS=most).run_slots == runs


@pytest.mark.parametrize("most, reason", [("3", "it must be at least 4"), ("1001", "it must be at most 1000")])
def test_a_limit_with_which_no_run_could_copy_is_reported(most, reason):
    assert error_with(PG_BRONZE_MAX_CONNECTIONS=most) == f"PG_BRONZE_MAX_CONNECTIONS is '{most}': {reason}."
