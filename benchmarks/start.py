"""How long the demo takes to its first slice, and its second start beside a bare `dagster dev`.

    .venv/bin/python -m benchmarks.start [--rounds 3]

Every number is seconds of wall time from the start of the command. "bare" is `dagster dev` with the stock dagster.yaml
over an empty Definitions until its web page answers; "second" is the demo on data that is already there until it
prints its addresses, which is when the same page answers. Medians, and their difference.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    dropped = ("PG", "MINIO_", "MC_", "AWS_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)


def start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def demo(state_dir: Path, until: str) -> float:
    """Seconds until the demo prints a line that holds ``until``."""
    begun = time.monotonic()
    process = start([str(BIN / "pg-bronze"), "demo", "--state-dir", str(state_dir), "--port", str(free_port())], ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            seconds = time.monotonic() - begun
            stop(process)
            return seconds
    raise SystemExit(f"the demo ended before it said {until!r}")


def bare(folder: Path) -> float:
    """Seconds until the page of a bare `dagster dev` answers."""
    (folder / "bare.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    port = free_port()
    begun = time.monotonic()
    process = start([str(BIN / "dagster"), "dev", "-f", "bare.py", "-p", str(port)], folder)
    try:
        while time.monotonic() - begun < 180:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=1):
                    return time.monotonic() - begun
            except OSError:
                time.sleep(0.1)  # nothing tells when it answers
    finally:
        stop(process)
    raise SystemExit("dagster dev did not answer within 180 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="pg_bronze_start_") as folder:
        state = Path(folder, "state")
        print(f"first start, to the first slice: {demo(state, 'first slice'):.1f} s")
        seconds: dict[str, list[float]] = {"second": [], "bare": []}
        for _ in range(rounds):
            seconds["second"].append(demo(state, "tables "))
            seconds["bare"].append(bare(Path(folder)))
        for name, found in seconds.items():
            print(f"{name}: median {statistics.median(found):.1f} s of {', '.join(f'{s:.1f}' for s in found)}")
        above = statistics.median(seconds["second"]) - statistics.median(seconds["bare"])
        print(f"the second start takes {above:.1f} s more than a bare dagster dev (aim: at most 10)")


if __name__ == "__main__":
    main()
