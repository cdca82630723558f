"""deploy/systemd: the units, checked by systemd-analyze, which needs no running systemd."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from pg_bronze_tests.harness.deployments import DEPLOY, PROGRAMS, parse, run

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def entries(unit: Path) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", unit.read_text()):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units, with programs that exist."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to("/bin/true")
    files = []
    for unit in (DEPLOY / "systemd").glob("pg_bronze*"):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/pg_bronze/bin", str(programs)))
        files.append(str(tmp_path / unit.name))
    return files


def test_systemd_accepts_the_units(installed):
    assert run("systemd-analyze", "verify", "--man=no", *installed) == ""


def test_systemd_rates_the_exposure_of_each_unit_as_low(installed):
    """The threshold is ten times the rating, which is 9.6 for a unit without protection."""
    for unit in installed:
        if unit.endswith(".service"):
            run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_each_unit_has_a_command_that_its_program_accepts_and_begins_again(unit):
    found = entries(unit)

    parse(shlex.split(found["ExecStart"][0]))
    assert found["Restart"] == ["always"]
    assert unit.name in entries(DEPLOY / "systemd/pg_bronze.target")["Wants"][0].split()


def test_the_units_share_their_temporary_folder():
    """The web server terminates a run by a socket there. Without it, runs cannot be terminated in the UI."""
    assert len({tuple(entries(unit)["Environment"]) for unit in UNITS}) == 1
    assert {entries(unit)["RuntimeDirectoryPreserve"][0] for unit in UNITS} == {"yes"}


def test_the_web_server_gets_no_settings():
    with_settings = {unit.stem for unit in UNITS if "/etc/pg_bronze/settings.env" in entries(unit)["EnvironmentFile"]}

    assert with_settings == {unit.stem for unit in UNITS} - {"pg_bronze-webserver"}


def test_the_workspace_of_systemd_names_the_code_server():
    (entry,) = yaml.safe_load((DEPLOY / "systemd/workspace.yaml").read_text())["load_from"]
    command = shlex.split(entries(DEPLOY / "systemd/pg_bronze-code-server.service")["ExecStart"][0])

    assert entry["grpc_server"]["host"] == command[command.index("-h") + 1]
    assert str(entry["grpc_server"]["port"]) == command[command.index("-p") + 1]
