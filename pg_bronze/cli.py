"""The command line: one batch now, one every few seconds, the demo, and the words for a watermark that must change."""

import logging
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pg_bronze import __version__, retries
from pg_bronze.errors import PgBronzeError, SettingsError
from pg_bronze.settings import dagster_home

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.copy import SliceStream, TableCopy
    from pg_bronze.retries import Trouble

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


def project_root() -> Path:
    """The folder that holds workspace.yaml: above the current one, or where this package lies."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "workspace.yaml").is_file() and (folder / "dagster.yaml").is_file():
            return folder
    return here


@contextmanager
def _instance() -> "Iterator[dg.DagsterInstance]":
    """The instance that `dagster dev` in the project root uses: DAGSTER_HOME, or the project's dagster.yaml."""
    import dagster as dg

    # Relative storage folders and .env mean the project's, whatever folder the command was called from.
    root, here = project_root(), Path.cwd()
    if here != root and (here / ".env").exists():
        # Copying the database of another .env than the one in sight would be a silent mistake.
        raise SettingsError(
            f"there is a .env in {here}, and settings are read from {root / '.env'} and the environment. Call "
            "pg-bronze from another folder, or export what that file says."
        )
    os.chdir(root)
    home = dagster_home()
    try:
        opened = dg.DagsterInstance.get() if home else dg.DagsterInstance.from_config(str(project_root()))
    except Exception as error:
        raise SettingsError(_no_instance(error, home or str(project_root()))) from error
    with opened as instance:
        yield instance


def _no_instance(error: Exception, home: str) -> str:
    """Why Dagster's own storage cannot be opened; its drivers' texts may hold a URL and are not repeated."""
    if missing := re.search(r'environment variable "(\w+)" which is not set', str(error)):
        return f"{missing[1]} is not set, and {home}/dagster.yaml takes it from the environment. Set it."
    return (
        f"Dagster's own storage cannot be opened ({type(error).__name__}). Check {home}/dagster.yaml, and if it names "
        "a database, that this is up and reachable."
    )


@contextmanager
def _errors() -> Iterator[None]:
    """One sentence instead of a traceback for everything an operator can act on."""
    try:
        yield
    except PgBronzeError as error:
        print(f"pg-bronze: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@dataclass
class _Told:
    """What `pg-bronze run` keeps from batch to batch: what it has said, and which tables it leaves alone for a while.

    ``troubles`` holds each failing table's trouble, and settings and catalog as they were when it failed.
    """

    unattended: bool = False
    said: set[str] = field(default_factory=set)
    troubles: "dict[str, tuple[Trouble, object]]" = field(default_factory=dict)

    def once(self, sentence: str) -> None:
        """Print a sentence unless it was the last time, too."""
        if sentence not in self.said:
            self.said.add(sentence)
            print(sentence, flush=True)

    def waiting(self, state: object, now: float) -> dict[str, float]:
        """The tables that are not tried yet, and when they will be; none of them once ``state`` has changed."""
        found = {
            label: retries.next_try(trouble, trouble.state)
            for label, (trouble, then) in self.troubles.items()
            if then == state
        }
        return {label: moment for label, moment in found.items() if moment > now}


def _batch(tables: list[str], instance: "dg.DagsterInstance", told: _Told) -> dict[str, str]:
    """Run one batch through the same assets as the UI; gives the sentence of each failed table by its label."""
    from datetime import UTC, datetime

    import dagster as dg

    from pg_bronze import catalog_state, definitions, metadata, partitions, stuck
    from pg_bronze.settings import load_settings

    settings = load_settings()
    _, state = catalog_state.load()
    if state.error and state.catalog is None:
        raise SettingsError(state.error)
    found = definitions.build_definitions(settings, state, _console())
    known = {table.label: table for table in state.catalog.tables} if state.catalog else {}
    for label in tables:
        if label not in known:
            raise SettingsError(
                f"there is no table {label!r} in the catalog (tables: {', '.join(sorted(known)) or 'none'})."
            )
    skipped = {
        label: why
        for label, table in known.items()
        if settings.wants(label) and (why := definitions.skipped(table, settings))
    }
    executable = found.resolve_asset_graph().executable_asset_keys
    keys = {partitions.bronze_key(table): label for label, table in known.items() if not tables or label in tables}
    for key, label in keys.items():
        if tables and key not in executable:
            why = skipped.get(label, "PG_BRONZE_INCLUDE, PG_BRONZE_EXCLUDE or PG_BRONZE_UNTRACKED leaves it out")
            raise SettingsError(f"{label} is not copied: {why}.")
    for label, why in skipped.items():
        told.once(f"skipped {label}: {why}")
    # With the secrets: whoever corrects a password does not wait for the pause to end.
    stamp = (settings, state.catalog.fingerprint if state.catalog else None)
    now = datetime.now(UTC).timestamp()
    waiting = told.waiting(stamp, now)
    if waiting:
        shown = {label: (told.troubles[label][0], then) for label, then in waiting.items()}
        for sentence in retries.said(shown, now):
            told.once(f"pg-bronze: {sentence}")
    selection = [key for key, label in keys.items() if key in executable and label not in waiting]
    if not selection:
        if not waiting:
            print("no table to copy", flush=True)
        return {}
    result = found.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=selection,
        partition_key=datetime.now(UTC).date().isoformat(),
        run_config={"loggers": {"console": {}}},
        raise_on_error=False,
        tags={metadata.BATCH_TAG: "run" if told.unattended else "command"},
    )
    by_step = {key.to_python_identifier(): label for key, label in keys.items()}
    failed: dict[str, str] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
                raise KeyboardInterrupt  # which Dagster took for a failure of the step
            label = by_step.get(event.step_key, event.step_key)
            # The table's name is said first anyway, and what several have in common is said once.
            failed[label] = _sentence(event).removeprefix(f"{label}: ")
    if not result.success and not failed:
        failed["the batch"] = "it could not be started; the lines above say why"
    for key in selection:
        told.troubles.pop(keys[key], None)
        trouble = stuck.last_trouble(instance, key) if told.unattended and keys[key] in failed else None
        if trouble is not None:
            told.troubles[keys[key]] = (trouble, stamp)
    return failed


