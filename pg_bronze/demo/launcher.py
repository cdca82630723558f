"""The demo: PostgreSQL, S3, sample data and ``dagster dev``, started together, stopped in the order that loses nothing.

Dagster first, and all of it, so that a run in flight can still write; then the sample's writer, S3, PostgreSQL.
It does not import Dagster.
"""

import contextlib
import fcntl
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

from pg_bronze.demo import dagster_dev, environment, news, s3, sample
from pg_bronze.demo.dagster_dev import DagsterDev
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.processes import HOST, claim_port, end_leftover, free_ports, tail
from pg_bronze.demo.s3_server import S3Server
from pg_bronze.demo.writer import Writer
from pg_bronze.errors import PgBronzeError, SettingsError
from pg_bronze.settings.project import find_project

_BEAT_S = 0.2
_READY_WITHIN_S = 300.0


def run_demo(
    state_dir: Path,
    *,
    port: int = 3000,
    pg_port: int | None = None,
    s3_port: int | None = None,
    project_dir: Path | None = None,
    writer: bool = True,
    out: TextIO | None = None,
) -> int:
    """Run the demo until Ctrl-C or SIGTERM; everything it keeps is in ``state_dir``, for the next time.

    ``port`` is a wish: the web page takes a free one if it is in use. ``pg_port`` and ``s3_port`` are not; None takes
    those of the last time, or free ones. Returns 0 after an orderly stop, 1 if something failed, 2 if it could not
    start for a reason that the user has to change. A second Ctrl-C does not wait for runs in flight.
    """
    demo = Demo(state_dir.absolute(), out or sys.stdout)
    try:
        with demo.lock(), demo.signals():
            return demo.run(port, pg_port, s3_port, project_dir, writer)
    except SettingsError as error:
        demo.say(str(error))
        return 2
    except PgBronzeError as error:
        demo.say(str(error))
        return 1
    except KeyboardInterrupt:
        return 0


