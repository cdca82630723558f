import json
import re
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pg_bronze.errors import SettingsError
from pg_bronze.settings.docs import settings_table
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings, TableOptions

ROOT = Path(__file__).parents[2]
ENOUGH = {
    "PG_DB": "cine",
    "MINIO_BUCKET": "meteo-bronze",
    "MINIO_ENDPOINT": "http://127.0.0.1:9000",
    "MINIO_ACCESS_KEY": "access-in-clear",
    "MINIO_SECRET_KEY": "secret-in-clear",
}
BY_ALIAS = {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze", "MINIO_ALIAS": "mi_minio"}


def load(**more):
    return load_settings(ENOUGH | more, env_file=None)


def fault(environ, env_file=None):
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, env_file)
    return str(caught.value)


def refused(**more):
    return fault(ENOUGH | more)


@pytest.fixture
def mc(tmp_path):
    """Write mc's configuration, as `mc alias set` leaves it, and return the environment that leads to it."""

    def write(folder=tmp_path / "mc", **aliases):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"version": "10", "aliases": aliases}))
        return BY_ALIAS | {"MC_CONFIG_DIR": str(folder)}

    return write


def entry(url="http://127.0.0.1:9000", key="ak", secret="sk", **more):
    return {"url": url, "accessKey": key, "secretKey": secret, "api": "s3v4", "path": "auto", **more}


# What is read, and in which order.


def test_the_originals_variables_and_defaults_still_work(mc):
    settings = load_settings(mc(mi_minio=entry()), env_file=None)

    assert (settings.pg_db, settings.pg_user, settings.pg_host, settings.pg_port) == (
        "cine",
        "postgres",
        "127.0.0.1",
        5432,
    )
    assert settings.cursor_names == ("created_at", "updated_at", "timestamp", "fecha", "date", "datetime")
    assert settings.interval_s == 10
    assert settings.slice_bytes == 32 * 1024 * 1024


def test_a_given_mapping_is_all_there_is(monkeypatch):
    """A developer's own PG_PASS or MINIO_REGION would otherwise decide what a test, or another instance, does."""
    for name in ("PG_PASS", "PG_USER", "MINIO_REGION", "PG_BRONZE_PREFIX", "PG_BRONZE_NONSENSE", "prefix", "pg_user"):
        monkeypatch.setenv(name, "ambient")

    settings = load()

    assert (settings.pg_user, settings.minio_region, settings.prefix) == ("postgres", "us-east-1", "")
    assert settings.pg_pass.get_secret_value() == ""


def test_without_a_mapping_the_process_environment_is_read(monkeypatch):
    monkeypatch.setattr("os.environ", ENOUGH | {"PG_USER": "lector"})

    assert load_settings(env_file=None).pg_user == "lector"


def test_who_reads_the_lake_alone_needs_to_say_nothing_of_the_database():
    """An analyst has a key for the bucket, and perhaps variables of a database that is none of this business."""
    bucket = {name: value for name, value in ENOUGH.items() if name.startswith("MINIO_")}

    settings = load_settings({**bucket, "PG_PORT": "none", "PG_SSLROOTCERT": "/nowhere"}, None, lake_only=True)

    assert settings.minio_bucket == bucket["MINIO_BUCKET"]
    assert settings.pg_port == 5432
    with pytest.raises(SettingsError, match="PG_DB is not set"):
        load_settings(bucket, None)


def test_constructing_settings_reads_no_environment(monkeypatch):
    for name, value in ENOUGH.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match="PG_DB"):
        Settings()


def test_the_environment_wins_over_the_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("PG_USER=from_file\nPG_HOST=db.example\n")

    settings = load_settings(ENOUGH | {"PG_USER": "from_environment"}, file)

    assert (settings.pg_user, settings.pg_host) == ("from_environment", "db.example")


def test_the_file_is_dot_env_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("PG_USER=lector\n")
    monkeypatch.chdir(tmp_path)

    assert load_settings(ENOUGH).pg_user == "lector"


def test_an_empty_value_counts_as_not_set():
    assert load(PG_HOST="", PG_BRONZE_SLICE_ROWS=" ", PG_BRONZE_TAKEOVER="", PG_BRONZE_CURSOR_NAMES="") == load()


