"""The forms in which a secret could appear in a text, and all texts that a project stores."""

import io
from urllib.parse import quote, quote_plus

import dagster as dg
import polars as pl
from dagster._core.remote_representation.external_data import RepositorySnap
from polars import selectors

from pg_bronze_tests.harness.project import Project


def spellings(secret: str) -> set[str]:
    escaped = secret.encode("unicode_escape").decode()
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret), secret.replace("'", "\\'")}
    return {secret, escaped, repr(secret)[1:-1], *quoted}


def traces(project: Project) -> str:
    """Return all stored text: events, runs, definitions as sent to the UI, the sensor's cursor, every object."""
    instance = project.instance
    parts = [project.cursor or ""]
    for record in instance.get_run_records():
        parts.append(dg._serdes.serialize_value(record.dagster_run))
        events = instance.get_records_for_run(record.dagster_run.run_id).records
        parts += [dg._serdes.serialize_value(item.event_log_entry) for item in events]
    repository = project.definitions.get_repository_def()
    parts.append(dg._serdes.serialize_value(RepositorySnap.from_def(repository)))
    store = project.bucket.store()
    for body in (store.get(item.key) or b"" for item in store.list("")):
        parts.append(body.decode("latin-1"))
        if body.startswith(b"PAR1"):  # its values are compressed
            frame = pl.read_parquet(io.BytesIO(body))
            parts += [str(frame.rows()), frame.select(selectors.exclude(selectors.binary())).write_csv()]
    return "\n".join(parts)
