"""The commands: one batch, repeated batches, the demo, and changes of a table's watermark."""

import contextlib
import time
from pathlib import Path
from typing import Annotated

import typer

from pg_bronze import __version__
from pg_bronze.cli.interrupts import interrupts
from pg_bronze.cli.terminal import errors_as_sentences, terminal

app = typer.Typer(
    help="Copies PostgreSQL tables incrementally and exactly into Parquet on MinIO or S3.",
    no_args_is_help=True,
    add_completion=False,
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


Table = Annotated[str, typer.Argument(help="The table, such as `movie` or `sales.movie`.")]


@app.command()
def tick(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables, such as `movie` or `sales.movie`. Default: all.")
    ] = None,
) -> None:
    """Copy new rows once, in the foreground. Exits with 1 if a table failed.

    Dagster's state is stored in DAGSTER_HOME if that is set, else in .dagster/
    in the project folder, or in the current folder outside of a project.
    """
    from pg_bronze.cli import batch
    from pg_bronze.cli.batches import Batches

    with errors_as_sentences():
        if not batch.run_batch(tables or [], Batches()):
            raise typer.Exit(1)


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number of seconds, such as 10 or 10s") from error
    if not 0 <= seconds <= 86400:
        raise typer.BadParameter(f"{text!r} is not between 0 and 86400 seconds")
    return seconds


@app.command()
def run(
    every: Annotated[str, typer.Option(help="Time between the starts of two batches, such as 10s.")] = "10s",
) -> None:
    """Copy new rows repeatedly, until Ctrl-C. A failing table is retried after growing pauses.

    Dagster's state is stored in DAGSTER_HOME if that is set, else in .dagster/
    in the project folder, or in the current folder outside of a project.
    """
    from pg_bronze.cli import batch
    from pg_bronze.cli.batches import Batches

    interval_s, batches = _seconds(every), Batches(unattended=True)
    terminal.lasting = True
    try:
        with interrupts() as interrupted:
            while True:
                started = time.monotonic()
                with contextlib.suppress(typer.Exit), errors_as_sentences():
                    batch.run_batch([], batches)
                if not terminal.is_read:
                    terminal.complain("the program that reads standard output has ended, so this command ends too.")
                    raise typer.Exit(1)
                if interrupted(max(0.0, interval_s - (time.monotonic() - started))):
                    return
    except KeyboardInterrupt:
        return
    finally:
        terminal.lasting = False


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Show the state of each table: lag, rows, late rows, errors. Exits with 1 if a table has an error.

    Requests no copy.

    The lag is the time up to now of which changes may not be in the lake.

    Example: pg-bronze status --json
    """
    from pg_bronze.cli import status as showing

    with errors_as_sentences():
        if not showing.show(as_json):
            raise typer.Exit(1)


@app.command()
def reset(table: Table) -> None:
    """Discard the watermark of a table. The next tick copies the whole table into a new generation."""
    from pg_bronze.cli.state_changes import change
    from pg_bronze.sync import state_changes

    with errors_as_sentences():
        change(table, lambda sync, recorded, writer, _: (state_changes.reset(sync, recorded, writer), None))


@app.command("continue")
def resume(table: Table) -> None:
    """Continue the copy of a table after a move, a failover or a lost object, without comparing rows."""
    from pg_bronze.cli.state_changes import change
    from pg_bronze.sync import state_changes

    with errors_as_sentences():
        change(table, lambda sync, recorded, writer, _: (state_changes.resume(sync, recorded, writer), None))


@app.command()
def reconcile(table: Table) -> None:
    """Compare a table with its objects after a failover or a restore, and continue if no row is missing."""
    from pg_bronze.cli.state_changes import change
    from pg_bronze.sync import reconcile as reconciling

    with errors_as_sentences():
        change(
            table,
            lambda sync, recorded, writer, settings: reconciling.reconcile(sync, recorded, writer, settings.s3),
        )


@app.command()
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