def test_blanks_around_a_password_are_part_of_it():
    assert load(PG_PASS=" x ").pg_pass.get_secret_value() == " x "


# What is wrong is said once, completely, and without secrets.


def test_all_faults_are_listed_at_once():
    message = fault(
        {"PG_PORT": "70000", "PG_BRONZE_LAYOUT": "hourly", "PG_BRONZE_INTERVALS": "3", "MINIO_BUCKET": "Meteo_Bronze"}
    )

    assert message.startswith("6 settings need attention:")
    assert "PG_DB is not set" in message
    assert "PG_PORT is '70000': it must be at most 65535." in message
    assert "PG_BRONZE_LAYOUT is 'hourly': it must be 'flat' or 'date'." in message
    assert "PG_BRONZE_INTERVALS is no setting. Did you mean PG_BRONZE_INTERVAL_S?" in message
    assert "MINIO_BUCKET is 'Meteo_Bronze'" in message
    assert "MINIO_ALIAS" in message
    assert "MINIO_ENDPOINT is not set" not in message


def test_a_single_fault_is_a_sentence_without_a_list():
    assert refused(PG_PORT="x") == "PG_PORT is 'x': it must be a whole number."


@pytest.mark.parametrize(
    "name, value",
    [
        ("PG_PORT", "0"),
        ("PG_PORT", "tcp://10.0.0.7:5432"),
        ("PG_HOST", "a.example,,b.example"),
        ("PG_HOST", "db.example:5432"),
        ("PG_SSLMODE", "allow"),
        ("MINIO_ENDPOINT", "minio.example"),
        ("MINIO_ENDPOINT", "ftp://minio.example:9000"),
        ("MINIO_ENDPOINT", "http://minio.example:9000/meteo-bronze"),
        ("MINIO_ENDPOINT", "http://minio.example:port"),
        ("MINIO_BUCKET", "ab"),
        ("MINIO_BUCKET", "meteo..bronze"),
        ("MINIO_BUCKET", "10.0.0.7"),
        ("MINIO_BUCKET", "bronze-s3alias"),
        ("MINIO_BUCKET", "a" * 64),
        ("PG_BRONZE_INTERVAL_S", "4.9"),
        ("PG_BRONZE_INTERVAL_S", "nan"),
        ("PG_BRONZE_INTERVAL_S", "inf"),
        ("PG_BRONZE_SLICE_ROWS", "0"),
        ("PG_BRONZE_SLICE_ROWS", "1.5"),
        ("PG_BRONZE_SLICE_BYTES", "1KiB"),
        ("PG_BRONZE_SLICE_BYTES", "2GiB"),
        ("PG_BRONZE_SLICE_BYTES", "much"),
        ("PG_BRONZE_COMPRESSION", "lzo"),
        ("PG_BRONZE_UNTRACKED", "ignore"),
        ("PG_BRONZE_TAKEOVER", "adopt"),
        ("PG_BRONZE_UNFENCED", "perhaps"),
        ("PG_BRONZE_CONNECT_TIMEOUT_S", "1"),
        ("PG_BRONZE_MAX_RUN_S", "59"),
        ("PG_BRONZE_START_DATE", "20260102"),
        ("PG_BRONZE_START_DATE", "2026-02-30"),
        ("PG_BRONZE_PREFIX", "a//b"),
        ("PG_BRONZE_PREFIX", "a/../b"),
        ("PG_BRONZE_PREFIX", "what?"),
        ("PG_BRONZE_PREFIX", "_pg_bronze/x"),
        ("PG_BRONZE_PREFIX", "x" * 401),
        ("PG_BRONZE_CURSOR_NAMES", "[1]"),
        ("PG_BRONZE_CURSOR_NAMES", '["a"'),
        ("PG_BRONZE_INCLUDE", "public.movie"),
        ("PG_BRONZE_EXCLUDE", "a, public.*"),
        ("PG_BRONZE_TABLES", "[]"),
        ("PG_BRONZE_TABLES", "{"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name, value):
    assert re.match(rf"{name} is '?{re.escape(value[:40])}.*: .+\.$", refused(**{name: value}), re.DOTALL)


@pytest.mark.parametrize(
    "name, value",
    [
        ("PG_HOST", "postgresql://u:hunter2@db.example/cine"),
        ("PG_DB", "postgresql://u:hunter2@db.example/cine"),
        ("PG_PORT", "5432 password=hunter2"),
        ("PG_CONTROL_URL", "postgresql://u:hunter2/x@db.example/cine"),
        ("PG_CONTROL_URL", "postgresql://u:hunter2%@db.example/cine"),
        ("PG_CONTROL_URL", "mysql://u:hunter2@db.example/cine"),
        ("PG_CONTROL_URL", "postgresql://u:hunter2@db.example"),
        ("PG_CONTROL_URL", "hunter2"),
        ("MINIO_ENDPOINT", "http://ak:hunter2@minio.example:9000"),
        ("MINIO_ACCESS_KEY", "hunter2 "),
        ("MINIO_SECRET_KEY", "hunter2\n"),
    ],
)
def test_no_message_shows_a_secret(name, value):
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})

    assert name in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_printed_settings_show_no_secret():
    settings = load(PG_PASS="hunter2", PG_CONTROL_URL="postgresql://u:hunter2@db.example/ops")

    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()} {settings.s3}"

    assert not [secret for secret in ("hunter2", "access-in-clear", "secret-in-clear") if secret in shown]


