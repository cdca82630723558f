"""The Dagster instance of the commands."""

import logging
from pathlib import Path

import pytest

from pg_bronze.cli import instance


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
