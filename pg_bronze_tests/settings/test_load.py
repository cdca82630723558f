"""Where settings are loaded from, and which source takes precedence."""

import pytest

from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import NOTHING_SET, load_settings
from pg_bronze_tests.settings.conftest import MINIMUM, entry, error_of, error_with, load


def test_the_variables_and_defaults_of_the_original_system_are_valid(mc):
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


def test_only_the_given_mapping_is_read(monkeypatch):
    """Otherwise the PG_PASS or MINIO_REGION of a developer's shell changes the result of a test."""
    for name in ("PG_PASS", "PG_USER", "MINIO_REGION", "PG_BRONZE_PREFIX", "PG_BRONZE_NONSENSE", "prefix", "pg_user"):
        monkeypatch.setenv(name, "ambient")

    settings = load()

    assert (settings.pg_user, settings.minio_region, settings.prefix) == ("postgres", "us-east-1", "")
    assert settings.pg_pass.get_secret_value() == ""


def test_without_a_mapping_the_environment_of_the_process_is_read(monkeypatch):
    monkeypatch.setattr("os.environ", MINIMUM | {"PG_USER": "lector"})

    assert load_settings(env_file=None).pg_user == "lector"


def test_reading_the_lake_requires_no_settings_of_the_database():
    """An analyst has keys for the bucket only, and perhaps PG_ variables of an unrelated database."""
    bucket = {name: value for name, value in MINIMUM.items() if name.startswith("MINIO_")}

    settings = load_settings({**bucket, "PG_PORT": "none", "PG_SSLROOTCERT": "/nowhere"}, None, lake_only=True)

    assert settings.minio_bucket == bucket["MINIO_BUCKET"]
    assert settings.pg_port == 5432
    with pytest.raises(SettingsError, match="PG_DB is not set"):
        load_settings(bucket, None)


def test_the_environment_takes_precedence_over_the_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("PG_USER=from_file\nPG_HOST=db.example\n")

    settings = load_settings(MINIMUM | {"PG_USER": "from_environment"}, file)

    assert (settings.pg_user, settings.pg_host) == ("from_environment", "db.example")


def test_the_default_file_is_dot_env_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("PG_USER=lector\n")
    monkeypatch.chdir(tmp_path)

    assert load_settings(MINIMUM).pg_user == "lector"


def test_an_empty_value_counts_as_not_set():
    assert load(PG_HOST="", PG_BRONZE_SLICE_ROWS=" ", PG_BRONZE_TAKEOVER="", PG_BRONZE_CURSOR_NAMES="") == load()


def test_spaces_around_a_password_belong_to_it():
    assert load(PG_PASS=" x ").pg_pass.get_secret_value() == " x "


def test_a_server_in_the_environment_replaces_an_alias_in_the_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("MINIO_ALIAS=mi_minio\n")

    settings = load_settings(MINIMUM, file)

    assert (settings.minio_alias, settings.minio_endpoint) == (None, "http://127.0.0.1:9000")


def test_an_alias_in_the_environment_replaces_a_server_in_the_file(mc, tmp_path):
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in MINIMUM.items()))

    settings = load_settings(mc(mi_minio=entry("https://minio.example")), file)

    assert settings.minio_endpoint == "https://minio.example"


def test_a_secret_in_the_environment_completes_a_server_in_the_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in MINIMUM.items() if name != "MINIO_SECRET_KEY"))

    assert load_settings({"MINIO_SECRET_KEY": "sk"}, file).minio_secret_key.get_secret_value() == "sk"


def test_a_certificate_in_the_home_directory_is_found(tmp_path):
    (tmp_path / "ca.crt").touch()

    settings = load(HOME=str(tmp_path), PG_SSLMODE="require", PG_SSLROOTCERT="~/ca.crt")

    assert settings.pg_sslrootcert == tmp_path / "ca.crt"


def test_a_certificate_or_password_file_that_does_not_exist_is_an_error():
    """With a wrong path in PG_PASSFILE, libpq ignores the file and connects without a password."""
    missing = "is 'absent': the file does not exist or is not readable."

    assert error_with(PG_SSLMODE="verify-ca", PG_SSLROOTCERT="absent") == f"PG_SSLROOTCERT {missing}"
    assert error_with(PG_PASSFILE="absent") == f"PG_PASSFILE {missing}"


def test_without_any_setting_one_sentence_says_what_to_set():
    """Somebody who starts it to see what it is would read three problems."""
    message = error_of({"PATH": "/bin"})

    assert message == NOTHING_SET
    assert "PG_DB" in message
    assert ".env.example" in message


def test_all_problems_are_reported_in_one_error(tmp_path):
    file = tmp_path / ".env"
    file.write_text("not a line\n")

    message = error_of(
        {
            "PG_PORT": "70000",
            "PG_BRONZE_LAYOUT": "hourly",
            "PG_BRONZE_INTERVALS": "3",
            "PG_PASSFILE": "absent",
            "MINIO_BUCKET": "Meteo_Bronze",
            "MINIO_CREDENTIALS": "keys",
        },
        file,
    )

    assert message.startswith("8 problems in the settings:\n- ")
    assert f"{file}, line 1: expected NAME=value." in message
    assert "PG_DB is not set. Set it in the environment or in .env. Name of the database to copy." in message
    assert "PG_PORT is '70000': it must be at most 65535." in message
    assert "PG_BRONZE_LAYOUT is 'hourly': it must be 'flat' or 'date'." in message
    assert "PG_BRONZE_INTERVALS is not a known setting. Did you mean PG_BRONZE_INTERVAL_S?" in message
    assert "PG_PASSFILE is 'absent': " in message
    assert "MINIO_BUCKET is 'Meteo_Bronze'" in message
    assert "No S3 server is configured. Set MINIO_ALIAS" in message
    assert "MINIO_ENDPOINT is not set" not in message


def test_a_single_problem_is_one_sentence():
    assert error_with(PG_PORT="x") == "PG_PORT is 'x': it must be a whole number."
