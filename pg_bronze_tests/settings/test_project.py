"""Where a command finds its configuration files: in a project, in the checkout, or in the package."""

from pathlib import Path

import pytest

from pg_bronze.settings import project
from pg_bronze.settings.project import CONFIG_FILES, DEFAULTS, Project, find_project

TOP = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is imported from site-packages and not from a checkout."""
    monkeypatch.setattr(project, "__file__", str(tmp_path / "site-packages/pg_bronze/settings/project.py"))


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_the_files_of_the_package_are_those_at_the_top_of_the_repository(name: str):
    """An installation from a wheel would otherwise run with other settings of Dagster than a checkout."""
    assert (DEFAULTS / name).read_bytes() == (TOP / name).read_bytes()


@pytest.mark.usefixtures("installed")
def test_a_folder_above_that_has_both_files_is_the_project(tmp_path: Path):
    below = tmp_path / "shop/reports"
    below.mkdir(parents=True)
    for name in CONFIG_FILES:
        (tmp_path / "shop" / name).touch()

    assert find_project(below) == Project(tmp_path / "shop", tmp_path / "shop")


@pytest.mark.usefixtures("installed")
def test_without_a_project_the_folder_is_used_with_the_defaults_of_the_package(tmp_path: Path):
    (tmp_path / "workspace.yaml").touch()

    assert find_project(tmp_path) == Project(tmp_path, DEFAULTS)


def test_outside_of_a_project_a_checkout_uses_its_own_files(tmp_path: Path):
    """Cron starts `pg-bronze` of a checkout in `/`."""
    assert find_project(tmp_path) == Project(TOP, TOP)
