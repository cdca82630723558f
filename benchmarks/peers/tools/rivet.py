"""rivet, a program in Rust that PyPI has as a wheel, with its own incremental mode."""

import json
import subprocess
import sysconfig
from pathlib import Path

from benchmarks.peers import protocol

RIVET = Path(sysconfig.get_path("scripts")) / "rivet"


def config(task: protocol.Task, table: str) -> dict[str, object]:
    """Return the configuration of one table; its file may be JSON, because YAML includes it."""
    store = {
        "type": "s3", "bucket": task.bucket, "prefix": f"{task.prefix}/{table}/", "endpoint": task.endpoint,
        "region": "us-east-1", "access_key_env": "AWS_ACCESS_KEY_ID", "secret_key_env": "AWS_SECRET_ACCESS_KEY",
    }  # fmt: skip
    mode = {"mode": "incremental", "cursor_column": task.cursor} if task.cursor else {"mode": "full"}
    export = {"name": table, "table": f"public.{table}", "format": "parquet", "compression": "zstd"}
    source = {"type": "postgres", "url_env": "PEER_URL", "tls": {"mode": "disable"}, "tuning": {"profile": "fast"}}
    return {"source": source, "exports": [export | mode | {"skip_empty": True, "destination": store}]}


def copy(task: protocol.Task, table: str) -> None:
    """Copy the table, or its rows beyond the cursor. The state is in the folder of the configuration."""
    file = task.folder / f"{table}.yaml"
    file.write_text(json.dumps(config(task, table)), encoding="utf-8")
    done = subprocess.run(
        [RIVET, "run", "--config", file], cwd=task.folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"rivet ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")


if __name__ == "__main__":
    protocol.serve(copy)
