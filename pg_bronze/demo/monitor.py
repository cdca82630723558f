"""The demo while it runs: what it prints, and when it ends."""

import os
import shlex
import sys
import time
from pathlib import Path

from pg_bronze.demo.console import Console, StopSignals
from pg_bronze.demo.dagster_dev import DagsterDev
from pg_bronze.demo.log_lines import LogTail, copied, failure, is_slice, last_lines, late_row_count, summarize
from pg_bronze.demo.servers import Servers
from pg_bronze.scheduling.outages import Outages

_INTERVAL_S = 0.2
# The groups that the page shows opened, and the web page's name for a group: source tables, bronze and silver assets.
_GROUPS, _GROUP = ("postgres", "bronze", "silver"), "global@global:{}"
_SENSORS = ("bronze_tick", "bronze_catalog")
_READY_WITHIN_S = 300.0
_LATE_ROWS_AFTER_S, _LATE_ROWS_EVERY_S = 120.0, 3600.0


class Monitor:
    """Prints the slices and errors in Dagster's log, and notices when a program ends."""

    def __init__(
        self, console: Console, signals: StopSignals, dagster: DagsterDev, servers: Servers, shell_file: Path
    ) -> None:
        self._console = console
        self._signals = signals
        self._dagster = dagster
        self._servers = servers
        self._shell_file = shell_file
        parts = (servers.postgres, servers.s3, dagster)
        self._children = [part.child for part in parts if part and part.child]
        self._log = LogTail(dagster.log)
        self._is_ready = False
        self._has_slice = False
        self._outages = Outages("table")
        self._late_rows = 0
        self._late_rows_at_s = _LATE_ROWS_AFTER_S

    def run(self) -> int:
        """Print what happens until a stop is requested (0), or a program ends or never answers (1)."""
        self._console.print(f"starting Dagster; log: {self._dagster.log}")
        try:
            while not (failure := self._check()):
                if self._signals.requested:
                    raise KeyboardInterrupt
                time.sleep(_INTERVAL_S)  # a web server reports no event when it is ready
        except KeyboardInterrupt:
            self._console.print("stopping when the runs in flight have ended; press Ctrl-C again to stop at once")
            return 0
        self._console.print(failure)
        return 1

    def print_last_slices(self) -> None:
        """Print the slices that runs in flight committed while the demo was stopped."""
        for line in filter(None, map(summarize, self._log.lines())):
            if is_slice(line):
                self._console.print(line)

    def _check(self) -> str | None:
        """Print what is new, and return why the demo has failed."""
        for line in filter(None, map(summarize, self._log.lines())):
            self._print_summary(line)
        self._print_late_rows()
        if not self._is_ready and self._dagster.is_ready():
            self._is_ready = True
            self._print_addresses()
        for child in self._children:
            if child.poll() is not None:
                return f"{child.name} ended unexpectedly. Last lines of its log ({child.log}):\n{child.tail()}"
        if not self._is_ready and self._console.elapsed_s > _READY_WITHIN_S:
            return f"the web page does not answer. Last lines of the log:\n{last_lines(self._dagster.log, 8)}"
        return None

    def _print_summary(self, line: str) -> None:
        if report := failure(line):
            at, name, cause = report
            # Each process that executes runs reports a cause, and a run that of each of its tables.
            if (said := self._outages.failed(cause, name, time.monotonic())) is None:
                return
            line = f"{at}error: {said}"
        self._console.print(line)
        if table := copied(line):
            self._print_recovered(table, line.partition("  ")[0])
        self._late_rows += late_row_count(line)
        if not self._has_slice and is_slice(line):
            self._has_slice = True
            self._console.print(f"first slice {self._console.elapsed_s:.1f} s after the start")

    def _print_recovered(self, table: str, at: str) -> None:
        """Print that what kept a table, or all of them, from being copied has passed."""
        for name in (table, *_SENSORS):
            if said := self._outages.succeeded(name, time.monotonic()):
                self._console.print(f"{at}  {said}")

    def _print_late_rows(self) -> None:
        """Print after two minutes, and then every hour, what a plain copy would have lost since the start."""
        if self._late_rows and self._console.elapsed_s >= self._late_rows_at_s:
            self._late_rows_at_s = self._console.elapsed_s + _LATE_ROWS_EVERY_S
            lost = f"late rows so far: {self._late_rows:,}"
            self._console.print(f"{lost}; a copy by `column > last value` would have lost them")

    def _print_addresses(self) -> None:
        location, groups = f"{self._dagster.url}/locations/pg_bronze", ",".join(map(_GROUP.format, _GROUPS))
        self._console.print(f"ready after {self._console.elapsed_s:.1f} s; Ctrl-C stops everything")
        self._console.print(f"  tables    {self._dagster.url}/asset-groups/?expanded={groups}")
        self._console.print(f"  sensor    {location}/sensors/bronze_tick")
        self._console.print(f"  bucket    {self._servers.bucket()}")
        self._console.print(f"  database  {self._servers.database()}")
        shell_file = shlex.quote(str(self._shell_file))
        self._console.print(f"  settings for a shell:  . {shell_file}")
        if self._servers.postgres:  # the sample database, which has the table
            self._console.print(f"  read a table:  (. {shell_file}; {_command()} scan movie --latest)")


def _command() -> str:
    """Return how to call the command of this installation from the current folder."""
    command = Path(sys.executable).with_name("pg-bronze")
    return shlex.quote(os.path.relpath(command) if command.is_relative_to(Path.cwd()) else str(command))
