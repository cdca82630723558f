"""What a command prints, stores and shows in `ps`, when it succeeds and when it fails."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import Shop, command_lines, texts
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.secrets import spellings

PLANTED = "pl4nted'wOrd/%40@:"


@pytest.mark.slow
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
def test_a_tick_shows_no_secret(shop: Shop, tmp_path: Path, variables: dict[str, str], code: int):
    shop.database.execute("create table movie (id int primary key); insert into movie values (1)")
    shop.environment |= variables
    output = tmp_path / "log"

    process = shop.start("pg-bronze", "tick", output=output)
    commands = command_lines(process.pid)
    while process.poll() is None:
        commands |= command_lines(process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)

    seen = texts(shop.folder) | {str(output): output.read_text("latin-1")}
    seen["command lines"] = "\n".join(commands)
    secrets = spellings(shop.database.server.password) | spellings(shop.bucket.server.secret_key) | {"pl4nted"}
    assert process.returncode == code, seen[str(output)]
    assert "pg-bronze" in seen["command lines"]
    assert [place for place, text in seen.items() if any(secret in text for secret in secrets)] == []
    assert lake.ids(shop.bucket, "movie") == ([1] if code == 0 else [])