def test_an_unknown_option_is_an_error_in_the_file_too(tmp_path):
    file = tmp_path / ".env"
    file.write_text("PG_BRONZE_COMPRESION=zstd\n")

    assert fault(ENOUGH, file) == "PG_BRONZE_COMPRESION is no setting. Did you mean PG_BRONZE_COMPRESSION?"


def test_a_name_in_lower_case_is_not_passed_over():
    assert "Did you mean PG_BRONZE_PREFIX?" in refused(pg_bronze_prefix="shop")


@pytest.mark.parametrize(
    "name",
    [
        "PG_BRONZE_PG_BINDIR",
        "PG_BRONZE_MINIO_BIN",
        "PG_BRONZE_DEMO_PORT",
        "PG_BRONZE_TEST_DSN",
        # Kubernetes sets these in every pod beside services called pg-bronze and pg-bronze-web.
        "PG_BRONZE_SERVICE_HOST",
        "PG_BRONZE_PORT",
        "PG_BRONZE_PORT_3000_TCP_ADDR",
        "PG_BRONZE_WEB_SERVICE_PORT_HTTP",
    ],
)
def test_variables_of_others_with_our_prefix_are_let_pass(name):
    assert load(**{name: "x"}) == load()


# The bucket's server.


def test_mc_writes_the_server_and_keys_that_an_alias_stands_for(mc):
    s3 = load_settings(mc(mi_minio=entry("https://minio.example", "ak", "s/k+")), env_file=None).s3

    assert (s3.endpoint_url, s3.use_ssl, s3.verify) == ("https://minio.example", True, True)
    assert (s3.access_key.get_secret_value(), s3.secret_key.get_secret_value()) == ("ak", "s/k+")


def test_mc_keeps_its_configuration_in_the_home_folder(mc, tmp_path):
    mc(tmp_path / ".mc", mi_minio=entry())

    assert load_settings(BY_ALIAS | {"HOME": str(tmp_path)}, env_file=None).minio_endpoint == "http://127.0.0.1:9000"


def test_a_variable_of_mc_wins_over_its_file(mc):
    """mc decodes nothing, and so do we: a decoded key would be another key."""
    environ = mc(mi_minio=entry()) | {"MC_HOST_mi_minio": "https://ak2:s%2F@k2@minio.example:9443/"}

    s3 = load_settings(environ, env_file=None).s3

    assert (s3.endpoint_url, s3.use_ssl) == ("https://minio.example:9443", True)
    assert (s3.access_key.get_secret_value(), s3.secret_key.get_secret_value()) == ("ak2", "s%2F@k2")


