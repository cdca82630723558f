"""Error messages: each names the setting and what it must be, and none contains a secret."""

import re

import pytest

from pg_bronze.errors import SettingsError
from pg_bronze_tests.settings.conftest import MINIMUM, error_of, error_with, load


@pytest.mark.parametrize(
    "name, value",
    [
        ("PG_PORT", "0"),
        ("PG_PORT", "http://10.0.0.7:5432"),
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
        ("PG_BRONZE_INTERVAL_S", "1.9"),
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
def test_an_invalid_value_is_reported_by_name(name, value):
    assert re.match(rf"{name} is '?{re.escape(value[:40])}.*: .+\.$", error_with(**{name: value}), re.DOTALL)


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
def test_no_message_contains_a_secret(name, value):
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})

    assert name in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_an_unknown_name_in_the_file_is_an_error(tmp_path):
    file = tmp_path / ".env"
    file.write_text("PG_BRONZE_COMPRESION=zstd\n")

    assert error_of(MINIMUM, file) == (
        "PG_BRONZE_COMPRESION is not a known setting. Did you mean PG_BRONZE_COMPRESSION?"
    )


def test_an_unknown_name_without_a_similar_setting_is_an_error():
    assert error_with(PG_BRONZE_QQQQQQ="1") == "PG_BRONZE_QQQQQQ is not a known setting. Remove it."


def test_a_name_in_lower_case_is_an_error():
    """It would be ignored on Linux: environment variables are case-sensitive."""
    assert "Did you mean PG_BRONZE_PREFIX?" in error_with(pg_bronze_prefix="shop")


@pytest.mark.parametrize(
    "name",
    [
        "PG_BRONZE_PG_BINDIR",
        "PG_BRONZE_MINIO_BIN",
        "PG_BRONZE_DEMO_PORT",
        "PG_BRONZE_TEST_DSN",
        # Kubernetes sets these in every pod for services named pg-bronze and pg-bronze-web.
        "PG_BRONZE_SERVICE_HOST",
        "PG_BRONZE_PORT",
        "PG_BRONZE_PORT_3000_TCP_ADDR",
        "PG_BRONZE_WEB_SERVICE_PORT_HTTP",
    ],
)
def test_variables_that_are_not_settings_are_ignored(name):
    assert load(**{name: "x"}) == load()


@pytest.mark.parametrize(
    "tables, problem",
    [
        ('{"movie": {"slice_row": 5}}', "'5': it is not an option of a table. Did you mean slice_rows?"),
        ('{"movie": {"zoom": 5}}', "(movie, zoom) is '5': it is not an option of a table. These are "),
        ('{"movie": {"slice_rows": "5"}}', "(movie, slice_rows) is '5': it must be a whole number."),
        ('{"movie": {"slice_rows": true}}', "(movie, slice_rows) is 'True': it must be a whole number."),
        ('{"movie": {"takeover": "adopt"}}', "it must be 'adopt-seed' or 'fresh'."),
        ('{"movie": {"nan": "sentinel"}}', "(movie, nan) is 'sentinel': it must be 'error', 'text' or 'null'."),
        ('{"movie": 5}', "(movie) is '5': it must be a JSON object with options of cursor_column, "),
        ('{"movie": {}, "movie": {}}', "the JSON object contains movie twice."),
        ('{"movie"}', "it is not valid JSON"),
        ('{"public.movie": {}}', "tables of the schema public are named without it: movie."),
    ],
)
def test_an_invalid_option_of_a_table_is_reported_with_the_table(tables, problem):
    message = error_with(PG_BRONZE_TABLES=tables)

    assert message.startswith("PG_BRONZE_TABLES")
    assert problem in message
