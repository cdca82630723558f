"""A stand-in for the Docker engine: a container is a process with a folder and an environment of its own.

It answers the requests of `dagster-docker`. It has no images, networks, users or limits. It copies the files that are
mounted below the project folder.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

BIN = Path(sys.executable).parent
PROJECT = "/project/"


@dataclass
class Container:
    """A process, with the request that created it. ``files`` are those that it had at its start."""

    request: Mapping[str, Any]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    files: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Start the command with nothing of this process's environment but what finds Python."""
        for name in ("project", "dagster_home", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for bind in self.request.get("HostConfig", {}).get("Binds") or []:
            source, target, *_ = bind.split(":")
            assert target.startswith(PROJECT), target
            shutil.copy(source, self.folder / "project" / target.removeprefix(PROJECT))
        given = dict(item.split("=", 1) for item in self.request.get("Env") or [])
        own = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.folder / "project"),
            "TMPDIR": str(self.folder / "tmp"),
            "DAGSTER_HOME": str(self.folder / "dagster_home"),
        }
        self.files = self.listing()
        with (self.folder / "log").open("wb") as log:
            program, *arguments = self.request["Cmd"]
            self.process = subprocess.Popen(
                [BIN / program, *arguments], cwd=self.folder / "project", env=own | given, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    def stop(self, timeout_s: float) -> None:
        """Stop the process as `docker stop` does."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """Kill the process, as the kernel does that needs memory."""
        assert self.process is not None
        self.process.kill()

    @property
    def status(self) -> str:
        """The word of the engine."""
        return "created" if self.process is None else "running" if self.process.poll() is None else "exited"

    def listing(self) -> set[str]:
        """Return the files of the container, without temporary ones and the log."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] not in ("tmp", "log")}


class Engine:
    """The containers, and the address that `DOCKER_HOST` has to name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.containers: dict[str, Container] = {}
        engine = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*engine.get(urlparse(self.path).path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(*engine.post(urlparse(self.path).path, json.loads(body or "{}")))

            def _answer(self, status: int, content: object) -> None:
                text = b"" if status == 204 else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self.url = f"tcp://127.0.0.1:{self._server.server_port}"

    def run(self, name: str, command: list[str], environment: Mapping[str, str], **request: Any) -> Container:
        """Start a container of a service."""
        env = [f"{key}={value}" for key, value in environment.items()]
        made = Container({"Cmd": command, "Env": env, **request}, self.folder / name)
        self.containers[name] = made
        return made

    def of_run(self, run_id: str) -> Container:
        """Return the container of a run."""
        return next(item for item in self.runs if item.request["Labels"]["dagster/run_id"] == run_id)

    @property
    def runs(self) -> list[Container]:
        """The containers that were created by a request."""
        return [item for item in self.containers.values() if "Image" in item.request]

    def get(self, path: str) -> tuple[int, object]:
        """Answer a request for the version, or for a container."""
        if path.endswith("/version"):
            return 200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27.0.0"}
        found = re.fullmatch(r".*/containers/(\w+)/json", path)
        if not found or found[1] not in self.containers:
            return 404, {"message": f"no such container: {path}"}
        container = self.containers[found[1]]
        if container.status == "exited" and container.request.get("HostConfig", {}).get("AutoRemove"):
            return 404, {"message": f"no such container: {path}"}
        return 200, {"Id": found[1], "State": {"Status": container.status}}

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, object]:
        """Create, start or stop a container."""
        if path.endswith("/containers/create"):
            name = f"run{len(self.containers)}"
            self.containers[name] = Container(body, self.folder / name)
            return 201, {"Id": name, "Warnings": []}
        found = re.fullmatch(r".*/containers/(\w+)/(start|stop)", path)
        if not found or found[1] not in self.containers:
            return 404, {"message": f"no such container: {path}"}
        container = self.containers[found[1]]
        container.start() if found[2] == "start" else container.stop(30)
        return 204, None

    @contextmanager
    def serving(self) -> Iterator["Engine"]:
        """Answer requests; end all containers at the end."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            deadline = time.monotonic() + 20
            for container in reversed(list(self.containers.values())):
                container.stop(max(1.0, deadline - time.monotonic()))
            self._server.shutdown()
            self._server.server_close()
