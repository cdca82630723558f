"""An S3 server that costs next to nothing: objects in memory, for benchmarks of what a client and PostgreSQL need.

    .venv/bin/python -m benchmarks.memory_s3

It has what a copy asks for: create-only writes, whole objects, ranges from the end, listings and deletes of one bucket.
It checks no signature, no checksum and no bucket. ``benchmarks/first_load.py --store memory`` runs it.
"""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_objects: dict[str, bytes] = {}
_lock = threading.Lock()
_MODIFIED = "2026-01-01T00:00:00.000Z"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with _lock:
            is_written = "If-None-Match" not in self.headers or self._key not in _objects
            if is_written:
                _objects[self._key] = body
        if is_written:
            self._answer(200)
        else:
            self._error(412, "PreconditionFailed")

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list({name: values[0] for name, values in query.items()})
        elif (body := _objects.get(self._key)) is None:
            self._error(404, "NoSuchKey")
        elif "Range" in self.headers:
            self._answer(206, body[-int(self.headers["Range"].removeprefix("bytes=-")) :])
        else:
            self._answer(200, body)

    def do_DELETE(self) -> None:
        _objects.pop(self._key, None)
        self._answer(204)

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path.lstrip("/")).partition("/")[2]

    def _list(self, query: dict[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        with _lock:
            found = sorted(key for key in _objects if key.startswith(prefix) and key > after)
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(_objects[key])}</Size>"
            f"<LastModified>{_MODIFIED}</LastModified></Contents>"
            for key in found
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
        self._answer(200, text.encode())

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>-</Message></Error>".encode())

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class MemoryS3:
    """The server in a separate process, with the attributes of ``SeaweedServer`` that a benchmark uses."""

    access_key = secret_key = "memory"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.memory_s3"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        assert self.child.stdout is not None
        self.endpoint_url = f"http://127.0.0.1:{int(self.child.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()

    def create_bucket(self, _name: str) -> None:
        """Do nothing: there is one bucket of every name."""


def main() -> None:
    """Serve until the process is ended; print the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
