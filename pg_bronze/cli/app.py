"""The command line: one batch now, one every few seconds, the demo, and the words for a watermark that must change."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pg_bronze import __version__
from pg_bronze.cli.batch import BatchState, run_batch
from pg_bronze.cli.interrupts import interrupts
from pg_bronze.cli.state_changes import change
from pg_bronze.cli.terminal import errors_as_sentences

if TYPE_CHECKING:
    from pg_bronze.sync.table_sync import SliceStream, TableSync


app = typer.Typer(
    help="Copies PostgreSQL tables incrementally and exactly into Parquet on MinIO or S3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pg-bronze {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Take global options."""


@app.command()
def tick(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables, as `movie` or `sales.movie`; all if none.")
    ] = None,
) -> None:
    """Copy what is new, once, in the foreground; exits with 1 if a table failed and names it.

    Dagster's state is stored in DAGSTER_HOME if that is set, else in .dagster/
    in the project folder, or in the current folder outside of a project.
    """
    with errors_as_sentences():
        if not run_batch(tables or [], BatchState()):
            raise typer.Exit(1)


def _seconds(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    try:
        return (
            float(text.removesuffix("s"))
            if text.removesuffix("s").replace(".", "", 1).isdigit()
            else (TypeAdapter(float).validate_python(text))
        )
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is not a number of seconds, as in 10 or 10s") from error


@app.command()
def run(
    every: Annotated[str, typer.Option(help="Pause between the starts of two batches, as in 10s.")] = "10s",
) -> None:
    """Copy what is new again and again, until Ctrl-C; a table that fails is tried again after ever longer pauses.

    Dagster's state is stored in DAGSTER_HOME if that is set, else in .dagster/
    in the project folder, or in the current folder outside of a project.
    """
    pause, told = _seconds(every), BatchState(unattended=True)
    try:
        with interrupts() as interrupted:
            while True:
                started = time.monotonic()
                try:
                    with errors_as_sentences():
                        run_batch([], told)
                except typer.Exit:
                    pass  # said already; the next batch may find it cured
                if interrupted(max(0.0, pause - (time.monotonic() - started))):
                    return
    except KeyboardInterrupt:
        return


@app.command()
def reset(table: Annotated[str, typer.Argument(help="The table, as `movie` or `sales.movie`.")]) -> None:
    """Forget how far a table has been copied; the next tick copies all of it into a new generation."""

    def act(copy: "TableSync", recorded: Any) -> "SliceStream":
        return copy.reset(recorded)

    change(table, act)


@app.command("continue")
def resume(table: Annotated[str, typer.Argument(help="The table, as `movie` or `sales.movie`.")]) -> None:
    """Go on with a table after a move, a failover or a lost object, taking the database as it is now."""

    def act(copy: "TableSync", recorded: Any) -> "SliceStream":
        return copy.resume(recorded)

    change(table, act)


@app.command()
def reconcile(table: Annotated[str, typer.Argument(help="The table, as `movie` or `sales.movie`.")]) -> None:
    """Compare a table with its lake after a failover or a restore; go on if nothing is missing, else say what is."""
    from pg_bronze.settings.load import load_settings

    def act(copy: "TableSync", recorded: Any) -> "SliceStream":
        from pg_bronze.sync import reconcile

        stream = reconcile.reconcile(copy, recorded, load_settings().s3)
        print(f"{copy.label}: {stream.reason}")
        return stream

    change(table, act)


@app.command()
def demo(
    state_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path(".pg_bronze"),
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    pg_port: Annotated[int | None, typer.Option(help="Port of PostgreSQL; a free one if not given.")] = None,
    s3_port: Annotated[int | None, typer.Option(help="Port of the S3 server; a free one if not given.")] = None,
    writer: Annotated[bool, typer.Option(help="Change rows of the sample database all the time.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Start even if only a database or only a bucket is set.")] = False,
) -> None:
    """Start PostgreSQL, an S3 server, a living sample database and `dagster dev`; or use yours, if PG_DB or
    MINIO_BUCKET is set."""
    from pg_bronze.demo.launcher import run_demo

    with errors_as_sentences():
        raise typer.Exit(run_demo(state_dir, port=port, pg_port=pg_port, s3_port=s3_port, writer=writer, yes=yes))


if __name__ == "__main__":
    app()
