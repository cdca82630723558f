"""Compute logs: in Dagster's files, on the original stream as well, and without another process."""

import os
import subprocess
import sys

import pytest

from pg_bronze.defs.compute_logs import MirroringComputeLogManager

PRINT = """
import os, sys
import psutil
from pg_bronze.defs.compute_logs import MirroringComputeLogManager
with MirroringComputeLogManager(sys.argv[1]).capture_logs(["run", "compute_logs", "step"]):
    print("printed by Python")
    os.write(2, b"written by a library\\n")
    children = psutil.Process().children()
print("after the run", children)
"""


@pytest.fixture
def printed(tmp_path):
    return subprocess.run([sys.executable, "-c", PRINT, str(tmp_path)], capture_output=True, text=True, check=True)


def test_what_a_run_prints_is_in_its_files_and_on_the_stream_of_the_process(printed, tmp_path):
    """The page of the run reads the files; an operator reads the output of the daemon."""
    manager = MirroringComputeLogManager(str(tmp_path))
    key = ["run", "compute_logs", "step"]

    assert manager.is_capture_complete(key)
    data = manager.get_log_data(key)
    assert (data.stdout, data.stderr) == (b"printed by Python\n", b"written by a library\n")
    assert printed.stdout == "printed by Python\nafter the run []\n"
    assert printed.stderr == "written by a library\n"


def test_a_closed_stream_does_not_end_a_run(tmp_path):
    """The terminal may be closed while a run is in flight."""
    out, write_end = os.pipe()
    os.close(out)

    ended = subprocess.run(
        [sys.executable, "-c", PRINT, str(tmp_path)], stderr=write_end, stdout=subprocess.PIPE, check=False
    )

    os.close(write_end)
    assert ended.returncode == 0
