from pathlib import Path

import pytest

from pg_bronze.demo import log_lines

SLICE = "copied movie: 812 rows, transactions [91204, 91377), movie_id up to 5120 -> s3://…/movie_1.parquet in 0.41 s"
AT = "2026-11-24 06:50:00 +0000"


@pytest.mark.parametrize(
    "line, printed",
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
        (f"{AT} - dagster - ERROR - bronze - 1f - bronze__movie - movie: no S3", "06:50:00  error: movie: no S3"),
        (f"{AT} - dagster.daemon.SensorDaemon - ERROR - bronze_tick: down", "06:50:00  error: bronze_tick: down"),
        (f"{AT} - dagster.daemon.SensorDaemon - WARNING - recovered after 3 s: down", None),
        ("ERROR:    [Errno 98] address already in use", "error: [Errno 98] address already in use"),
        (f"{AT} - dagster - INFO - j - 1f - m - has copied movie: no", None),
        (f"{AT} - dagster - DEBUG - RUN_START - Started", None),
        ("Traceback (most recent call last):", None),
        ("", None),
    ],
)
def test_only_slices_warnings_and_errors_of_dagsters_log_are_printed(line: str, printed: str | None) -> None:
    assert log_lines.summarize(line) == printed
    assert printed is None or log_lines.is_slice(printed) == ("copied" in printed)


def test_the_log_is_read_in_complete_lines_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n")
    added = log_lines.LogTail(log)
    with log.open("ab", buffering=0) as file:
        file.write(b"one\ntw" + "ö".encode()[:1])
        assert list(added.lines()) == ["one"]
        file.write("ö".encode()[1:] + b"\n")
        assert list(added.lines()) == ["twö"]
    assert list(added.lines()) == []
