"""The Dagster instance of the commands."""

import logging
from pathlib import Path

import pytest

from pg_bronze.cli import instance
from pg_bronze.errors import SettingsError
from pg_bronze.settings.project import CONFIG_FILES


def test_dagsters_note_about_a_missing_dagster_yaml_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """`pg-bronze run` opens the instance in every batch: the same two lines every ten seconds hide what is new."""
    monkeypatch.setattr(instance, "_logged", set())
    monkeypatch.setattr(logging.getLogger("dagster"), "propagate", True)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    for _ in range(2):
        with instance.open_instance():
            pass

    notes = [record.getMessage() for record in caplog.records if "dagster.yaml" in record.getMessage()]
    assert len(notes) == 1
    assert "No dagster instance configuration file" in notes[0]


def test_a_file_of_options_that_would_be_ignored_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command in a folder below the project would copy columns that the file there masks."""
    for name in CONFIG_FILES:
        (tmp_path / name).touch()
    below = tmp_path / "below"
    below.mkdir()
    (below / "pg_bronze.toml").touch()
    monkeypatch.chdir(below)

    with (
        pytest.raises(SettingsError, match=r"below/pg_bronze\.toml would be ignored: it is read from "),
        instance.open_instance(),
    ):
        pass
