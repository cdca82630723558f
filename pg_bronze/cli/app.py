"""The commands: their arguments, their help, and what each of them calls. Everything heavy is imported by the call."""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pg_bronze import __version__
from pg_bronze.cli.interrupts import interrupts
from pg_bronze.cli.repeated_error import RepeatedError
from pg_bronze.cli.terminal import errors_as_sentences, terminal
from pg_bronze.errors import PgBronzeError

app = typer.Typer(
    help="Copies PostgreSQL tables incrementally and exactly into Parquet on MinIO or S3.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # paragraphs as wide as the terminal
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        terminal.print(f"pg-bronze {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take global options."""


Table = Annotated[str, typer.Argument(help="The table, such as `movie` or `sales.movie`.", metavar="TABLE")]
Tables = Annotated[
    list[str] | None,
    typer.Argument(help="Tables, such as `movie` or `sales.movie`. Default: all.", metavar="TABLE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and no lines.")]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Exit with 3 if new rows are blocked, and with 4 if a table is not copied any more."),
]


def _end(code: int) -> None:
    if code:
        raise typer.Exit(code)


@app.command(epilog="Example: `pg-bronze tick movie sales.person --json`")
def tick(
    tables: Tables = None,
    due: Annotated[
        bool, typer.Option("--due", help="Copy only tables that are due, as the sensor does. For schedulers.")
    ] = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Copy new rows once, in the foreground.

    It copies every row that was committed before it, sweeps each large table that it copies, and retries failing tables
    at once. With --due, it copies as the sensor does: large tables are swept by their schedule, a large first load
    stops after a minute, and a failing table is retried after its pause, until which it counts as failed.

    Exits with 0 if everything was copied or nothing was new, and with 1 if a table failed or its right was revoked.
    With --strict, it exits with 4 if a table that was copied before is not copied any more and no other failed, and
    with 3 if an open transaction keeps new rows from being copied. The sentence about it is on standard error in each
    case.

    Dagster's state is stored in DAGSTER_HOME if that is set, else in .dagster/ in the project folder, or in the current
    folder outside of a project.
    """
    from pg_bronze.cli import batch
    from pg_bronze.cli.batches import Batches

    with errors_as_sentences(as_json):
        _use_log_format()
        outcome = batch.run_batch(tables or [], Batches(unattended=due, once=True, with_states=as_json))
        if as_json:
            terminal.document(outcome.to_json())
        _end(outcome.exit_code(strict))


def _use_log_format() -> None:
    from pg_bronze.settings.load import log_format

    terminal.as_json = log_format() == "json"


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number of seconds, such as 10 or 10s") from error
    if not 0 <= seconds <= 86400:
        raise typer.BadParameter(f"{text!r} is not between 0 and 86400 seconds")
    return seconds


@app.command(epilog="Example: `pg-bronze run --every 30s`")
def run(
    every: Annotated[
        str, typer.Option(help="Time between the starts of two batches, such as 10s.", metavar="TIME")
    ] = "10s",
    strict: Strict = False,
) -> None:
    """Copy new rows repeatedly, until Ctrl-C. A failing table is retried after growing pauses.

    Each line begins with the time. Nothing is printed while nothing is new. Ctrl-C ends it with 0; with --strict, with
    the exit status that `pg-bronze tick --strict` would have had in the last batch.

    Dagster's state is stored in DAGSTER_HOME if that is set, else in .dagster/ in the project folder, or in the current
    folder outside of a project.
    """
    from pg_bronze.cli import batch
    from pg_bronze.cli.batches import Batches

    interval_s, batches, code, error = _seconds(every), Batches(unattended=True), 0, RepeatedError()
    terminal.lasting = True
    with contextlib.suppress(PgBronzeError):  # the first batch reports it
        _use_log_format()
    terminal.print(f"New rows are copied every {interval_s:g} s. Ctrl-C ends it.")
    try:
        with interrupts() as interrupted:
            while True:
                started = time.monotonic()
                try:
                    outcome = batch.run_batch([], batches)
                    code, sentence = outcome.exit_code(True) if strict else 0, error.after_success(started)
                except PgBronzeError as raised:
                    code, sentence = int(strict), error.after_error(str(raised), started)
                if sentence:
                    terminal.complain(sentence)
                if not terminal.is_read:
                    terminal.complain("the program that reads standard output has ended, so this command ends too.")
                    raise typer.Exit(1)
                if interrupted(max(0.0, interval_s - (time.monotonic() - started))):
                    break
    except KeyboardInterrupt:
        pass
    finally:
        terminal.lasting = False
    _end(code)


@app.command(epilog="Example: `pg-bronze status --json`")
def status(as_json: Json = False) -> None:
    """Show the state of each table: lag, rows, late rows, errors. Exits with 1 if a table has an error.

    Requests no copy. The lag is the time up to now of which changes may not be in the lake.
    """
    from pg_bronze.cli import status as showing

    with errors_as_sentences(as_json):
        _end(0 if showing.show(as_json) else 1)


@app.command(epilog="Example: `pg-bronze doctor --json | jq '.findings[] | select(.severity == \"error\")'`")
def doctor(as_json: Json = False) -> None:
    """Examine the connections, clocks, rights and tables, and print what to mend. Changes nothing.

    Exits with 0 if there is nothing to do, and with 1 if something is wrong (error, warn). Advice is not wrong. The
    costs are estimates from the planner's statistics, for a table in the cache of the server.
    """
    from pg_bronze.cli.doctor import run_doctor

    with errors_as_sentences(as_json):
        _end(run_doctor(as_json))


@app.command(epilog="Example: `pg-bronze plan --json | jq '.tables[] | select(.due)'`")
def plan(as_json: Json = False) -> None:
    """Print which tables the next tick reads, and why. Requests and changes nothing.

    The next tick is that of the sensor `bronze_tick` or of `pg-bronze run`. `pg-bronze tick` reads more: it asks every
    table that may have a new row, and retries failing tables at once.
    """
    from pg_bronze.cli.plan import run_plan

    with errors_as_sentences(as_json):
        run_plan(as_json)


@app.command(epilog="Example: `pg-bronze scan movie --latest --rows 5`")
def scan(
    table: Table,
    rows: Annotated[int, typer.Option(min=0, max=1_000_000, help="How many rows to print.")] = 20,
    latest: Annotated[bool, typer.Option("--latest", help="Only the newest version of each primary key.")] = False,
    as_json: Json = False,
) -> None:
    """Print the first copied rows of a table, as `pg_bronze.scan` reads them."""
    from pg_bronze.cli.scan import run_scan

    with errors_as_sentences(as_json):
        run_scan(table, rows, latest, as_json)


@app.command(epilog="Example: `pg-bronze verify 2026-01-02 movie`")
def verify(
    day: Annotated[
        datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day in UTC, such as 2026-01-02.", metavar="DAY")
    ],
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Verify the objects of a day, and write missing ones again with the rows that are still current.

    Exits with 1 if an object is missing and cannot be written again, or if a table cannot be verified. Tables are
    copied meanwhile.
    """
    from pg_bronze.cli.verify import run_verify

    if day.date() > datetime.now(UTC).date():
        raise typer.BadParameter(f"{day:%Y-%m-%d} is in the future")
    with errors_as_sentences(as_json):
        _end(run_verify(day.date(), tables or [], as_json))


@app.command(epilog="Example: `pg-bronze rebuild`")
def rebuild(tables: Tables = None, as_json: Json = False) -> None:
    """Rebuild the state in Dagster's storage from the bucket alone, and print what was found.

    It records the newest watermark of each table, and every day that has objects. A tick does the first by itself, when
    a table is due. Exits with 1 if the bucket lacks objects that the storage has, or if objects are damaged.
    """
    from pg_bronze.cli.rebuild import run_rebuild

    with errors_as_sentences(as_json):
        _end(run_rebuild(tables or [], as_json))


@app.command(epilog="Example: `pg-bronze monitor --host 0.0.0.0 --every 30s`")
def monitor(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics; 0 for none.")] = 9187,
    host: Annotated[str, typer.Option(help="Address of /metrics; 0.0.0.0 for all.")] = "127.0.0.1",
    every: Annotated[str, typer.Option(help="Time between the starts of two checks, such as 30s.")] = "30s",
    textfile: Annotated[
        Path | None, typer.Option(help="Write the metrics to this file too, for the textfile collector.")
    ] = None,
) -> None:
    """Check all tables repeatedly, serve the result to Prometheus, and send alerts, until Ctrl-C.

    Requests no copy. Continues while the database or the bucket is down.
    """
    from pg_bronze.cli.monitor import process

    every_s = _seconds(every)
    if every_s < 1:
        raise typer.BadParameter("--every must be at least 1s")
    terminal.lasting = True
    try:
        with errors_as_sentences():
            _use_log_format()
            process.run(every_s, host, port, textfile)
    except KeyboardInterrupt:
        return
    finally:
        terminal.lasting = False


@app.command(epilog="Example: `pg-bronze reset movie`")
def reset(
    table: Table,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
) -> None:
    """Discard the watermark of a table. The next tick copies the whole table into a new generation.

    Prints what will happen, and asks. Without --yes and without a terminal it changes nothing, and exits with 2.
    """
    from pg_bronze.cli.state_changes import run_reset

    with errors_as_sentences():
        run_reset(table, yes)


@app.command(epilog="Example: `pg-bronze forget movie`")
def forget(table: Table) -> None:
    """Confirm that a table which was copied before is not copied any more, so that it does not count as failing.

    For a table whose right was revoked, or that was dropped or renamed. Its objects stay in the bucket.
    """
    from pg_bronze.cli.forget import run_forget

    with errors_as_sentences():
        run_forget(table)


@app.command("continue", epilog="Example: `pg-bronze continue movie`")
def resume(table: Table) -> None:
    """Continue the copy of a table after a move, a failover or a lost object, without comparing rows."""
    from pg_bronze.cli.state_changes import change
    from pg_bronze.sync import state_changes

    with errors_as_sentences():
        change(table, lambda sync, recorded, writer, _: (state_changes.resume(sync, recorded, writer), None))


@app.command(epilog="Example: `pg-bronze adopt`")
def adopt(tables: Tables = None, as_json: Json = False) -> None:
    """Continue the copy in another bucket, after all objects were moved there under the same keys. Default: all tables.

    Run it once after MINIO_BUCKET was changed. Exits with 1 if the newest object of a table is not
    in the bucket, or if the database is not the one that was copied.
    """
    from pg_bronze.cli.adopt import run_adopt

    with errors_as_sentences(as_json):
        _end(run_adopt(tables or [], as_json))


@app.command(epilog="Example: `pg-bronze reconcile movie`")
def reconcile(
    table: Table,
    check: Annotated[bool, typer.Option("--check", help="Compare, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Compare a table with its objects after a failover or a restore, and continue if no row is missing.

    `--check` exits with 1 if a row is missing. It compares a large table by key and transaction, in parts. `--json`
    needs it."""
    from pg_bronze.cli.compare import run_compare
    from pg_bronze.cli.state_changes import change
    from pg_bronze.sync import reconcile as reconciling

    if as_json and not check:
        raise typer.BadParameter("--json needs --check.")
    if check:
        with errors_as_sentences(as_json):
            _end(run_compare(table, as_json))
        return
    with errors_as_sentences():
        change(
            table,
            lambda sync, recorded, writer, settings: reconciling.reconcile(sync, recorded, writer, settings.s3),
        )


@app.command(epilog="Example: `pg-bronze schema > pg_bronze.schema.json`")
def schema() -> None:
    """Print the JSON Schema of pg_bronze.toml, with which editors complete and check the file."""
    from pg_bronze.settings.docs import schema_text

    typer.echo(schema_text(), nl=False)


@app.command(epilog="Example: `pg-bronze demo --port 3001`")
def demo(
    state_dir: Annotated[Path, typer.Option(help="The folder for the demo's data.")] = Path(".pg_bronze"),
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    pg_port: Annotated[int | None, typer.Option(help="Port of PostgreSQL. Default: a free one.")] = None,
    s3_port: Annotated[int | None, typer.Option(help="Port of the S3 server. Default: a free one.")] = None,
    writer: Annotated[bool, typer.Option(help="Write to the sample database continuously.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Start even if only a database or only a bucket is set.")] = False,
) -> None:
    """Start PostgreSQL, an S3 server, a sample database and `dagster dev`.

    A server that PG_DB or MINIO_BUCKET names is used instead."""
    from pg_bronze.demo.launcher import run_demo

    with errors_as_sentences():
        raise typer.Exit(run_demo(state_dir, port=port, pg_port=pg_port, s3_port=s3_port, writer=writer, yes=yes))


if __name__ == "__main__":
    app()