def _console() -> "dg.LoggerDefinition":
    """Prints what our own code says, without Dagster's prefix; failures are said once, at the end."""
    import dagster as dg

    class Plain(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", {})
            if record.levelno in {logging.INFO, logging.WARNING} and meta.get("dagster_event") is None:
                # At once: into a pipe or a journal, the lines of a batch would come with those of a later one.
                print(meta.get("orig_message", record.getMessage()), flush=True)

    @dg.logger
    def plain(_context: dg.InitLoggerContext) -> logging.Logger:
        # Not getLogger: each batch gets its own, or a second one in this process would print every line twice.
        logger = logging.Logger("pg_bronze", logging.INFO)  # noqa: LOG001  (a logger of its own)
        logger.addHandler(Plain())
        return logger

    return plain


def _sentence(event: Any) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error else "failed"


def _run_batch(tables: list[str], told: _Told) -> bool:
    with _instance() as instance:
        failed = _batch(tables, instance, told)
    by_cause: dict[str, list[str]] = {}
    for label, sentence in sorted(failed.items()):
        by_cause.setdefault(sentence, []).append(label)
    for sentence, labels in by_cause.items():
        print(f"pg-bronze: {retries.listed(labels)} failed: {sentence}", file=sys.stderr)
    return not failed


@app.command()
def tick(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables, as `movie` or `sales.movie`; all if none.")
    ] = None,
) -> None:
    """Copy what is new, once, in the foreground; exits with 1 if a table failed and names it."""
    with _errors():
        if not _run_batch(tables or [], _Told()):
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
    """Copy what is new again and again, until Ctrl-C; a table that fails is tried again after ever longer pauses."""
    pause, told = _seconds(every), _Told(unattended=True)
    try:
        with _interrupts() as interrupted:
            while True:
                started = time.monotonic()
                try:
                    with _errors():
                        _run_batch([], told)
                except typer.Exit:
                    pass  # said already; the next batch may find it cured
                if interrupted(max(0.0, pause - (time.monotonic() - started))):
                    return
    except KeyboardInterrupt:
        return


