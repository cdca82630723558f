"""The demo: PostgreSQL, S3, sample data and ``dagster dev``, started together and stopped in a safe order.

Dagster is stopped first, so that runs in flight can still write; then the sample's writer, S3, and PostgreSQL.
"""

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pg_bronze.demo import sample
from pg_bronze.demo.console import Console, StopSignals
from pg_bronze.demo.dagster_dev import DagsterDev, fail_interrupted_runs, record_file
from pg_bronze.demo.environment import (
    Environment,
    dagster_home,
    dagster_variables,
    read_environment,
    write_shell_file,
)
from pg_bronze.demo.monitor import Monitor
from pg_bronze.demo.ports import free_ports, reserve_port
from pg_bronze.demo.processes import end_leftover
from pg_bronze.demo.servers import Servers, start_servers
from pg_bronze.demo.writer import SampleWriter
from pg_bronze.errors import PgBronzeError, SettingsError
from pg_bronze.settings.project import Project, current_folder, find_project


def run_demo(
    state_dir: Path,
    *,
    port: int = 3000,
    pg_port: int | None = None,
    s3_port: int | None = None,
    project_dir: Path | None = None,
    writer: bool = True,
    yes: bool = False,
    out: TextIO | None = None,
) -> int:
    """Run the demo until Ctrl-C or SIGTERM. A second Ctrl-C does not wait for runs in flight.

    Args:
        state_dir: The folder of all files of the demo, which the next start uses again.
        port: The port of the web page. A free one is used if it is in use.
        pg_port: The port of PostgreSQL; None for the one of the last start, or a free one.
        s3_port: The port of the S3 server, likewise.
        project_dir: Where the project folder is searched; None for the current folder.
        writer: Whether rows are inserted and updated in the sample database all the time.
        yes: Whether to start although the settings select only a database or only a bucket.
        out: Where lines are printed; None for standard output.

    Returns:
        0 after an orderly stop, 1 if something failed, 2 if the user has to change something first.
    """
    console = Console(out or sys.stdout)
    try:
        project = find_project((project_dir or current_folder()).absolute())
        environment = read_environment((current_folder(), project.folder))
        _accept_risk(environment, yes)
        with _lock(state_dir.absolute()), StopSignals() as signals:
            demo = Demo(state_dir.absolute(), project, environment, console, signals)
            return demo.run(port, pg_port, s3_port, with_writer=writer)
    except SettingsError as error:
        console.print(f"pg-bronze: {error}")
        return 2
    except PgBronzeError as error:
        console.print(f"pg-bronze: {error}")
        return 1
    except KeyboardInterrupt:
        return 0


def _accept_risk(environment: Environment, yes: bool) -> None:
    """Raise SettingsError if data would be copied to the wrong place and the user does not agree."""
    risk = environment.risk
    if risk is None or yes:
        return
    if sys.stdin and sys.stdin.isatty():
        import typer

        if typer.confirm(f"{risk} Continue?"):
            return
        raise SettingsError("the demo was not started. Set both PG_DB and MINIO_BUCKET, or neither of them.")
    raise SettingsError(f"{risk} Set both or neither of them, or confirm with --yes.")


@contextlib.contextmanager
def _lock(state_dir: Path) -> Iterator[None]:
    """Lock the state folder; raise SettingsError if another demo has locked it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another demo is running in {state_dir}. Stop it, or choose another folder with --state-dir."
            ) from None
        yield


class Demo:
    """One demo in one state folder, which it has locked."""

    def __init__(
        self, state_dir: Path, project: Project, environment: Environment, console: Console, signals: StopSignals
    ) -> None:
        self._state_dir = state_dir
        self._project = project
        self._environment = environment
        self._console = console
        self._signals = signals
        self._shell_file = state_dir / "env.sh"
        self._home, self._cwd = dagster_home(environment, state_dir, project)

    def run(self, port: int, pg_port: int | None, s3_port: int | None, *, with_writer: bool) -> int:
        """Start everything, print what happens, and stop everything on request or when a part fails."""
        # After a kill the supervisor and the kernel end these processes in order, within moments.
        if leftover := end_leftover(record_file(self._state_dir), patience_s=10):
            self._console.print(f"ended the processes of a killed demo: {leftover}")
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(start_servers(self._environment, self._state_dir, pg_port, s3_port))
            activity = self._writer(stack, servers) if with_writer else None
            dagster = self._dagster(stack, servers, port)
            if activity:
                activity.start()
            monitor = Monitor(self._console, self._signals, dagster, servers, self._shell_file)
            code = monitor.run()
        monitor.print_last_slices()
        self._console.print("stopped")
        return code

    def _writer(self, stack: contextlib.ExitStack, servers: Servers) -> SampleWriter | None:
        if (postgres := servers.postgres) is None:
            return None
        writer = SampleWriter(lambda: postgres.connect(sample.DATABASE))
        stack.callback(writer.stop)
        return writer

    def _dagster(self, stack: contextlib.ExitStack, servers: Servers, port: int) -> DagsterDev:
        postgres, s3 = servers.postgres_variables(), servers.s3_variables()
        variables = dagster_variables(self._environment, self._project, self._home, postgres, s3)
        write_shell_file(self._shell_file, postgres | s3 | {"DAGSTER_HOME": str(self._home)})
        if self._home.parent == self._state_dir:
            fail_interrupted_runs(self._state_dir, variables, self._cwd)
        workspace = self._project.config_dir / "workspace.yaml"
        page_port = self._reserve_port(stack, port)
        dagster = DagsterDev(self._state_dir, workspace, self._cwd, variables, page_port)
        stack.callback(lambda: dagster.stop(is_urgent=lambda: self._signals.count > 1))
        stack.callback(self._signals.only_count)
        return dagster

    def _reserve_port(self, stack: contextlib.ExitStack, port: int) -> int:
        while (reservation := reserve_port(port)) is None:
            other = free_ports(1)[0]
            self._console.print(f"port {port} is in use; the web page uses port {other}")
            port = other
        stack.callback(reservation.close)
        return port
