"""A project of another author: `dg scaffold`, five lines in `defs.yaml`, and the first Parquet object."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pg_bronze_tests.harness import plain_lake as lake

ROOT = Path(__file__).parents[2]
PROJECT = """
[project]
name = "lakehouse"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "lakehouse"
"""
DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
# Several commands in one process: each takes five seconds of imports. Each prints its output and its exit status.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from dagster_dg_cli.cli import cli
for line in sys.argv[1:]:
    result = CliRunner().invoke(cli, json.loads(line), catch_exceptions=False)
    print(json.dumps([result.exit_code, result.output]))
"""


def dg(folder: Path, environment: dict[str, str], *commands: list[str]) -> list[tuple[int, str]]:
    """Run commands of `dg` in a folder, and return the exit status and the output of each."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *map(json.dumps, commands)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == len(commands), done.stdout + done.stderr
    return [(code, output) for code, output in map(json.loads, lines)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project as `create-dagster project` writes it."""
    package = tmp_path / "src/lakehouse"
    (package / "defs").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").touch()
    (package / "defs/__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    return tmp_path


@pytest.fixture
def environment(folder: Path, database: Any, bucket: Any) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(folder / "src"),
        "VIRTUAL_ENV": sys.prefix,
        "DAGSTER_HOME": str(folder / "home"),
        "SHOP_PG_PASS": database.environ.get("PG_PASS", "none"),
        "MINIO_ACCESS_KEY": bucket.environ["MINIO_ACCESS_KEY"],
        "MINIO_SECRET_KEY": bucket.environ["MINIO_SECRET_KEY"],
    }


def edit(file: Path, database: Any, bucket: Any) -> None:
    """Replace the five values that differ from what the scaffolder writes."""
    text = file.read_text()
    values = {
        "pg_port: 5432": f"pg_port: {database.environ['PG_PORT']}",
        "pg_db: shop": f"pg_db: {database.environ['PG_DB']}",
        "pg_user: postgres": f"pg_user: {database.environ['PG_USER']}",
        "minio_bucket: bronze": f"minio_bucket: {bucket.environ['MINIO_BUCKET']}",
        "http://127.0.0.1:9000": bucket.environ["MINIO_ENDPOINT"],
    }
    for before, after in values.items():
        assert before in text, text
        text = text.replace(before, after)
    file.write_text(text)


def test_a_scaffolded_source_is_checked_and_copied(
    folder: Path, environment: dict[str, str], database: Any, bucket: Any
):
    bucket.record_probe(prefix="shop")
    database.execute("create table movie (id int primary key, title text)")
    database.execute("insert into movie select i, 'film ' || i from generate_series(1, 50) i")
    scaffolded = dg(
        folder,
        environment,
        ["list", "components", "--json"],
        ["scaffold", "defs", "pg_bronze.BronzeTables", "shop"],
        ["check", "yaml"],
    )
    assert [code for code, _ in scaffolded] == [0, 0, 0], scaffolded
    assert "pg_bronze.BronzeTables" in scaffolded[0][1]

    edit(folder / "src/lakehouse/defs/shop/defs.yaml", database, bucket)
    today = datetime.now(UTC).date().isoformat()
    checked = dg(
        folder,
        environment,
        ["launch", "--assets", "bronze/shop/movie", "--partition", today],
        ["check", "defs"],
        ["list", "defs", "--json"],
    )

    assert [code for code, _ in checked] == [0, 0, 0], checked
    assert "bronze/shop/movie" in checked[2][1]
    assert lake.compare(database, bucket, "movie", prefix="shop") == lake.SAME


def test_the_definitions_of_this_repository_pass_the_checks_of_dg(
    folder: Path, environment: dict[str, str], database: Any, bucket: Any
):
    database.execute("create table movie (id int primary key)")
    own = {name: value for name, value in environment.items() if name != "PYTHONPATH"}

    checked = dg(
        ROOT, own | database.environ | bucket.environ, ["check", "yaml"], ["check", "defs"], ["list", "defs", "--json"]
    )

    assert [code for code, _ in checked] == [0, 0, 0], checked
    assert "bronze/movie" in checked[2][1]
