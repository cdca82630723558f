"""The settings as a value: immutable, printable, comparable, valid within each section."""

from datetime import date

import pytest
from pydantic import ValidationError

from pg_bronze.lake import s3_client
from pg_bronze.settings.model import Settings
from pg_bronze.settings.tables import TableOptions
from pg_bronze_tests.settings.conftest import MINIMUM, error_with, load


def test_constructing_settings_reads_no_environment(monkeypatch):
    for name, value in MINIMUM.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match="PG_DB"):
        Settings()


def test_an_unknown_argument_is_an_error_that_shows_no_value():
    with pytest.raises(ValidationError, match="Extra inputs") as caught:
        Settings(**MINIMUM, PG_PASSWORD="hunter2")

    assert "hunter2" not in str(caught.value)


def test_settings_are_immutable():
    with pytest.raises(ValidationError):
        load().pg_db = "other"
    with pytest.raises(ValidationError):
        load().table_options("movie").slice_rows = 1


def test_printed_settings_contain_no_secret():
    settings = load(PG_PASS="hunter2", PG_CONTROL_URL="postgresql://u:hunter2@db.example/ops")

    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()} {settings.s3}"

    assert not [secret for secret in ("hunter2", "access-in-clear", "secret-in-clear") if secret in shown]


def test_a_fingerprint_changes_with_every_setting_except_secrets():
    assert load().fingerprint() == load(PG_PASS="x", MINIO_SECRET_KEY="y").fingerprint()
    assert load().fingerprint() != load(PG_BRONZE_LAYOUT="date").fingerprint()
    assert load().fingerprint() != load(PG_CONTROL_URL="off").fingerprint()


def test_a_fingerprint_does_not_change_with_the_format_of_log_lines():
    """A failing table is retried at once by each process whose fingerprint is another one."""
    assert load().fingerprint() == load(PG_BRONZE_LOG="json").fingerprint()


def test_the_url_of_alerts_is_a_secret():
    settings = load(PG_BRONZE_ALERT_URL="https://hooks.example/services/s3cret")

    assert "s3cret" not in f"{settings!r} {settings.model_dump_json()}"
    assert "s3cret" not in error_with(PG_BRONZE_ALERT_URL="https://hooks.example/services/s3cret#part")


def test_options_of_a_table_override_the_global_values():
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


def test_include_and_exclude_are_patterns_of_table_names():
    settings = load(PG_BRONZE_INCLUDE="[mp]*, sales.*", PG_BRONZE_EXCLUDE="sales.tmp_*, person")

    assert [t for t in ("movie", "person", "genre", "sales.movie", "sales.tmp_1") if settings.wants(t)] == [
        "movie",
        "sales.movie",
    ]
    assert load().wants("anything")


@pytest.mark.parametrize(
    "text, names",
    [("creado, alta ,", ("creado", "alta")), ('["a,b", "alta"]', ("a,b", "alta")), ("[]", ())],
)
def test_cursor_names_are_a_comma_separated_or_a_json_list(text, names):
    assert load(PG_BRONZE_CURSOR_NAMES=text).cursor_names == names


def test_the_start_date_is_a_day():
    assert load(PG_BRONZE_START_DATE="2026-01-02").start_date == date(2026, 1, 2)


def test_a_size_may_have_a_unit():
    assert (
        load(PG_BRONZE_SLICE_BYTES="64MiB").slice_bytes == load(PG_BRONZE_SLICE_BYTES="67108864").slice_bytes == 2**26
    )


@pytest.mark.parametrize(
    "codec, level, reason",
    [
        ("zstd", "23", "for zstd it must be 1 to 22"),
        ("gzip", "10", "for gzip it must be 0 to 9"),
        ("lz4", "1", "lz4 has no levels"),
    ],
)
def test_a_compression_level_must_be_valid_for_its_codec(codec, level, reason):
    assert reason in error_with(PG_BRONZE_COMPRESSION=codec, PG_BRONZE_COMPRESSION_LEVEL=level)
    assert load(PG_BRONZE_COMPRESSION="gzip", PG_BRONZE_COMPRESSION_LEVEL="9").compression_level == 9


def test_slashes_around_the_prefix_are_removed():
    assert load(PG_BRONZE_PREFIX="/shop/eu/").prefix == "shop/eu"
    assert load(PG_BRONZE_PREFIX="/").prefix == ""


@pytest.mark.parametrize(
    "text, endpoint, use_ssl",
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000", False),
        ("https://s3.eu-west-1.amazonaws.com/", "https://s3.eu-west-1.amazonaws.com", True),
        ("HTTP://[::1]:9000", "http://[::1]:9000", False),
    ],
)
def test_an_endpoint_is_stored_as_a_url(text, endpoint, use_ssl):
    s3 = load(MINIO_ENDPOINT=text).s3

    assert (s3.endpoint_url, s3.use_ssl) == (endpoint, use_ssl)


@pytest.mark.parametrize("host", ["my_minio", "-minio", "a..b", "x" * 64, "münchen", "[fe80::1%eth0]"])
def test_a_host_name_that_an_s3_client_rejects_is_an_error_with_a_way_out(host):
    """botocore raises a ValueError when the client is created."""
    message = error_with(MINIO_ENDPOINT=f"http://{host}:9000")

    assert "MINIO_ENDPOINT" in message
    assert "S3 clients reject an underscore. Use the server's IP address" in message


@pytest.mark.parametrize("host", ["minio", "my-minio.example", "s3.example.", "127.0.0.1", "[::1]", "A1"])
def test_every_host_name_that_is_accepted_is_accepted_by_botocore(host):
    s3_client.connect(load(MINIO_ENDPOINT=f"http://{host}:9000").s3.endpoint_url, "us-east-1", "key", "secret")


def test_the_file_of_a_private_authority_must_contain_certificates(tmp_path):
    for missing in (tmp_path / "missing", tmp_path):
        assert "the file does not exist or is not readable" in error_with(MINIO_CA=str(missing))
    for content in (b"", b"garbage", b"\xff\x00"):
        (tmp_path / "ca.crt").write_bytes(content)
        assert "certificates in PEM format" in error_with(MINIO_CA=str(tmp_path / "ca.crt"))
