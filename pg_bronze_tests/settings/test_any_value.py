"""Any value of any setting: it is accepted and usable, or one error names the setting."""

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg.conninfo
import pytest
import urllib3
from botocore.utils import validate_region_name

from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import dagster_home, load_settings
from pg_bronze.settings.model import FIELDS
from pg_bronze.settings.tables import TableOptions
from pg_bronze_tests.settings.conftest import MINIMUM, error_of, load

PLANTED = "pl4nted-secret"
VALUES = [
    *("", " ", "\t\n", "0", "-1", "-0", "1", "2", "60", "1.5", "1e3", "1_000", "0x10", "٣", "１", "+5", "9" * 5000),
    *("1e308", "1e999", "-1e999", "NaN", "inf", "-inf", "2147483648", "9223372036854775808", "99999999999999999999"),
    *("true", "no", "null", "None", "off", "[]", "{}", '""', "[1]", '["a"]', '{"movie": null}', '{"": {}}', "{", "]"),
    *("[" * 50_000, '{"a":' * 15_000, "9" * 90_000, "a" * 1_000_000, "a," * 40_000, '{"movie": {"slice_rows": 1e999}}'),
    *("ñandú", "日本", "🎬", "\u202emovie", "e\u0301", "\ufeffx", "\udcff", "a\udcffb", "\x00", "a\nb", "a\r\nb"),
    *("'; drop table movie; --", '"; x', "\\", "%", "%s%n", "%00", "$(reboot)", "`id`", "${HOME}", "{PG_PASS}", "a b"),
    *("/", "//", "..", "../../etc/passwd", "~", "~/x", "~nobody", "/dev/null", "/dev/full", ".", "*", "[", "[!", "**"),
    *("tcp://10.96.0.1:5432", "http://", "http://[::1", "http://[::1]:9000", "http://a:99999", "http://:9000", ":9000"),
    *("postgresql://", "postgresql://u@[::1", "postgresql://u:p@h:x/d", "postgresql://u@h/d?x=1", "postgresql://h/%00"),
    *(f"postgresql://u:{PLANTED}@h:1:2/d", f"http://u:{PLANTED}@h", "postgresql://h/d?x=%zz", "::1", "[::1", "a,,b"),
    *("2026-01-02", "0001-01-01", "9999-12-31", "2999-01-01", "-2026-01-02", "2026-W01-1", "2026-02-30"),
    *("host=other", "d' host='other", "d host=other", "-c role=postgres", "us-east-1 ", "us east", "-a", "a" * 64),
    *("10GiB", "-1MiB", "1e999GiB", "64KiB", "1 GiB", "zstd", "ZSTD", "auto", "AUTO", "verify-full", "date", "fresh"),
]  # fmt: skip


def use(settings):
    """Build everything that is built of settings without a server."""
    info = settings.source_conninfo("x")
    read = psycopg.conninfo.conninfo_to_dict(psycopg.conninfo.make_conninfo(**info))
    assert (read["host"], read["dbname"], read["user"]) == (info["host"], info["dbname"], info["user"])
    if url := settings.source_url():
        same = psycopg.conninfo.conninfo_to_dict(url)
        assert (same["host"], same["dbname"], same["user"]) == (info["host"], info["dbname"], info["user"])
    with contextlib.suppress(psycopg.Error):  # the run then reports that nothing is mirrored, and why
        psycopg.conninfo.make_conninfo(**settings.control_conninfo("x") or {})
    validate_region_name(settings.s3.region)
    if settings.alert_url:
        assert urllib3.util.parse_url(settings.alert_url.get_secret_value()).host
    settings.fingerprint()
    settings.wants("sales.movie")
    settings.table_options("movie")
    settings.model_dump_json()
    json.dumps(settings.prefix)


def problem_of(variables):
    """Return the message of the error; None if the settings load, and can then be used."""
    try:
        settings = load(**variables)
    except SettingsError as error:
        return str(error)
    use(settings)
    return None


@pytest.mark.parametrize("name", FIELDS)
def test_any_value_is_usable_or_reported_by_name(name):
    """A traceback, or a failure of every later tick, would not say which setting is wrong."""
    for value in VALUES:
        if problem := problem_of({name: value}):
            by_name = name in problem or ("MINIO_ALIAS" in problem and name.startswith("MINIO_"))
            assert by_name, (value[:40], problem)
            assert len(problem) < 3000
            assert PLANTED not in problem


@pytest.mark.parametrize("option", TableOptions.model_fields)
def test_any_option_of_a_table_is_usable_or_reported_by_name(option):
    odd = [None, True, -1, 0, 1.5, 10**30, "", "a" * 50_000, "\udcff", [], {}, [[]], {"a": 1}, "fresh", "text", "ñ"]
    for value in odd:
        variables = {"PG_BRONZE_TABLES": json.dumps({"movie": {option: value}})}
        problem = problem_of(variables)
        assert problem is None or re.match(rf"PG_BRONZE_TABLES \(movie, {option}", problem), (value, problem)


