"""What a command prints, and where it is printed, decides nothing about the copies."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pg_bronze.cli.terminal import Terminal

LINES = """
from pg_bronze.cli.terminal import Terminal
terminal = Terminal()
for number in range(3):
    terminal.print(f"line {number}")
terminal.complain(f"goes on, read: {terminal.is_read}")
"""


def test_a_reader_that_has_gone_stops_nothing():
    """`pg-bronze tick | head -1` would otherwise fail every table but the first."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", LINES], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, "pg-bronze: goes on, read: False\n")


def test_a_full_disk_is_said_once():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", LINES]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    first, second = done.stderr.splitlines()
    assert first == (
        "pg-bronze: standard output cannot be written (No space left on device). Tables are copied, and their lines "
        "are lost."
    )
    assert (done.returncode, second) == (0, "pg-bronze: goes on, read: True")


def test_closed_streams_stop_nothing():
    done = subprocess.run(["sh", "-c", f"{sys.executable} - >&- 2>&-"], input=LINES, text=True, check=False)

    assert done.returncode == 0


def test_a_name_that_the_encoding_lacks_is_printed_with_escapes(monkeypatch: pytest.MonkeyPatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", errors="strict"))

    Terminal().print("copied película: 1 row, a\udcff")

    assert printed.getvalue() == b"copied pel\\xedcula: 1 row, a\\udcff\n"


def test_each_line_of_a_command_that_runs_for_months_has_the_time(capsys: pytest.CaptureFixture[str]):
    terminal = Terminal()
    terminal.lasting = True

    terminal.print("copied movie")
    terminal.complain("movie failed. It is retried at the next tick.")

    printed = capsys.readouterr()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  copied movie\n", printed.out)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  pg-bronze: movie failed\. It is retried at the next tick\.\n", printed.err
    )


def test_with_json_each_line_is_one_object(monkeypatch: pytest.MonkeyPatch):
    """A text with line breaks, or with what the encoding lacks, would otherwise be several lines or none."""
    printed = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, stream in printed.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding="ascii", errors="strict"))
    terminal = Terminal()
    terminal.lasting, terminal.as_json = True, True

    terminal.print('copied película \udcff\nand "more"')
    terminal.complain("movie failed. It is retried at the next tick.")

    (first,), (second,) = ([json.loads(line) for line in item.getvalue().splitlines()] for item in printed.values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "info", "message": 'copied película \udcff\nand "more"'}
    assert second["message"] == "movie failed. It is retried at the next tick."
    assert second["level"] == "error"


def test_a_command_that_ends_does_not_promise_a_retry(capsys: pytest.CaptureFixture[str]):
    """`pg-bronze tick` in cron is repeated, in a shell it is not."""
    Terminal().complain("no bucket. It is retried at the next tick; check the log. It is retried after the fix.")

    assert capsys.readouterr().err == (
        "pg-bronze: no bucket. Run the command again to retry it; check the log. Run the command again after the fix.\n"
    )
