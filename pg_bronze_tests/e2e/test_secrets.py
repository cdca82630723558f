"""What a command prints, stores and shows in `ps`, when it succeeds and when it fails."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import Shop, command_lines, texts
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.secrets import spellings

MOVIE = "create table movie (id int primary key); insert into movie values (1)"
PLANTED = "pl4nted'wOrd/%40@:"


@pytest.mark.parametrize(
    "variables, code",
    [
        ({}, 0),
        ({"PG_BRONZE_READER": "copy", "PG_CONTROL_URL": "postgresql://u:pl4nted@127.0.0.1:1/nowhere"}, 0),
        ({"PG_PASS": PLANTED}, 1),
        ({"MINIO_SECRET_KEY": PLANTED, "MINIO_ACCESS_KEY": "pl4ntedkey"}, 1),
    ],
    ids=["well", "well, by copy", "wrong password", "wrong keys"],
)
def test_a_tick_prints_and_stores_no_secret(shop: Shop, variables: dict[str, str], code: int):
    shop.database.execute(MOVIE)
    shop.environment |= variables

    done = shop.run("tick")

    assert done.returncode == code, done.stderr
    assert_no_secret(shop, texts(shop.folder) | {"stdout": done.stdout, "stderr": done.stderr})
    assert lake.ids(shop.bucket, "movie") == ([1] if code == 0 else [])


@pytest.mark.slow
def test_no_command_line_of_a_tick_shows_a_secret(shop: Shop, tmp_path: Path):
    """Every user of the machine may run `ps`."""
    shop.database.execute(MOVIE)
    process = shop.start_program("pg-bronze", "tick", output=tmp_path / "log")
    commands = command_lines(process.pid)
    while process.poll() is None:
        commands |= command_lines(process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)

    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert any("pg-bronze" in line for line in commands)
    assert_no_secret(shop, {"command lines": "\n".join(commands)})


def assert_no_secret(shop: Shop, seen: dict[str, str]) -> None:
    secrets = spellings(shop.database.server.password) | spellings(shop.bucket.server.secret_key) | {"pl4nted"}
    assert [place for place, text in seen.items() if any(secret in text for secret in secrets)] == []
