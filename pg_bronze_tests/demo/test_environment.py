from pathlib import Path

import pytest

from pg_bronze.demo import environment
from pg_bronze.errors import SettingsError
from pg_bronze.settings.project import DEFAULTS, Project

PROJECT = Project(Path("/project"), DEFAULTS)

DEMO_PG = {"PG_HOST": "127.0.0.1", "PG_DB": "cine"}
DEMO_S3 = {"MINIO_ENDPOINT": "http://127.0.0.1:1", "MINIO_BUCKET": "meteo-bronze"}


def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> environment.Environment:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return environment.read_environment((tmp_path,))


def test_the_environment_and_dotenv_select_a_database_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PG_DB=shop\nPG_PASS='a$b'\n")
    found = read(tmp_path, monkeypatch, PG_DB="other")

    assert not found.needs_postgres
    assert found.needs_s3
    assert found.variables["PG_DB"] == "other"
    assert found.variables["PG_PASS"] == "a$b"


def test_variables_for_servers_of_the_user_do_not_reach_servers_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run would fail because of AWS_PROFILE or PGSSLMODE."""
    found = read(
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

    passed = environment.dagster_variables(found, PROJECT, tmp_path, DEMO_PG, DEMO_S3)

    assert {name for name in passed if name.startswith(("PG", "AWS_", "MINIO_"))} == {
        *DEMO_PG,
        *DEMO_S3,
        "PG_BRONZE_INTERVAL_S",
    }
    assert passed["NO_PROXY"] == "a.example,127.0.0.1,localhost"


def test_variables_for_servers_of_the_user_are_passed_on_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = {
        "PG_DB": "shop",
        "PGSSLMODE": "require",
        "MINIO_BUCKET": "lake",
        "AWS_CA_BUNDLE": "/ca",
        "MINIO_ALIAS": "a",
    }
    found = read(tmp_path, monkeypatch, **users)

    passed = environment.dagster_variables(found, PROJECT, tmp_path, {}, {})

    assert {name: passed[name] for name in users} == users


def test_dagsters_storage_is_in_the_state_folder_wherever_a_command_is_started(tmp_path: Path) -> None:
    """Otherwise two demos share watermarks, or a restart loses them."""
    project = Path(__file__).parents[2]
    state = tmp_path / 'with spaces and "'
    state.mkdir()

    home, cwd = environment.dagster_home(environment.Environment({}), state, Project(project, project))

    import yaml

    copied = yaml.safe_load((home / "dagster.yaml").read_text())
    original = yaml.safe_load((project / "dagster.yaml").read_text())
    assert home == cwd == state / "dagster_home"
    assert copied["storage"]["custom"]["config"]["base_dir"] == str(
        home / original["storage"]["custom"]["config"]["base_dir"]
    )
    assert "base_dir: ." not in (home / "dagster.yaml").read_text()


@pytest.mark.parametrize(
    "line",
    [
        *("  base_dir: /var/x", '  base_dir: "/var/x"', "  base_dir: {env: HOME}", "  base_dir:   "),
        *("# base_dir: x", "  my_base_dir: x", "  base_dir: # x"),
    ],
)
def test_other_lines_of_dagster_yaml_are_not_changed(line: str) -> None:
    assert environment.with_absolute_paths(line, Path("/home")) == line


def test_a_dagster_home_of_the_user_is_used_and_must_exist(tmp_path: Path) -> None:
    chosen = environment.Environment({"DAGSTER_HOME": str(tmp_path)})
    assert environment.dagster_home(chosen, tmp_path / "state", PROJECT) == (tmp_path, Path("/project"))
    with pytest.raises(SettingsError, match="DAGSTER_HOME"):
        environment.dagster_home(environment.Environment({"DAGSTER_HOME": str(tmp_path / "no")}), tmp_path, PROJECT)


def test_watermarks_of_the_sample_are_stored_apart_from_those_of_a_database_of_the_user(tmp_path: Path) -> None:
    """Both may have a table movie and a bucket of the same name: the last object would be reported as missing."""
    homes = [
        environment.dagster_home(environment.Environment(variables), tmp_path, PROJECT)[0]
        for variables in ({}, {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze"})
    ]

    assert homes[0] != homes[1]


def test_the_shell_file_is_readable_for_the_user_only_and_quotes_values(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "env.sh"
    environment.write_shell_file(file, {"PG_PASS": "it's $HOME `x`"})
    environment.write_shell_file(file, {"PG_PASS": "it's $HOME `x`"})

    # A program that the shell starts has to receive it, not the shell alone.
    done = subprocess.run(["sh", "-c", '. "$0"; printenv PG_PASS', str(file)], capture_output=True, text=True)

    assert done.stdout == "it's $HOME `x`\n"
    assert file.stat().st_mode & 0o077 == 0


def test_a_shell_that_has_read_the_variables_of_a_demo_can_start_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its servers have stopped. Taken for servers of the user, no run could reach them."""
    file = tmp_path / "env.sh"
    environment.write_shell_file(file, {"PG_DB": "cine", "MINIO_BUCKET": "meteo-bronze", "DAGSTER_HOME": "/nowhere"})
    for line in file.read_text().splitlines():
        name, value = line.removeprefix("export ").split("=", 1)
        monkeypatch.setenv(name, value.strip("'"))

    found = environment.read_environment((tmp_path,))

    assert (found.needs_postgres, found.needs_s3) == (True, True)
    assert "DAGSTER_HOME" not in found.variables


@pytest.mark.parametrize(
    "variables, words",
    [
        ({}, None),
        ({"PG_DB": "shop", "MINIO_BUCKET": "lake"}, None),
        ({"PG_DB": "shop"}, "copy the database shop to a local S3 server"),
        ({"MINIO_BUCKET": "lake"}, "write sample data to the bucket lake"),
    ],
)
def test_a_server_of_the_user_beside_one_of_the_demo_is_a_risk(variables: dict[str, str], words: str | None) -> None:
    risk = environment.Environment(variables).risk

    assert risk is None if words is None else words in str(risk)


def test_the_options_of_tables_apply_to_a_database_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dagster dev` runs in another folder, and would copy the values of masked columns."""
    (tmp_path / "pg_bronze.toml").touch()

    assert "PG_BRONZE_CONFIG" not in read(tmp_path, monkeypatch).variables
    assert read(tmp_path, monkeypatch, PG_DB="shop").variables["PG_BRONZE_CONFIG"] == str(tmp_path / "pg_bronze.toml")
    monkeypatch.chdir(tmp_path)
    chosen = read(tmp_path, monkeypatch, PG_DB="shop", PG_BRONZE_CONFIG="other.toml").variables["PG_BRONZE_CONFIG"]
    assert chosen == str(tmp_path / "other.toml")
