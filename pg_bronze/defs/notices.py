"""The checks `drift` and `skipped`, which the tick sensor records when their result changes."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from pg_bronze.core.table import WITHOUT_TRANSACTIONS, SourceTable, shell_argument
from pg_bronze.defs import skipped_tables
from pg_bronze.defs.catalog_state import CHANGED_AT, CatalogState, Change
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.scheduling import notices
from pg_bronze.scheduling.notices import Notice, Result
from pg_bronze.settings.model import Settings

_DESCRIPTIONS = {
    "drift": "Warns for PG_BRONZE_DRIFT_WARN_H after the columns of the table changed. Recorded by bronze_tick.",
    "skipped": "Warns while the table is not copied because it cannot be read. Recorded by bronze_tick.",
}


def find(settings: Settings, state: CatalogState) -> list[Notice]:
    """Return the checks that some assets have, from the catalog that the definitions are built from."""
    former, names = {item.table.label for item in state.former}, SourceNames(settings)
    found = []
    for table in state.catalog.tables if state.catalog else ():
        if not settings.wants(table.label) or table.label in former:
            continue  # a table that was copied before fails its check up_to_date
        change = state.changes.get(table.label)
        if skipped_tables.reason(table, settings) is None:
            found += [_drift(table, names, change, settings.drift_warn_h)] if change and settings.drift_warn_h else []
        elif table.skipped and WITHOUT_TRANSACTIONS not in table.skipped:
            found.append(_skipped(table, names, settings.pg_db))
    return found


def _drift(table: SourceTable, names: SourceNames, change: Change, warn_h: float) -> Notice:
    noticed = datetime.strptime(change.at, CHANGED_AT).replace(tzinfo=UTC)
    sentence = (
        f"Noticed at {change.at}: {'; '.join(change.sentences)}. It is copied. Rows copied earlier keep what was "
        "stored; of an added column they have its default, or NULL. Check what reads the table. If all rows should be "
        f"copied again, run `pg-bronze reset {shell_argument(table.label)}`."
    )
    key = names.bronze_key(table).to_user_string()
    return Notice(key, "drift", sentence, noticed.timestamp() + warn_h * 3600)


def _skipped(table: SourceTable, names: SourceNames, database: str) -> Notice:
    sentence = (
        f"{table.label} is not copied: {table.skipped}. It is copied after the fix. If that is not wanted, add it to "
        "PG_BRONZE_EXCLUDE."
    )
    return Notice(names.source_key(table, database).to_user_string(), "skipped", sentence)


def build(found: Sequence[Notice], names: SourceNames) -> list[dg.AssetChecksDefinition]:
    """Return the checks as one definition; nothing if there are none."""
    if not found:
        return []
    by_check = {_check_key(item): item for item in found}

    @dg.multi_asset_check(
        name=names.of("bronze_notices"),
        specs=[
            dg.AssetCheckSpec(key.name, asset=key.asset_key, description=_DESCRIPTIONS[key.name]) for key in by_check
        ],
        can_subset=True,
    )
    def bronze_notices(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        now = datetime.now(UTC).timestamp()
        for key in context.selected_asset_check_keys:
            item = by_check[key]
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=item.passed(now),
                severity=dg.AssetCheckSeverity.WARN,
                description=item.sentence,
            )

    return [bronze_notices]


class Notices:
    """The notices of the loaded definitions, and their last results, which a process reads from the storage once."""

    def __init__(self, found: Sequence[Notice]) -> None:
        self._notices = found
        self._recorded: dict[tuple[str, str], Result] | None = None

    def due(self, instance: dg.DagsterInstance, now: float) -> list[dg.AssetCheckEvaluation]:
        """Return the results to record now; they count as recorded."""
        if not self._notices:
            return []
        if self._recorded is None:
            self._recorded = _recorded(instance, self._notices)
        found = notices.due(self._notices, self._recorded, now)
        for item in found:
            self._recorded[(item.asset, item.check)] = Result(item.passed(now), item.sentence, now)
        return [
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey.from_user_string(item.asset),
                check_name=item.check,
                passed=item.passed(now),
                severity=dg.AssetCheckSeverity.WARN,
                description=item.sentence,
            )
            for item in found
        ]


def _check_key(item: Notice) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(dg.AssetKey.from_user_string(item.asset), item.check)


def _recorded(instance: dg.DagsterInstance, found: Sequence[Notice]) -> dict[tuple[str, str], Result]:
    by_key = {_check_key(item): item for item in found}
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(by_key))
    results: dict[tuple[str, str], Result] = {}
    for key, record in records.items():
        evaluation, event = record.evaluation, record.event
        if isinstance(evaluation, dg.AssetCheckEvaluation) and event is not None:
            item = by_key[key]
            result = Result(evaluation.passed, evaluation.description or "", event.timestamp)
            results[(item.asset, item.check)] = result
    return results
