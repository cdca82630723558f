"""Faults between the product and its servers: a proxy in front of an S3 server, and reads that are held on their way.

The proxy speaks HTTP, because the faults do (503, SlowDown, half a body, an answer that never comes back); programs
such as Toxiproxy know connections only.
"""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import connectorx
import psycopg
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pg_bronze.lake import s3_client
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.readers import reading
from pg_bronze_tests.harness.lake import MOVIE, Lake, fill
from pg_bronze_tests.harness.replicas import until
from pg_bronze_tests.harness.servers import Bucket

_LAST = {"connection", "transfer-encoding", "content-length"}


@dataclass
class Fault:
    """What befalls requests of a method whose path holds ``part``: ``times`` of them, after ``spared`` others.

    ``answer`` is a status and an S3 error code, given instead of forwarding. ``lost``: the server does what it was
    asked, and its answer does not come back. ``cut``: the answer ends in the middle. ``silent``: no answer ever comes.
    ``unfenced``: it is forwarded without ``If-None-Match``, as if the server knew no such header. ``racing``: the first
    two PUTs of a key are forwarded without it if they arrive together, as by a server that checks before it writes.
    """

    method: str
    part: str = ""
    times: int = 10**9
    spared: int = 0
    answer: tuple[int, str] | None = None
    lost: bool = False
    cut: bool = False
    silent: bool = False
    unfenced: bool = False
    racing: bool = False


class Proxy:
    """An S3 server as seen over a bad network; ``met`` counts the requests that a fault befell."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.fault: Fault | None = None
        self.met = 0
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        self._racers: dict[str, int] = {}
        self._written: set[str] = set()
        self._ended = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are sent separately: the body would wait 40 ms for the client's acknowledgment.
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                proxy._serve(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.access_key, self.secret_key = bucket.server.access_key, bucket.server.secret_key
        self.store = Store(
            s3_client.connect(self.endpoint_url, "us-east-1", self.access_key, self.secret_key), bucket.name
        )

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def broken(self, method: str, part: str = "", **fault: Any) -> Iterator[None]:
        """Inside, requests meet a fault; afterwards the network is as good as ever, and one must have met it."""
        self.fault, self.met = Fault(method, part, **fault), 0
        yield
        self.fault = None
        assert self.met > 0, "no request met the fault"

    def _meets(self, method: str, path: str) -> Fault | None:
        with self._lock:
            fault = self.fault
            if fault is None or self.met >= fault.times:
                return None
            if method not in fault.method.split("|") or fault.part not in urllib.parse.unquote(path):
                return None
            if fault.spared > 0:
                fault.spared -= 1
                return None
            self.met += 1
            return fault

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._meets(request.command, request.path)
        if fault and fault.silent:
            self._ended.wait()
            return
        if fault and fault.answer:
            status, code = fault.answer
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>planted</Message></Error>".encode()
            self._answer(request, status, {}, b"" if request.command == "HEAD" else text)
            return
        unfenced = bool(fault and (fault.unfenced or (fault.racing and self._races(request.path))))
        there = urllib.parse.urlsplit(self.bucket.server.endpoint_url)
        upstream = http.client.HTTPConnection(there.hostname or "", there.port)
        with contextlib.closing(upstream):
            # With the Host header as it came: it is signed.
            upstream.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            headers = dict(request.headers.items())
            for name, value in (self._unfenced(request, body) if unfenced else headers).items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            response = upstream.getresponse()
            content = response.read()
        if fault and fault.racing:
            with self._arrived:
                self._written.add(request.path)
        if fault and fault.lost:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        kept = {name: value for name, value in response.getheaders() if name.lower() not in _LAST}
        size = response.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        self._answer(request, response.status, kept, content, size, cut=bool(fault and fault.cut))

    def _races(self, path: str) -> bool:
        """Return whether a PUT is one of the first two of its key, and arrived while the key was not written yet."""
        with self._arrived:
            if path in self._written:
                return False
            self._racers[path] = number = self._racers.get(path, 0) + 1
            self._arrived.notify_all()
            self._arrived.wait_for(lambda: self._racers[path] > 1, timeout=1)
            return number <= 2

    def _unfenced(self, request: BaseHTTPRequestHandler, body: bytes) -> dict[str, str]:
        """The headers without ``If-None-Match``, signed anew: it is among those that the client signed."""
        left_out = {"if-none-match", "authorization", "x-amz-date"}
        kept = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
        server = self.bucket.server
        made = AWSRequest(request.command, f"http://{request.headers['Host']}{request.path}", kept, body)
        S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", "us-east-1").add_auth(made)
        return dict(made.headers.items())

    @staticmethod
    def _answer(
        request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes,
        size: str | None = None, cut: bool = False,
    ) -> None:  # fmt: skip
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", size or str(len(content)))
        request.end_headers()
        if request.command == "HEAD":
            return
        request.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            request.close_connection = True


@contextmanager
def held_reads(database: Any, table: str, act: Callable[[psycopg.Connection, int], None]) -> Iterator[None]:
    """Inside, the table's first slice read waits for a lock on it, and ``act`` gets its session's pid meanwhile.

    ``act`` is called in another thread with a connection of its own; the lock is given back after it.
    """
    original = Source.read_sent
    taken: list[threading.Thread] = []

    def read(self: Source, query: str, label: str) -> Any:
        if label == table and not taken:
            ready = threading.Event()
            taken.append(threading.Thread(target=hold, args=(ready,)))
            taken[0].start()
            ready.wait()
        return original(self, query, label)

    def hold(ready: threading.Event) -> None:
        with database.connect(autocommit=False) as holder, database.connect() as other:
            try:
                holder.execute(f"lock table {table} in access exclusive mode")
            finally:
                ready.set()
            waiting = f"from pg_locks where not granted and relation = '{table}'::regclass"
            until(database.server, database.name, f"select exists (select {waiting})")
            (pid,) = other.execute(f"select pid {waiting}").fetchone() or (0,)
            act(other, pid)
            holder.rollback()

    Source.read_sent = read  # type: ignore[method-assign]
    try:
        yield
    finally:
        Source.read_sent = original  # type: ignore[method-assign]
        for thread in taken:
            thread.join()
    assert taken, "no slice was read"


@contextmanager
def impatient(lake: Lake, server: Any, answer_s: float = 1.0) -> Iterator[None]:
    """Inside, a request to ``server`` that gets no answer fails after ``answer_s``.

    Only inside: a server that has just started on a busy machine may take longer than that.
    """
    patient = lake.store
    client = s3_client.connect(
        server.endpoint_url, "us-east-1", server.access_key, server.secret_key, answer_s=answer_s
    )
    lake.store = Store(client, patient.bucket)
    try:
        yield
    finally:
        lake.store = patient


def freeze(pid: int) -> None:
    """Stop a process, and return when each of its threads stands still; the signal does not wait for that.

    AssertionError after ten seconds. ``SIGCONT`` lets it go on.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10.0
    while moving := [stat for stat in Path(f"/proc/{pid}/task").glob("*/stat") if not _is_stopped(stat)]:
        assert time.monotonic() < deadline, f"{len(moving)} threads of process {pid} go on"
        os.sched_yield()


