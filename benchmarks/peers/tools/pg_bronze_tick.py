"""pg_bronze as it is used: the command `pg-bronze tick`, in a project folder of its own."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers import protocol

COMMAND = Path(sys.executable).with_name("pg-bronze")


def environment(task: protocol.Task) -> dict[str, str]:
    """Return the settings of the project."""
    url = urlsplit(task.url)
    source = {
        "PG_HOST": str(url.hostname), "PG_PORT": str(url.port), "PG_USER": str(url.username),
        "PG_PASS": str(url.password), "PG_DB": url.path.strip("/"),
    }  # fmt: skip
    bucket = {
        "MINIO_ENDPOINT": task.endpoint, "MINIO_ACCESS_KEY": task.access_key, "MINIO_SECRET_KEY": task.secret_key,
        "MINIO_BUCKET": task.bucket, "PG_BRONZE_PREFIX": task.prefix,
    }  # fmt: skip
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | source | bucket


def copy(task: protocol.Task, table: str) -> None:
    """Run one tick of the table."""
    done = subprocess.run(
        [COMMAND, "tick", table], cwd=task.folder, env=environment(task), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pg-bronze tick ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")


if __name__ == "__main__":
    protocol.serve(copy)
