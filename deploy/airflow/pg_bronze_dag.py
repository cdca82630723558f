"""PostgreSQL tables to Parquet every minute: one run of this DAG is one tick of pg-bronze. For Airflow 3.

pg-bronze is installed in an environment of its own, and this file calls its command. README.md explains the choices.
"""

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, TriggerRule, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

COMMAND = os.environ.get("BRONZE_COMMAND", "/opt/pg_bronze/.venv/bin/pg-bronze")
# The project folder, which has .env and dagster.yaml. DAGSTER_HOME, if it is set, has another dagster.yaml.
FOLDER = os.environ.get("BRONZE_FOLDER", "/opt/pg_bronze")
TABLES_PER_TASK = int(os.environ.get("BRONZE_TABLES_PER_TASK", "25"))
RETRY_DELAY_S = float(os.environ.get("BRONZE_RETRY_DELAY_S", "10"))
# The tables that got rows: an event of bronze/movie for the table movie.
BRONZE = AssetAlias("bronze")


def pg_bronze(*arguments: str) -> dict[str, Any]:
    """Run `pg-bronze … --json` and return its document. What it prints on standard error is the log of the task."""
    command = [COMMAND, *arguments, "--json"]
    started: list[subprocess.Popen[str]] = []
    is_ended = False

    def end(*_: object) -> None:
        """Airflow ends a task with SIGTERM; Ctrl-C lets the command end its run, and committed slices stay."""
        nonlocal is_ended
        is_ended = True
        while started:
            started.pop().send_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    with subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        started.append(process)
        if is_ended:  # while the command was being started
            end()
        printed, _ = process.communicate()
    try:
        document: dict[str, Any] = json.loads(printed)
    except ValueError:
        raise AirflowException(f"pg-bronze {arguments[0]} ended with {process.returncode} and no document") from None
    if error := document.get("error"):
        raise (AirflowException if error["retry"] == "automatic" else AirflowFailException)(error["sentence"])
    return document


@task
def plan() -> list[list[str]]:
    """Return the tables that are due, in groups. A large first load and a slow table are alone."""
    due = [entry for entry in pg_bronze("plan")["tables"] if entry["due"]]
    shared = [entry["table"] for entry in due if entry["run"] == "shared"]
    groups = [shared[first : first + TABLES_PER_TASK] for first in range(0, len(shared), TABLES_PER_TASK)]
    return groups + [[entry["table"]] for entry in due if entry["run"] != "shared"]


@task(outlets=[BRONZE], retries=2, execution_timeout=timedelta(minutes=10), max_active_tis_per_dag=4)
def tick(tables: list[str], *, outlet_events: Any) -> dict[str, int]:
    """Copy the new rows of some tables, with one asset event for each table that got any."""
    context = get_current_context()
    retried = context["ti"].try_number > 1
    # A retry does not ask whether its tables are due: for 90 s they are not, because a killed run counts as running.
    copied = pg_bronze("tick", *([] if retried else ["--due"]), *tables)["tables"]
    found = {entry["table"]: {"rows": entry["rows"], "object": entry["object"]} for entry in copied if entry["rows"]}
    if retried:  # the attempt before it may have copied some of them, and was killed before it could tell
        begun = context["dag_run"].start_date
        for entry in pg_bronze("status")["tables"]:
            if entry["table"] in tables and entry["copied_at"] and datetime.fromisoformat(entry["copied_at"]) >= begun:
                found.setdefault(entry["table"], {"rows": None, "object": entry["object"]})
    for table, extra in found.items():
        outlet_events[BRONZE].add(Asset(f"bronze/{table}"), extra=extra)
    return {table: extra["rows"] or 0 for table, extra in found.items()}


@task(trigger_rule=TriggerRule.ALL_DONE)
def status() -> None:
    """Fail if a table fails, is stuck or is not copied any more. pg-bronze itself retries it, after growing pauses."""
    document = pg_bronze("status")
    print(document["summary"])
    wrong = [entry for entry in document["tables"] if entry["severity"] == "error"]
    if wrong:
        raise AirflowFailException("; ".join(f"{entry['table']}: {entry['sentence']}" for entry in wrong))


@dag(
    schedule=timedelta(minutes=1),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retry_delay": timedelta(seconds=RETRY_DELAY_S)},
    tags=["pg_bronze"],
)
def bronze() -> None:
    """Copy new rows of all tables that are due, then show their states."""
    tick.expand(tables=plan()) >> status()


bronze()