def _is_stopped(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in {"T", "t"}
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def stale_reads(database: Any, change: str) -> Iterator[None]:
    """Inside, every slice is read in a snapshot from before ``change``, which was committed since."""
    with (
        database.connect(autocommit=False) as late,
        database.connect(autocommit=False) as holder,
        pytest.MonkeyPatch.context() as patch,
    ):
        late.execute(change)
        database.execute("select pg_current_xact_id()")  # a later id has ended: the next one says nothing of ``change``
        holder.execute("set transaction isolation level repeatable read")
        ((snapshot,),) = holder.execute("select pg_export_snapshot()").fetchall()
        late.commit()
        patch.setattr(reading, "BEGIN", f"{reading.BEGIN}; set transaction snapshot '{snapshot}'")
        read_sql = connectorx.read_sql

        def read(*args: Any, pre_execution_query: list[str], **kwargs: Any) -> Any:
            begin, *others = pre_execution_query  # connectorx prepares each, so each may be one statement only
            return read_sql(*args, pre_execution_query=[*begin.split("; "), *others], **kwargs)

        patch.setattr(connectorx, "read_sql", read)
        yield


def stocked(lake: Lake) -> Lake:
    """Two tables, copied once; then both get new rows."""
    lake.database.execute(f"{MOVIE}; create table person (movie_id int primary key)")
    lake.database.execute(f"{fill(1, 10)}; insert into person values (1)")
    lake.drain()
    lake.drain("person")
    lake.database.execute(f"{fill(11, 20)}; update movie set title = 'changed' where movie_id = 3")
    lake.database.execute("insert into person values (2)")
    return lake
