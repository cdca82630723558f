"""Verification: a job that compares the objects of a day with the chain of footers, and writes missing ones again.

It has no pool of a table, so the tables are copied while it runs.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import dagster as dg
from pydantic import Field

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import metadata
from pg_bronze.defs.resources import SOURCE_DATABASE, SourceDatabase
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.errors import PgBronzeError
from pg_bronze.sync.verify_day import verify_day

JOB = "bronze_verify"
# One run of this job at a time, after the runs that copy.
_POOL = "pg_bronze__verify"
_TAGS = {metadata.BATCH_TAG: "verify", "dagster/priority": "-1"}


class Verified(dg.Config):
    """Which tables a run verifies."""

    tables: list[str] = Field(
        default=[], description="Tables as messages name them, such as `movie` or `sales.movie`. Empty: all tables."
    )


def build_job(tables: Sequence[SourceTable], names: SourceNames, days: dg.PartitionsDefinition) -> dg.JobDefinition:
    """Return the job that verifies one day.

    Args:
        tables: All tables that are copied.
        days: The partitions of the bronze assets.
    """

    resource = names.of(SOURCE_DATABASE)

    @dg.op(name=names.of("verify"), pool=names.of(_POOL), required_resource_keys={resource})
    def verify(context: dg.OpExecutionContext, config: Verified) -> None:
        source_database: SourceDatabase = getattr(context.resources, resource)
        day = date.fromisoformat(context.partition_key) if context.has_partition_key else datetime.now(UTC).date()
        failed = [
            sentence
            for table in _selected(tables, config.tables)
            if (sentence := _verify(context, source_database, table, day))
        ]
        if failed:
            raise dg.Failure("\n".join(failed), allow_retries=False)

    @dg.job(
        name=names.of(JOB),
        partitions_def=days,
        executor_def=dg.in_process_executor,
        tags={**_TAGS, **names.tags},
        description="Verifies the objects of a day, today without a partition; repairs missing ones.",
    )
    def bronze_verify() -> None:
        verify()

    return bronze_verify


def _selected(tables: Sequence[SourceTable], labels: Sequence[str]) -> list[SourceTable]:
    known = {table.label: table for table in tables}
    for label in labels:
        if label not in known:
            raise dg.Failure(
                f"There is no table {label!r}. The tables are: {', '.join(sorted(known))}. Correct `tables` in the "
                "configuration of the run, and launch it again.",
                allow_retries=False,
            )
    return [known[label] for label in labels] if labels else list(tables)


def _verify(
    context: dg.OpExecutionContext, source_database: SourceDatabase, table: SourceTable, day: date
) -> str | None:
    """Verify a table and log the report; return the sentence of an error, which does not stop the other tables."""
    key = SourceNames(source_database.settings).bronze_key(table)
    try:
        recorded = metadata.watermark_of(context.instance.get_latest_materialization_event(key))
        with source_database.unlocked_sync(table) as sync:
            report = verify_day(sync, recorded, day)
    except PgBronzeError as error:
        sentence = f"{table.label}: {str(error).removeprefix(f'{table.label}: ')}"
        context.log.error(sentence)
        return sentence
    (context.log.warning if report.lost else context.log.info)(report.sentence)
    context.log_event(dg.AssetObservation(key, partition=day.isoformat(), metadata=report.metadata))
    return None