@pytest.mark.parametrize(
    "url", ["minio.example", "https://hunter2@minio.example", "https://ak:hunter2@minio.example/b"]
)
def test_a_bad_variable_of_mc_is_named_without_its_value(url):
    message = fault(BY_ALIAS | {"MC_HOST_mi_minio": url})

    assert message.startswith("MC_HOST_mi_minio: ")
    assert "hunter2" not in message


def test_a_session_token_is_refused_because_it_expires(mc):
    assert "session token" in fault(BY_ALIAS | {"MC_HOST_mi_minio": "https://ak:hunter2:token@minio.example"})
    assert "session token" in fault(mc(mi_minio=entry(sessionToken="t")))


def test_an_alias_that_mc_does_not_know_is_answered_with_those_it_knows(mc):
    message = fault(mc(local=entry(), play=entry()))

    assert message.startswith("MINIO_ALIAS is 'mi_minio': ")
    assert "config.json has no such alias (it has local, play)" in message
    assert "mc alias set mi_minio" in message


def test_a_missing_mc_configuration_is_a_sentence(tmp_path):
    message = fault(BY_ALIAS | {"MC_CONFIG_DIR": str(tmp_path)})

    assert f"{tmp_path / 'config.json'} does not exist" in message


def test_an_alias_without_any_home_is_a_sentence():
    assert "neither MC_CONFIG_DIR nor HOME is set" in fault(BY_ALIAS)


@pytest.mark.parametrize(
    "content", ['{"aliases": {"mi_minio": {"secretKey": "hunter2"', "[]", '{"aliases": "hunter2"}']
)
def test_a_damaged_mc_configuration_is_a_sentence_without_its_content(tmp_path, content):
    (tmp_path / "config.json").write_text(content)

    message = fault(BY_ALIAS | {"MC_CONFIG_DIR": str(tmp_path)})

    assert "is not the JSON that mc writes" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("alias", [entry(key="", secret=""), {}, "x", {"url": 3}])
def test_an_alias_without_keys_is_a_sentence(mc, alias):
    assert "it has no keys" in fault(mc(mi_minio=alias))


def test_a_bad_url_behind_an_alias_names_the_alias(mc):
    assert fault(mc(mi_minio=entry("minio"))).startswith("MINIO_ALIAS is 'mi_minio', in ")


def test_alias_and_server_together_are_refused(mc):
    """Taking either in silence might copy a database to the wrong server."""
    message = fault(mc(mi_minio=entry()) | ENOUGH)

    assert message == (
        "MINIO_ALIAS and MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY are both set, "
        "and each names a server for the bucket: keep one."
    )


def test_a_server_in_the_environment_replaces_an_alias_in_the_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("MINIO_ALIAS=mi_minio\n")

    settings = load_settings(ENOUGH, file)

    assert (settings.minio_alias, settings.minio_endpoint) == (None, "http://127.0.0.1:9000")


def test_an_alias_in_the_environment_replaces_a_server_in_the_file(mc, tmp_path):
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in ENOUGH.items()))

    settings = load_settings(mc(mi_minio=entry("https://minio.example")), file)

    assert settings.minio_endpoint == "https://minio.example"


def test_a_secret_from_the_environment_completes_the_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in ENOUGH.items() if name != "MINIO_SECRET_KEY"))

    assert load_settings({"MINIO_SECRET_KEY": "sk"}, file).minio_secret_key.get_secret_value() == "sk"


def test_half_a_server_is_told_what_is_missing():
    message = fault(BY_ALIAS | {"MINIO_ALIAS": "", "MINIO_ENDPOINT": "http://127.0.0.1:9000"})

    assert message.startswith("MINIO_ACCESS_KEY, MINIO_SECRET_KEY: not set, but MINIO_ENDPOINT is")


def test_no_server_at_all_is_told_both_ways():
    message = fault({"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze"})

    assert "MINIO_ALIAS" in message
    assert "all of MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY" in message


@pytest.mark.parametrize(
    "given, endpoint, use_ssl",
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000", False),
        ("https://s3.eu-west-1.amazonaws.com/", "https://s3.eu-west-1.amazonaws.com", True),
        ("HTTP://[::1]:9000", "http://[::1]:9000", False),
    ],
)
def test_an_endpoint_becomes_a_url(given, endpoint, use_ssl):
    s3 = load(MINIO_ENDPOINT=given).s3

    assert (s3.endpoint_url, s3.use_ssl) == (endpoint, use_ssl)