def test_a_start_date_is_at_most_today():
    """Dagster has no partition before it, so nothing would be copied."""
    today = datetime.now(UTC).date()

    assert load(PG_BRONZE_START_DATE=str(today)).start_date == today
    late = problem_of({"PG_BRONZE_START_DATE": str(today + timedelta(days=2))})
    assert re.match(r"PG_BRONZE_START_DATE is '.*': it must be at most .*, today in UTC\.$", late)


def test_a_port_that_kubernetes_sets_for_a_service_is_not_a_setting(tmp_path):
    """Every pod has PG_PORT=tcp://… if there is a service named pg, and it would replace the port in .env."""
    file = tmp_path / ".env"
    file.write_text("PG_PORT=6432\n")
    service = {"PG_SERVICE_HOST": "10.96.0.1", "PG_SERVICE_PORT": "5432", "PG_PORT": "tcp://10.96.0.1:5432"}

    assert load_settings(MINIMUM | service, file).pg_port == 6432
    file.write_text("PG_PORT=tcp://10.96.0.1:5432\n")
    assert error_of(MINIMUM, file) == "PG_PORT is 'tcp://10.96.0.1:5432': it must be a whole number."


@pytest.mark.parametrize(
    "value, problem",
    [
        ("state", "DAGSTER_HOME is 'state': it must be an absolute path, such as '{cwd}/state'. Set it to the folder"),
        ("{folder}/absent", "DAGSTER_HOME is '{folder}/absent': there is no such folder. Create it, or unset DAGSTER_"),
        ("~/absent", "DAGSTER_HOME is '~/absent': there is no such folder. Create it, or unset DAGSTER_HOME."),
    ],
)
def test_a_folder_of_dagster_that_cannot_be_used_is_explained(tmp_path, monkeypatch, value, problem):
    """Dagster's error is a traceback whose last line names no variable."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", value.format(folder=tmp_path))

    with pytest.raises(SettingsError) as error:
        dagster_home()

    assert str(error.value).startswith(problem.format(folder=tmp_path, cwd=Path.cwd()))


def test_a_folder_of_dagster_in_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "~")

    assert dagster_home() == str(tmp_path)


def test_a_value_that_is_not_utf8_is_not_reported_as_missing():
    assert problem_of({"PG_DB": "cine\udcff"}).startswith("PG_DB contains bytes that are not valid UTF-8")


@pytest.mark.parametrize("name", ["PG_BRONZE_INCLUDE", "PG_BRONZE_EXCLUDE"])
@pytest.mark.parametrize(
    "pattern, problem",
    [
        ("[", "'[' has a [ without a ]. Write [[] for the character [."),
        ("movie, sales.[ab", "'sales.[ab' has a [ without a ]."),
        ("[]", "'[]' has a [ without a ]."),
        ("[!]", "'[!]' has a [ without a ]."),
        ("[a]*[", "'[a]*[' has a [ without a ]."),
        ("movie_[9-0]", "'movie_[9-0]' has an empty range in [9-0]."),
        ("[!z-a]", "'[!z-a]' has an empty range in [z-a]."),
    ],
)
def test_a_pattern_that_does_not_mean_what_it_seems_to_is_reported(name, pattern, problem):
    """It matches no table, so that nothing is copied, or an excluded table is."""
    found = problem_of({name: pattern})

    assert found is not None
    assert found.startswith(f"{name} is ")
    assert f"the pattern {problem}" in found


def test_a_pattern_with_complete_brackets_is_accepted():
    found = load(PG_BRONZE_INCLUDE="movie_[0-9], [[]x, []]y, [!a-c]z, a]b, [-a], [a-]")
    for label in ("movie_7", "[x", "]y", "dz", "a]b", "-"):
        assert found.wants(label), label


def test_a_number_of_thousands_of_digits_is_explained_without_python():
    found = problem_of({"PG_BRONZE_TABLES": '{"movie": {"slice_rows": ' + "9" * 5000 + "}}"})

    assert found is not None
    assert found.startswith("PG_BRONZE_TABLES is ")
    assert found.endswith(": it contains a number of 5,000 digits; at most 100 are allowed.")


@pytest.mark.parametrize("name, value", [("POLARS_MAX_THREADS", "0"), ("POLARS_MAX_THREADS", "9" * 5000)])
def test_a_variable_with_which_polars_ends_in_a_panic_is_a_problem(name, value):
    """Every table would fail with a traceback that names no variable."""
    expected = rf"{name} is '.*': it must be from 1 to 1024\. Correct it, or unset it\.$"
    assert re.match(expected, problem_of({name: value}))
    assert problem_of({name: "2"}) is None