@contextmanager
def _interrupts() -> Iterator[Callable[[float], bool]]:
    """A function that waits up to so many seconds and says whether SIGINT has come since the context began.

    KeyboardInterrupt is raised wherever the main thread is. In a finalizer or in a callback of the garbage collector,
    Python would print a traceback and forget it; the interpreter's wakeup descriptor has its byte all the same, also
    while a handler of Dagster's is in place.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    show = sys.unraisablehook

    def show_others(raised: "sys.UnraisableHookArgs") -> None:
        if not issubclass(raised.exc_type, KeyboardInterrupt):
            show(raised)

    def unlike_interrupts(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, KeyboardInterrupt)

    sys.unraisablehook = show_others
    # SQLAlchemy logs it, with a traceback, when it closes a connection just then; Dagster gives the root no handler.
    last = logging.lastResort
    if last:
        last.addFilter(unlike_interrupts)

    def interrupted(wait_s: float) -> bool:
        ends = time.monotonic() + wait_s
        while select.select([reader], [], [], max(0.0, ends - time.monotonic()))[0]:
            if signal.SIGINT in os.read(reader, 4096):
                return True
        return False

    try:
        yield interrupted
    finally:
        if last:
            last.removeFilter(unlike_interrupts)
        sys.unraisablehook = show
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _change(label: str, act: "Any") -> None:
    """Commit a change of one table's watermark and record it where the next run looks."""
    import gc

    import dagster as dg

    from pg_bronze import catalog_state, metadata, partitions
    from pg_bronze.resources import Bucket, copy_options, open_control, open_source
    from pg_bronze.settings import load_settings

    gc.freeze()  # as pg_bronze.definitions does, and for the same reason
    with _errors(), _instance() as instance:
        settings = load_settings()
        found = {table.label: table for table in catalog_state.live(settings).tables}
        if label not in found:
            raise SettingsError(f"there is no table {label!r} (tables: {', '.join(sorted(found)) or 'none'}).")
        table = found[label]
        key = partitions.bronze_key(table)
        recorded = metadata.watermark_of(instance.get_latest_materialization_event(key))
        store = Bucket.from_settings(settings).open()
        store.prepare(settings.unfenced)
        from pg_bronze.copy import TableCopy

        with (
            open_source(settings, "pg_bronze command") as source,
            TableCopy(source, store, table, copy_options(settings, label), open_control(settings, source)) as copy,
        ):
            stream: SliceStream = act(copy, recorded)
            for piece in stream.without_new(keep_first=True):
                stream.commit(piece)
            day = copy.layout.day(stream.watermark.key)
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    key, partition=day.isoformat() if day else None, metadata=metadata.of_watermark(stream.watermark)
                )
            )
        print(f"{label}: generation {stream.watermark.generation}, object number {stream.watermark.seq}")


@app.command()
def reset(table: Annotated[str, typer.Argument(help="The table, as `movie` or `sales.movie`.")]) -> None:
    """Forget how far a table has been copied; the next tick copies all of it into a new generation."""

    def act(copy: "TableCopy", recorded: Any) -> "SliceStream":
        return copy.reset(recorded)

    _change(table, act)


@app.command("continue")
def go_on(table: Annotated[str, typer.Argument(help="The table, as `movie` or `sales.movie`.")]) -> None:
    """Go on with a table after a move, a failover or a lost object, taking the database as it is now."""

    def act(copy: "TableCopy", recorded: Any) -> "SliceStream":
        return copy.go_on(recorded)

    _change(table, act)


@app.command()
def reconcile(table: Annotated[str, typer.Argument(help="The table, as `movie` or `sales.movie`.")]) -> None:
    """Compare a table with its lake after a failover or a restore; go on if nothing is missing, else say what is."""
    from pg_bronze.settings import load_settings

    def act(copy: "TableCopy", recorded: Any) -> "SliceStream":
        from pg_bronze import reconcile

        stream = reconcile.reconcile(copy, recorded, load_settings().s3)
        print(f"{copy.label}: {stream.reason}")
        return stream

    _change(table, act)


@app.command()
def demo(
    state_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path(".pg_bronze"),
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    pg_port: Annotated[int | None, typer.Option(help="Port of PostgreSQL; a free one if not given.")] = None,
    s3_port: Annotated[int | None, typer.Option(help="Port of the S3 server; a free one if not given.")] = None,
    writer: Annotated[bool, typer.Option(help="Keep the sample database alive.")] = True,
) -> None:
    """Start PostgreSQL, an S3 server, a living sample database and `dagster dev`; or use yours, if PG_DB or
    MINIO_BUCKET is set."""
    from pg_bronze.demo.launcher import run_demo

    with _errors():
        raise typer.Exit(run_demo(state_dir, port=port, pg_port=pg_port, s3_port=s3_port, writer=writer))


if __name__ == "__main__":
    app()