# Values with a form of their own.


def test_bytes_may_have_a_unit():
    assert (
        load(PG_BRONZE_SLICE_BYTES="64MiB").slice_bytes == load(PG_BRONZE_SLICE_BYTES="67108864").slice_bytes == 2**26
    )


def test_a_day_is_a_day():
    assert load(PG_BRONZE_START_DATE="2026-01-02").start_date == date(2026, 1, 2)


def test_slashes_around_the_prefix_are_dropped():
    assert load(PG_BRONZE_PREFIX="/shop/eu/").prefix == "shop/eu"
    assert load(PG_BRONZE_PREFIX="/").prefix == ""


@pytest.mark.parametrize(
    "given, names",
    [("creado, alta ,", ("creado", "alta")), ('["a,b", "alta"]', ("a,b", "alta")), ("[]", ())],
)
def test_cursor_names_are_a_list_in_either_form(given, names):
    assert load(PG_BRONZE_CURSOR_NAMES=given).cursor_names == names


@pytest.mark.parametrize(
    "codec, level, reason",
    [
        ("zstd", "23", "for zstd it must be 1 to 22"),
        ("gzip", "10", "for gzip it must be 0 to 9"),
        ("lz4", "1", "lz4 has no levels"),
    ],
)
def test_a_level_belongs_to_its_codec(codec, level, reason):
    assert reason in refused(PG_BRONZE_COMPRESSION=codec, PG_BRONZE_COMPRESSION_LEVEL=level)
    assert load(PG_BRONZE_COMPRESSION="gzip", PG_BRONZE_COMPRESSION_LEVEL="9").compression_level == 9


def test_include_and_exclude_are_patterns_over_labels():
    settings = load(PG_BRONZE_INCLUDE="[mp]*, sales.*", PG_BRONZE_EXCLUDE="sales.tmp_*, person")

    assert [t for t in ("movie", "person", "genre", "sales.movie", "sales.tmp_1") if settings.wants(t)] == [
        "movie",
        "sales.movie",
    ]
    assert load().wants("anything")


def test_options_of_a_table_are_final():
    settings = load(
        PG_BRONZE_SLICE_ROWS="900",
        PG_BRONZE_UNTRACKED="skip",
        PG_BRONZE_TAKEOVER="fresh",
        PG_BRONZE_INFINITY="null",
        PG_BRONZE_TABLES="""{
            "movie": {"cursor_column": "updated_at", "slice_rows": null, "nan": "text"},
            "sales.movie": {"untracked": "sweep"}
        }""",
    )

    assert settings.table_options("genre") == TableOptions(
        slice_rows=900, untracked="skip", takeover="fresh", infinity="null"
    )
    assert settings.table_options("movie") == TableOptions(
        cursor_column="updated_at",
        slice_rows=None,
        untracked="skip",
        takeover="fresh",
        infinity="null",
        nan="text",
    )
    assert settings.table_options("sales.movie").untracked == "sweep"


@pytest.mark.parametrize(
    "tables, found",
    [
        ('{"movie": {"slice_row": 5}}', "(movie, slice_row) is '5': no such option; a table has cursor_column, "),
        ('{"movie": {"slice_rows": "5"}}', "(movie, slice_rows) is '5': it must be a whole number."),
        ('{"movie": {"slice_rows": true}}', "(movie, slice_rows) is 'True': it must be a whole number."),
        ('{"movie": {"takeover": "adopt"}}', "it must be 'adopt-seed' or 'fresh'."),
        ('{"movie": {"nan": "sentinel"}}', "(movie, nan) is 'sentinel': it must be 'error', 'text' or 'null'."),
        ('{"movie": 5}', "(movie) is '5': it must be a JSON object with some of cursor_column, "),
        ('{"movie": {}, "movie": {}}', "the JSON names movie twice."),
        ('{"movie"}', "it is not valid JSON"),
        ('{"public.movie": {}}', "tables of the schema public go by their name alone: movie."),
    ],
)
def test_a_wrong_option_of_a_table_is_named(tables, found):
    message = refused(PG_BRONZE_TABLES=tables)

    assert message.startswith("PG_BRONZE_TABLES")
    assert found in message


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        load().pg_db = "other"
    with pytest.raises(ValidationError):
        load().table_options("movie").slice_rows = 1


