from pathlib import Path

import pytest

from pg_bronze.demo import environment, news
from pg_bronze.errors import SettingsError
from pg_bronze.settings.project import DEFAULTS, Project

PROJECT = Project(Path("/project"), DEFAULTS)

OURS_PG = {"PG_HOST": "127.0.0.1", "PG_DB": "cine"}
OURS_S3 = {"MINIO_ENDPOINT": "http://127.0.0.1:1", "MINIO_BUCKET": "meteo-bronze"}


def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> environment.Surroundings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return environment.look_around((tmp_path,))


def test_a_database_named_in_the_environment_or_in_dotenv_is_used_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PG_DB=shop\nPG_PASS='a$b'\n")
    around = given(tmp_path, monkeypatch, PG_DB="other")

    assert not around.own_postgres
    assert around.own_s3
    assert around.variables["PG_DB"] == "other"
    assert around.variables["PG_PASS"] == "a$b"


def test_nothing_of_the_users_about_other_servers_reaches_a_demo_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leftover AWS_PROFILE or PGSSLMODE would fail every run."""
    around = given(
        tmp_path,
        monkeypatch,
        PGSSLMODE="verify-full",
        PG_SSLMODE="require",
        PG_CONTROL_URL="x",
        AWS_PROFILE="work",
        MINIO_ALIAS="work",
        PG_BRONZE_INTERVAL_S="20",
        PG_BRONZE_PG_BINDIR="/x",
        NO_PROXY="a.example",
    )

    passed = environment.for_dagster(around, PROJECT, tmp_path, OURS_PG, OURS_S3)

    assert {name for name in passed if name.startswith(("PG", "AWS_", "MINIO_"))} == {
        *OURS_PG,
        *OURS_S3,
        "PG_BRONZE_INTERVAL_S",
    }
    assert passed["NO_PROXY"] == "a.example,127.0.0.1,localhost"


def test_what_belongs_to_the_users_own_servers_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = {
        "PG_DB": "shop",
        "PGSSLMODE": "require",
        "MINIO_BUCKET": "lake",
        "AWS_CA_BUNDLE": "/ca",
        "MINIO_ALIAS": "a",
    }
    around = given(tmp_path, monkeypatch, **users)

    passed = environment.for_dagster(around, PROJECT, tmp_path, {}, {})

    assert {name: passed[name] for name in users} == users


def test_dagsters_storage_is_in_the_state_folder_whatever_folder_a_command_starts_in(tmp_path: Path) -> None:
    """Otherwise two demos share watermarks, or a restart forgets them."""
    project = Path(__file__).parents[2]
    state = tmp_path / 'with blanks and "'
    state.mkdir()

    home, cwd = environment.dagster_home(environment.Surroundings({}), state, Project(project, project))

    import yaml

    copied = yaml.safe_load((home / "dagster.yaml").read_text())
    original = yaml.safe_load((project / "dagster.yaml").read_text())
    assert home == cwd == state / "dagster_home"
    assert copied["storage"]["sqlite"]["base_dir"] == str(home / original["storage"]["sqlite"]["base_dir"])
    assert "base_dir: ." not in (home / "dagster.yaml").read_text()


@pytest.mark.parametrize(
    "line",
    [
        *("  base_dir: /var/x", '  base_dir: "/var/x"', "  base_dir: {env: HOME}", "  base_dir:   "),
        *("# base_dir: x", "  my_base_dir: x", "  base_dir: # x"),
    ],
)
def test_other_lines_of_dagster_yaml_stay(line: str) -> None:
    assert environment.absolute(line, Path("/home")) == line


def test_a_dagster_home_of_the_users_is_respected_and_must_exist(tmp_path: Path) -> None:
    mine = environment.Surroundings({"DAGSTER_HOME": str(tmp_path)})
    assert environment.dagster_home(mine, tmp_path / "state", PROJECT) == (tmp_path, Path("/project"))
    with pytest.raises(SettingsError, match="DAGSTER_HOME"):
        environment.dagster_home(environment.Surroundings({"DAGSTER_HOME": str(tmp_path / "no")}), tmp_path, PROJECT)


def test_watermarks_of_the_sample_are_kept_apart_from_those_of_a_database_of_ones_own(tmp_path: Path) -> None:
    """The sample has a table movie too, in a bucket of the same name: its last object is missed in yours."""
    homes = [
        environment.dagster_home(environment.Surroundings(variables), tmp_path, PROJECT)[0]
        for variables in ({}, {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze"})
    ]

    assert homes[0] != homes[1]


def test_the_shell_file_is_for_the_user_alone_and_survives_quotes(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "env.sh"
    environment.write_shell_file(file, {"PG_PASS": "it's $HOME `x`"})
    environment.write_shell_file(file, {"PG_PASS": "it's $HOME `x`"})

    # A program the shell starts has to see it, not the shell alone.
    said = subprocess.run(["sh", "-c", '. "$0"; printenv PG_PASS', str(file)], capture_output=True, text=True)

    assert said.stdout == "it's $HOME `x`\n"
    assert file.stat().st_mode & 0o077 == 0


def test_a_shell_that_read_the_demos_own_variables_can_start_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its servers are gone by then; taken for the user's they would be waited for, for ever."""
    file = tmp_path / "env.sh"
    environment.write_shell_file(file, {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze", "DAGSTER_HOME": "/nowhere"})
    for line in file.read_text().splitlines():
        name, value = line.removeprefix("export ").split("=", 1)
        monkeypatch.setenv(name, value.strip("'"))

    found = environment.look_around((tmp_path,))

    assert (found.own_postgres, found.own_s3) == (True, True)
    assert "DAGSTER_HOME" not in found.variables


SLICE = (
    "copied movie: 812 rows, transactions [91 204, 91 377), movie_id up to 5 120 -> s3://…/movie_1.parquet in 0.41 s"
)
AT = "2026-11-24 06:50:00 +0000"


@pytest.mark.parametrize(
    "line, shown",
    [
        (f"{AT} - dagster - INFO - __ASSET_JOB - 1f - bronze__movie - {SLICE}", f"06:50:00  {SLICE}"),
        (f"\x1b[32m{AT}\x1b[0m - dagster - \x1b[34mINFO\x1b[0m - job - 1f - m - {SLICE}\n", f"06:50:00  {SLICE}"),
        (f"{AT} - dagster.daemon - ERROR - it broke", "06:50:00  error in dagster.daemon: it broke"),
        ("dagster._core.definitions.events.Failure: movie: no right to read it", "error: movie: no right to read it"),
        ("pg_bronze.errors.SourceUnavailable: cine@here:5432: no connection", "error: cine@here:5432: no connection"),
        (f"{AT} - dagster - ERROR - job - 1f - 11 - m - STEP_FAILURE - Execution of step failed.", None),
        (f"{AT} - dagster.daemon.SensorDaemon - ERROR - Sensor tick caught an error", None),
        (
            f"{AT} - dagster - WARNING - job - 1f - bronze__movie - movie: column 'a' was added",
            "06:50:00  movie: column 'a' was added",
        ),
        ("ERROR:    [Errno 98] address already in use", "error: [Errno 98] address already in use"),
        (f"{AT} - dagster - INFO - j - 1f - m - has copied movie: no", None),
        (f"{AT} - dagster - DEBUG - RUN_START - Started", None),
        ("Traceback (most recent call last):", None),
        ("", None),
    ],
)
def test_of_dagsters_log_people_are_told_slices_and_errors_alone(line: str, shown: str | None) -> None:
    assert news.of(line) == shown
    assert shown is None or news.is_slice(shown) == ("copied" in shown)


def test_the_log_is_told_in_whole_lines_from_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n")
    added = news.Tail(log)
    with log.open("ab", buffering=0) as file:
        file.write(b"one\ntw" + "ö".encode()[:1])
        assert list(added.lines()) == ["one"]
        file.write("ö".encode()[1:] + b"\n")
        assert list(added.lines()) == ["twö"]
    assert list(added.lines()) == []
