"""Progress bars: on a terminal while a first load runs, and nowhere else."""

import contextlib
import os
import sys
import threading

import pytest

from pg_bronze.cli import batch
from pg_bronze.cli.batch import run_batch
from pg_bronze.cli.batches import Batches
from pg_bronze_tests.harness.project import Project


@pytest.fixture
def loading(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A large table that is not copied yet, and a Dagster instance that the commands use too."""
    monkeypatch.setattr(batch, "open_instance", lambda: contextlib.nullcontext(project.instance))
    monkeypatch.setenv("TERM", "xterm")
    project.set(PG_BRONZE_SLICE_BYTES="64KiB")
    project.database.execute("create table movie (id int, filler text)")
    project.database.execute("insert into movie select i, repeat('x', 500) from generate_series(1, 1000) i")
    return project


def on_terminal(monkeypatch: pytest.MonkeyPatch, *labels: str) -> str:
    """Run a batch whose standard output is a terminal, and return what it wrote there."""
    master, slave = os.openpty()
    found: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            while chunk := os.read(master, 4096):
                found.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert run_batch(labels, Batches())
    reader.join(20)
    os.close(master)
    return b"".join(found).decode()


def test_a_first_load_is_shown_as_a_bar_below_the_lines(loading: Project, monkeypatch: pytest.MonkeyPatch):
    written = on_terminal(monkeypatch)
    assert "movie \x1b[" in written
    assert "100.0%  1,000 rows" in written
    assert "\x1b[?25l" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor stays hidden"
    lines = [line for line in written.replace("\x1b[2K", "\n").splitlines() if "copied movie: " in line]
    assert len(lines) > 4
    assert all(line.startswith("copied movie: ") and ".parquet in " in line for line in lines)


def test_a_table_that_is_copied_has_no_bar(loading: Project, monkeypatch: pytest.MonkeyPatch):
    assert run_batch([], Batches())
    loading.database.execute("insert into movie values (0, 'new')")
    written = on_terminal(monkeypatch, "movie")
    assert "copied movie: 1 row" in written
    assert "\x1b[" not in written


def test_a_pipe_or_a_file_gets_no_bar(loading: Project, capsys: pytest.CaptureFixture[str]):
    """A log file would be full of control characters."""
    assert run_batch([], Batches())
    written = capsys.readouterr().out
    assert "copied movie: " in written
    assert "\x1b" not in written