# How the database is reached.


def test_the_two_readers_reach_the_same_database():
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
def test_libpq_reads_any_password_back_from_the_url(password):
    url = load(PG_PASS=password).source_url()

    assert psycopg.conninfo.conninfo_to_dict(url)["password"] == password


@pytest.mark.parametrize("host, in_url", [("/run/postgresql", "%2Frun%2Fpostgresql"), ("[::1]", "[::1]")])
def test_sockets_and_ipv6_addresses_are_hosts(host, in_url):
    settings = load(PG_HOST=host)

    assert f"@{in_url}:5432/" in settings.source_url()
    assert psycopg.conninfo.conninfo_to_dict(settings.source_url())["host"] == settings.source_conninfo("x")["host"]


def test_an_empty_password_keeps_an_ambient_one_out(monkeypatch):
    """libpq would take PGPASSWORD, which no setting mentions; a password file still counts."""
    assert load().source_conninfo("x")["password"] == ""
    assert "postgres@127.0.0.1" in load().source_url()


def test_verify_ca_is_spelled_for_each_reader(tmp_path):
    certificate = tmp_path / "root ca.crt"
    certificate.touch()

    settings = load(PG_SSLMODE="verify-ca", PG_SSLROOTCERT=str(certificate))

    options = parse_qs(urlsplit(settings.source_url()).query)
    assert (options["sslmode"], options["sslrootcert"]) == (["require"], [str(certificate)])
    info = settings.source_conninfo("x")
    assert (info["sslmode"], info["sslrootcert"]) == ("verify-ca", str(certificate))


def test_a_certificate_may_be_in_the_home_folder(tmp_path):
    (tmp_path / "ca.crt").touch()

    settings = load(HOME=str(tmp_path), PG_SSLMODE="require", PG_SSLROOTCERT="~/ca.crt")

    assert settings.pg_sslrootcert == tmp_path / "ca.crt"


def test_encryption_that_would_not_check_what_was_asked_is_refused(tmp_path):
    certificate = tmp_path / "ca.crt"
    certificate.touch()

    for mode in ("verify-ca", "verify-full"):
        assert refused(PG_SSLMODE=mode).startswith(f"PG_SSLROOTCERT: PG_SSLMODE {mode} needs")
    assert "there is no such file" in refused(PG_SSLMODE="verify-ca", PG_SSLROOTCERT="absent.crt")
    assert "PG_SSLMODE prefer would not check it" in refused(PG_SSLROOTCERT=str(certificate))


def beyond_connectorx(folder) -> list[dict[str, str]]:
    """Settings that only the second reader can do."""
    certificate, passwords = folder / "ca.crt", folder / "pgpass"
    certificate.touch()
    passwords.touch()
    return [
        {"PG_SSLMODE": "verify-full", "PG_SSLROOTCERT": str(certificate)},
        {"PG_HOST": "one.example, [::1]"},
        {"PG_PASSFILE": str(passwords)},
    ]


def test_what_connectorx_cannot_do_is_left_to_the_other_reader(tmp_path):
    """It would check no host name, without a word."""
    assert load().source_url() is not None
    assert load(PG_BRONZE_READER="copy").source_url() is None
    for variables in beyond_connectorx(tmp_path):
        settings = load(**variables)
        assert settings.source_url() is None
        psycopg.conninfo.make_conninfo(**settings.source_conninfo("x"))
        assert "set it to auto or copy" in refused(**variables, PG_BRONZE_READER="connectorx")
    assert load(PG_HOST="one.example, [::1]").source_conninfo("x")["host"] == "one.example,::1"


def test_a_password_file_is_handed_to_libpq(tmp_path):
    (tmp_path / "passwords").touch()

    info = load(HOME=str(tmp_path), PG_PASSFILE="~/passwords").source_conninfo("x")

    assert info["passfile"] == str(tmp_path / "passwords")
    assert "there is no such file" in refused(PG_PASSFILE="absent")


