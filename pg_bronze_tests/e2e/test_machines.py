"""Machines that lose each other: no row is lost or doubled, and copies continue without an operator.

One cut is made on every change. ``make proof`` makes all of ``harness/cuts.py``.
"""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pg_bronze_tests.e2e.conftest import ROOT, wait_until
from pg_bronze_tests.harness import cuts, machines
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.machine_deployment import Deployment, deployed
from pg_bronze_tests.harness.repetitions import also

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
NUMBERS = itertools.count(2)


@pytest.fixture(scope="module")
def site() -> Iterator[Deployment]:
    with deployed(cuts.SCHEMA, dead_after_s=1.0) as made:
        yield made


@pytest.mark.parametrize(
    "cut", ["both writers alive: believed dead, and copying", *also("worker from Dagster's storage, in a copy")]
)
def test_after_a_cut_nothing_is_lost_or_doubled(site: Deployment, cut: str):
    row = cuts.measure(site, cut, NUMBERS, hold_commits=6, row_count=1500)

    assert row.difference == lake.SAME, f"{row}\n{site.last_lines()}"


def test_without_the_right_to_make_namespaces_a_test_says_what_is_missing(tmp_path: Path, monkeypatch):
    program = tmp_path / "unshare"
    program.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(AssertionError, match=r"needs root.*CAP_SYS_ADMIN.*iproute2.*Operation not permitted"):
        machines.joined("one").__enter__()


def test_no_interface_is_left_of_machines_whose_test_was_killed():
    """Later tests would run out of networks."""
    start = """
import sys
from pg_bronze_tests.harness.machines import joined
with joined("one", "two") as network:
    print(network.interface, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", start]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as test:
        assert test.stdout is not None
        interface = test.stdout.readline().strip()
        there = psutil.net_if_addrs()
        test.kill()

    assert interface in there
    wait_until(lambda: interface not in psutil.net_if_addrs(), "the end of the interface", 20)