class Demo:
    """One demo in one state folder."""

    def __init__(self, state_dir: Path, out: TextIO) -> None:
        self._state_dir = state_dir
        self._out = out
        self._started = time.monotonic()
        self._interrupts = 0
        self._stopping = False

    def say(self, text: str) -> None:
        """Write a line for the person at the terminal, who may have closed it."""
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._out, flush=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the state folder; SettingsError if another demo does."""
        self._state_dir.mkdir(parents=True, exist_ok=True)
        with (self._state_dir / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingsError(
                    f"another demo is running in {self._state_dir}. Stop it, or give this one another state folder."
                ) from None
            yield

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt; later ones are counted."""

        def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a handler's signature)
            self._interrupts += 1
            if not self._stopping:
                self._stopping = True
                raise KeyboardInterrupt

        caught = [signal.SIGINT, signal.SIGTERM]
        # Under nohup it is ignored, and should be.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            caught.append(signal.SIGHUP)
        before = [signal.signal(number, note) for number in caught]
        try:
            yield
        finally:
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)

    def run(
        self, port: int, pg_port: int | None, s3_port: int | None, project_dir: Path | None, with_writer: bool
    ) -> int:
        """Start everything, tell what happens, and stop everything when asked to or when a part fails."""
        project = find_project((project_dir or Path.cwd()).absolute())
        around = environment.look_around((Path.cwd(), project.folder))
        home, cwd = environment.dagster_home(around, self._state_dir, project)
        # What a killed launcher left ends by itself within moments, in the right order; then it is helped.
        if left := end_leftover(dagster_dev.record(self._state_dir), patience_s=10):
            self.say(f"ended what a killed demo had left: {left}")
        with contextlib.ExitStack() as stack:
            postgres = self._postgres(stack, pg_port) if around.own_postgres else None
            store = self._s3(stack, s3_port) if around.own_s3 else None
            if postgres:
                postgres.start()
                self._fill(postgres)
            if store:
                store.wait_until_ready()
                store.create_bucket(environment.BUCKET)
            about_postgres = _postgres_variables(postgres) if postgres else {}
            if postgres:
                # A layer after bronze to look at, unless the user has chosen others.
                about_postgres["PG_BRONZE_LATEST"] = around.variables.get("PG_BRONZE_LATEST") or "movie"
            about_s3 = _s3_variables(store) if store else {}
            variables = environment.for_dagster(around, project, home, about_postgres, about_s3)
            shell = about_postgres | about_s3 | {"DAGSTER_HOME": str(home)}
            environment.write_shell_file(self._state_dir / "env.sh", shell)
            activity: Writer | None = None
            if with_writer and postgres:
                activity = Writer(lambda: postgres.connect(sample.DATABASE))
                stack.callback(activity.stop)
            if home.parent == self._state_dir:
                dagster_dev.end_runs_of_a_killed_demo(self._state_dir, variables, cwd)
            chosen = self._page_port(stack, port)
            dagster = DagsterDev(self._state_dir, project.config_dir / "workspace.yaml", cwd, variables, chosen)
            stack.callback(lambda: dagster.stop(hurry=lambda: self._interrupts > 1))
            stack.callback(self._no_more_interrupts)
            if activity:
                activity.start()
            code = self._watch(dagster, postgres, store, around)
        self.say("stopped")
        return code

    def _no_more_interrupts(self) -> None:
        self._stopping = True

    def _postgres(self, stack: contextlib.ExitStack, port: int | None) -> PostgresServer:
        server = PostgresServer(self._state_dir / "postgres", port=port)
        stack.callback(server.stop)
        return server

    def _s3(self, stack: contextlib.ExitStack, port: int | None) -> S3Server:
        server = s3.any_server(self._state_dir / "s3", port=port)
        stack.callback(server.stop)
        server.launch()
        return server

    def _page_port(self, stack: contextlib.ExitStack, wish: int) -> int:
        while (claim := claim_port(wish)) is None:
            other = free_ports(1)[0]
            self.say(f"port {wish} is in use; the web page gets {other}")
            wish = other
        stack.callback(claim.close)
        return wish

    def _fill(self, postgres: PostgresServer) -> None:
        with postgres.connect(autocommit=True) as connection:
            sample.create_database(connection)
        with postgres.connect(sample.DATABASE) as connection:
            sample.create(connection)

    def _watch(
        self,
        dagster: DagsterDev,
        postgres: PostgresServer | None,
        store: S3Server | None,
        around: environment.Surroundings,
    ) -> int:
        children = [part.child for part in (postgres, store, dagster) if part and part.child]
        added = news.Tail(dagster.log)
        ready, sliced, said = False, False, ""
        self.say(f"starting Dagster; its log: {dagster.log}")
        try:
            while True:
                if self._stopping:
                    raise KeyboardInterrupt  # the signal's own was raised in a finalizer, where Python forgets it
                for shown in filter(None, map(news.of, added.lines())):
                    if shown == said:
                        continue  # a run repeats what its step said, and every tick what the one before said
                    said = shown if shown.startswith("error: ") else ""
                    self.say(shown)
                    if not sliced and news.is_slice(shown):
                        sliced = True
                        self.say(f"first slice {self._seconds():.1f} s after the start")
                if not ready and dagster.answers():
                    ready = True
                    self._introduce(dagster.page, postgres, store, around)
                if dead := next((child for child in children if child.poll() is not None), None):
                    self.say(f"{dead.name} ended unexpectedly. Its log's last lines ({dead.log}):\n{dead.tail()}")
                    return 1
                if not ready and self._seconds() > _READY_WITHIN_S:
                    self.say(f"the web page does not answer. The log's last lines:\n{tail(dagster.log, 8)}")
                    return 1
                time.sleep(_BEAT_S)  # nothing tells of a web page that answers
        except KeyboardInterrupt:
            self.say("stopping; runs in flight end first (Ctrl-C again not to wait for them)")
            return 0

    def _introduce(
        self,
        page: str,
        postgres: PostgresServer | None,
        store: S3Server | None,
        around: environment.Surroundings,
    ) -> None:
        self.say(f"ready after {self._seconds():.1f} s; Ctrl-C stops everything")
        self.say(f"  tables    {page}/locations/pg_bronze/asset-groups/bronze/lineage")
        self.say(f"  sensor    {page}/locations/pg_bronze/sensors/bronze_tick")
        if store:
            self.say(f"  bucket    {store.browser_url}{environment.BUCKET}/")
        else:
            self.say(f"  bucket    {around.variables['MINIO_BUCKET']} (yours)")
        if postgres:
            self.say(f"  database  {sample.DATABASE} at {HOST}:{postgres.port}")
        else:
            self.say(f"  database  {around.variables['PG_DB']} (yours)")
        self.say(f"  for a shell of your own:  . {shlex.quote(str(self._state_dir / 'env.sh'))}")

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def _postgres_variables(server: PostgresServer) -> dict[str, str]:
    return {
        "PG_HOST": server.host,
        "PG_PORT": str(server.port),
        "PG_DB": sample.DATABASE,
        "PG_USER": server.user,
        "PG_PASS": server.password,
    }


def _s3_variables(server: S3Server) -> dict[str, str]:
    return {
        "MINIO_ENDPOINT": server.endpoint_url,
        "MINIO_ACCESS_KEY": server.access_key,
        "MINIO_SECRET_KEY": server.secret_key,
        "MINIO_BUCKET": environment.BUCKET,
    }
