"""The process of `pg-bronze monitor`: evaluates at intervals, serves the metrics, and ends on Ctrl-C."""

import time
from pathlib import Path

from pg_bronze.cli.instance import enter_project
from pg_bronze.cli.interrupts import interrupts
from pg_bronze.cli.monitor.alert_hook import AlertHook
from pg_bronze.cli.monitor.evaluation import Evaluation
from pg_bronze.cli.monitor.exporter import Exporter
from pg_bronze.cli.monitor.metrics import Metrics, Snapshot
from pg_bronze.cli.monitor.monitor import Monitor
from pg_bronze.cli.monitor.sent_alerts import SentAlerts
from pg_bronze.cli.monitor.storage_meter import StorageMeter
from pg_bronze.cli.terminal import terminal
from pg_bronze.defs.connections import open_bucket
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings


def run(every_s: float, host: str, port: int, textfile: Path | None) -> None:
    """Evaluate all tables at intervals, until Ctrl-C.

    Args:
        every_s: Seconds between the starts of two evaluations.
        host: The address at which scrapes are answered.
        port: The port; 0 for no server.
        textfile: A file that gets the metrics after each evaluation; None for none.

    Raises:
        SettingsError: A setting is invalid, or the address cannot be used.
    """
    file = textfile.absolute() if textfile else None  # the current folder changes
    enter_project()
    settings = load_settings()
    store = open_bucket(settings)
    evaluation = Evaluation(settings, store)
    hook = AlertHook(settings.alert_url.get_secret_value()) if settings.alert_url else None
    name = evaluation.source.name
    monitor = Monitor(evaluation, _first(settings, every_s), name, hook, time.time, SentAlerts(name))
    meter = StorageMeter(store, time.time)
    exporter = Exporter(Metrics(lambda: monitor.snapshot, time.time))
    if port:
        exporter.serve(host, port)
    terminal.print(_begins(name, every_s, f"http://{host}:{port}/metrics" if port else "", file))
    problem = None
    with interrupts() as interrupted:
        while True:
            started = time.monotonic()
            monitor.turn()
            meter.measure_if_due(monitor.snapshot.folders.values())
            monitor.measured(meter.size, meter.measured_at)
            problem = _write(exporter, file, problem)
            if interrupted(max(0.0, every_s - (time.monotonic() - started))):
                return


def _first(settings: Settings, every_s: float) -> Snapshot:
    return Snapshot(every_s, interval_s=settings.interval_s)


def _begins(source: str, every_s: float, address: str, file: Path | None) -> str:
    places = " and in ".join(str(place) for place in (address, file) if place) or "alerts alone"
    return f"The tables of {source} are checked every {every_s:g} s. Metrics: {places}."


def _write(exporter: Exporter, file: Path | None, before: str | None) -> str | None:
    """Write the file, and print why that is not possible unless it was printed before; return the reason."""
    problem = exporter.write(file) if file else None
    if problem and problem != before:
        terminal.complain(problem)
    return problem
