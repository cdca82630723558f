"""The project folder: where ``.env``, ``workspace.yaml`` and ``dagster.yaml`` are read from."""

from dataclasses import dataclass
from pathlib import Path

from pg_bronze.errors import SettingsError

CONFIG_FILES = ("workspace.yaml", "dagster.yaml")
# Copies of the two files at the top of the repository, for an installation from a wheel. test_project.py compares them.
DEFAULTS = Path(__file__).with_name("project_defaults")


@dataclass(frozen=True)
class Project:
    """The folders that a command works with.

    ``folder`` holds ``.env``, and relative paths in ``dagster.yaml`` start there. ``config_dir`` holds
    ``workspace.yaml`` and ``dagster.yaml``; it is ``folder`` itself, or the defaults that the package carries.
    """

    folder: Path
    config_dir: Path

    @property
    def has_defaults(self) -> bool:
        """Whether the configuration files are those of the package."""
        return self.config_dir == DEFAULTS


def current_folder() -> Path:
    """Return the current folder.

    Raises:
        SettingsError: It was deleted, or cannot be entered.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise SettingsError(
            "The current folder was deleted or cannot be entered. Change to another folder, and run the command again."
        ) from error


def find_project(start: Path) -> Project:
    """Return the project of a folder.

    The project is the first folder with both configuration files among ``start``, its parents, and the checkout that
    this package is imported from. If there is none, it is ``start`` itself with the defaults of the package.
    """
    checkout = Path(__file__).resolve().parents[2]
    for folder in (start, *start.parents, checkout):
        if all((folder / name).is_file() for name in CONFIG_FILES):
            return Project(folder, folder)
    return Project(start, DEFAULTS)