def test_timeouts_are_in_each_readers_unit():
    settings = load(PG_BRONZE_CONNECT_TIMEOUT_S="7")

    options = parse_qs(urlsplit(settings.source_url()).query)
    info = settings.source_conninfo("x")

    assert int(options["connect_timeout"][0]) == info["connect_timeout"] == 7
    assert int(options["tcp_user_timeout"][0]) * 1000 == info["tcp_user_timeout"]
    assert "client_encoding" not in options
    assert info["client_encoding"] == "utf8"


def test_every_option_for_psycopg_is_one_that_libpq_knows():
    psycopg.conninfo.make_conninfo(**load().source_conninfo("x"))
    psycopg.conninfo.make_conninfo(**load(PG_CONTROL_URL="postgresql://u@db.example/ops").control_conninfo("x"))


def test_the_mirror_is_in_the_source_database_or_elsewhere_or_off():
    url = "postgresql://u:p@db.example/ops"

    assert (load().control_mirror, load().control_conninfo("x")) == ("source", load().source_conninfo("x"))
    elsewhere = load(PG_CONTROL_URL=url)
    assert (elsewhere.control_mirror, elsewhere.control_conninfo("x")["conninfo"]) == ("url", url)
    assert (load(PG_CONTROL_URL="OFF").control_mirror, load(PG_CONTROL_URL="OFF").control_conninfo("x")) == (
        "off",
        None,
    )


def test_a_fingerprint_changes_with_a_setting_and_not_with_a_secret():
    assert load().fingerprint() == load(PG_PASS="x", MINIO_SECRET_KEY="y").fingerprint()
    assert load().fingerprint() != load(PG_BRONZE_LAYOUT="date").fingerprint()
    assert load().fingerprint() != load(PG_CONTROL_URL="off").fingerprint()


# What people read.


def test_the_page_holds_the_table_that_the_code_renders():
    """To renew it: python -c "from pg_bronze.settings import settings_table; print(settings_table())"."""
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_setting_is_described_on_one_line_of_the_table():
    rows = settings_table().splitlines()[2:]

    assert len(rows) == len(Settings.model_fields)
    assert all(row.count("|") == 4 and row.endswith(". |") for row in rows)


def test_the_example_file_loads_as_it_stands(mc, tmp_path):
    where = {"MC_CONFIG_DIR": mc(tmp_path / "m", mi_minio=entry())["MC_CONFIG_DIR"]}

    settings = load_settings(where, ROOT / ".env.example")

    assert (settings.pg_db, settings.minio_bucket, settings.minio_alias) == ("cine", "meteo-bronze", "mi_minio")
    assert settings.model_dump(
        exclude={"pg_db", "minio_bucket"} | {f for f in Settings.model_fields if f[:5] == "minio"}
    ) == (load().model_dump(exclude={"pg_db", "minio_bucket"} | {f for f in Settings.model_fields if f[:5] == "minio"}))


def test_every_line_of_the_example_file_that_is_switched_off_could_be_switched_on(tmp_path):
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    certificate = tmp_path / "ca.crt"
    certificate.touch()
    text = re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE)
    text = re.sub(r"^MINIO_ALIAS=.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("PG_SSLMODE=prefer", "PG_SSLMODE=verify-ca")
    text = re.sub("^PG_SSLROOTCERT=.*", f"PG_SSLROOTCERT={certificate}", text, flags=re.MULTILINE)
    file = tmp_path / ".env"
    file.write_text(text)

    settings = load_settings({"MINIO_ACCESS_KEY": "ak", "MINIO_SECRET_KEY": "sk"}, file)

    assert settings.tables["movie"].slice_rows == 5000
    assert settings.include == ("movie", "person", "sales.*")


def test_the_example_file_names_every_setting_of_the_original():
    text = (ROOT / ".env.example").read_text(encoding="utf-8")

    for name in ("PG_DB", "PG_USER", "PG_PASS", "PG_HOST", "MINIO_ALIAS", "MINIO_BUCKET"):
        assert re.search(rf"^(# )?{name}=", text, re.MULTILINE)
