"""The wheel: built, installed into a new virtual environment, and used from a folder that has nothing to do with it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pg_bronze.demo.data_dir import remove_data_dir
from pg_bronze_tests.e2e.conftest import BIN, ROOT, clean_environment, default_sigint, end, free_port, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.servers import Bucket, Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PARTS = ["pyproject.toml", "README.md", "LICENSE", "pg_bronze"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: setuptools would otherwise leave a build folder in the checkout, and pack what an older one contains.
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands. The environment sees the libraries of the tests, but not their pg_bronze."""
    folder = tmp_path_factory.mktemp("installed") / "an environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", folder / "bin/python", "install", "--no-index", "--no-deps", wheel)
    (packages,) = folder.glob("lib/*/site-packages")
    # A .pth file of a folder that another .pth file names is not read, so the editable installation stays out.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


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


@contextlib.contextmanager
def demo(elsewhere: Elsewhere, port: int) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [elsewhere.bin / "pg-bronze", "demo", "--port", str(port)], cwd=elsewhere.folder, env=elsewhere.environment,
        stdout=subprocess.PIPE, text=True, preexec_fn=default_sigint,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            remove_data_dir(elsewhere.folder / ".pg_bronze/postgres")


def test_the_demo_copies_shows_its_page_and_stops(elsewhere: Elsewhere):
    port = free_port()
    with demo(elsewhere, port) as process:
        assert process.stdout is not None
        printed = ""
        while not ("first slice" in printed and "ready after" in printed):
            line = process.stdout.readline()
            assert line, printed
            printed += line
        page = re.search(r"tables +(http\S+)", printed)
        assert page is not None
        with urllib.request.urlopen(page[1]) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        printed += process.stdout.read()
        assert process.wait(30) == 0, printed

    assert printed.endswith("stopped\n")
    assert elsewhere.names() == {".pg_bronze"}
