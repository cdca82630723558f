"""The wheel: built, installed into a new virtual environment, and used from a folder that has nothing to do with it.

``test_browser.py`` starts its demo.
"""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import BIN, ROOT, clean_environment, default_sigint, end, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.servers import Bucket, Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class Elsewhere:
    """An empty folder, a home directory, and the environment for commands of the wheel."""

    bin: Path
    folder: Path
    home: Path
    environment: dict[str, str]

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / program, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip

    def names(self) -> set[str]:
        return {path.name for folder in (self.folder, self.home) for path in folder.iterdir()}


@pytest.fixture
def elsewhere(installation: Path, tmp_path: Path) -> Elsewhere:
    folder, user_home = tmp_path / "elsewhere", tmp_path / "home"
    folder.mkdir()
    user_home.mkdir()
    environment = clean_environment(user_home)
    environment.pop("PYTHONPATH", None)
    # Contains the S3 server of the demo, which its wheel installs beside Python.
    environment["PATH"] = os.pathsep.join([environment["PATH"], str(BIN)])
    return Elsewhere(installation, folder, user_home, environment)


def test_the_wheel_contains_the_package_and_its_default_configuration(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    files = {path for path in (ROOT / "pg_bronze").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == {str(path.relative_to(ROOT)) for path in files}


def test_outside_of_a_project_tick_scan_and_run_leave_one_folder(
    elsewhere: Elsewhere, database: Database, bucket: Bucket, tmp_path: Path
):
    database.execute("create table movie (id int primary key); insert into movie values (1), (2)")
    elsewhere.environment |= database.environ | bucket.environ

    tick = elsewhere.run("pg-bronze", "tick")

    assert tick.returncode == 0, tick.stderr
    assert lake.ids(bucket, "movie") == [1, 2]
    scan = elsewhere.run(
        "python", "-c", "import pg_bronze as p; print(p.__file__, dir(p), *p.scan('movie').collect()['id'].sort())"
    )
    packages = elsewhere.bin.parent / f"lib/python3.{sys.version_info.minor}/site-packages"
    assert (scan.stdout, scan.stderr) == (
        f"{packages}/pg_bronze/__init__.py ['BronzeTables', '__version__', 'scan'] 1 2\n",
        "",
    )

    database.execute("insert into movie values (3)")
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(
            [elsewhere.bin / "pg-bronze", "run", "--every", "1s"], cwd=elsewhere.folder, env=elsewhere.environment,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=default_sigint,
        )  # fmt: skip
    try:
        wait_until(lambda: lake.ids(bucket, "movie") == [1, 2, 3], "the new row", 60)
        # One row: the watermark of the first tick is found again.
        wait_until(lambda: "copied movie: 1 row" in (tmp_path / "log").read_text(), "the line about it", 30)
    finally:
        code = end(process)
    assert code == 0, (tmp_path / "log").read_text()
    assert elsewhere.names() == {".dagster"}
