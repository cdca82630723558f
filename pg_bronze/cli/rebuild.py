"""`pg-bronze rebuild`: the state in Dagster's storage, from the objects in the bucket alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pg_bronze.cli.opened import Opened, copied, opened
from pg_bronze.cli.progress_bars import counted
from pg_bronze.cli.terminal import of_a_command, terminal
from pg_bronze.core.table import shell_argument
from pg_bronze.errors import LakeDamaged, PgBronzeError, SettingsError

if TYPE_CHECKING:
    from pg_bronze.core.table import SourceTable
    from pg_bronze.core.watermark import Watermark
    from pg_bronze.sync.bucket_state import BucketState


@dataclass(frozen=True)
class Rebuilt:
    """What was found of one table, and what was recorded.

    Attributes:
        recorded_days: Days that were recorded as copied now; None if nothing was recorded.
        error: Why nothing was recorded although something has to be done; None if nothing is wrong.
    """

    label: str
    state: "BucketState | None"
    recorded_days: int | None = None
    error: str | None = None

    @property
    def sentence(self) -> str:
        """The result as a line of a terminal."""
        watermark = self.state.watermark if self.state else None
        if self.state is None or watermark is None:
            return f"{self.label}: no object of pg_bronze in the bucket"
        count = self.state.object_count
        size = f"{count:,} object{'' if count == 1 else 's'}, {self.state.size_bytes / 1e6:,.1f} MB"
        found = f"{self.label}: generation {watermark.generation}, object number {watermark.seq}, {size}"
        return f"{found}: " + (
            "Dagster's storage has the same"
            if self.recorded_days is None
            else f"recorded; {self.recorded_days:,} days were missing"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        watermark = self.state.watermark if self.state else None
        return {
            "table": self.label,
            "generation": watermark.generation if watermark else None,
            "object_number": watermark.seq if watermark else None,
            "objects": self.state.object_count if self.state else 0,
            "bytes": self.state.size_bytes if self.state else 0,
            "recorded": self.recorded_days is not None,
            "recorded_days": self.recorded_days or 0,
            "error": of_a_command(self.error) if self.error else None,
        }


def run_rebuild(labels: Sequence[str], as_json: bool) -> int:
    """Rebuild the state of the named tables or of all, print what was found, and return the exit code."""
    with opened() as of_project:
        done = []
        for table in counted(chosen(of_project, labels), "rebuilding"):
            done.append(_rebuild(of_project, table))
            if error := done[-1].error:
                terminal.complain(error)
            else:
                terminal.print(done[-1].sentence)
    if as_json:
        terminal.document({"tables": [item.to_json() for item in done]})
    return int(any(item.error for item in done))


def chosen(of_project: Opened, labels: Sequence[str]) -> "list[SourceTable]":
    """Return the named tables, or all that are copied; without the database those that were last stored.

    Raises:
        SettingsError: There is no such table, or no catalog at all.
    """
    from pg_bronze.defs import catalog_state

    state = catalog_state.read(of_project.settings, datetime.now(UTC), of_project.store)
    if state.catalog is None:
        raise SettingsError(state.error or "The catalog cannot be read.")
    if not labels:
        return copied(list(state.catalog.tables), of_project.settings)[0]
    known = {table.label: table for table in state.catalog.tables}
    for label in labels:
        if label not in known:
            raise SettingsError(f"There is no table {label!r}. The tables are: {', '.join(sorted(known)) or 'none'}.")
    return [known[label] for label in labels]


def _rebuild(of_project: Opened, table: "SourceTable") -> Rebuilt:
    from pg_bronze.lake.keys import Layout
    from pg_bronze.sync import bucket_state

    layout = Layout(of_project.store.prefix, table.schema, table.name)
    try:
        state = bucket_state.read(of_project.store, layout, datetime.now(UTC))
    except PgBronzeError as error:
        return Rebuilt(table.label, None, error=f"{table.label}: {str(error).removeprefix(f'{table.label}: ')}")
    recorded, is_readable = _recorded(of_project, table)
    if recorded is not None and state.is_behind(recorded):
        return Rebuilt(table.label, state, error=_behind(table.label, state, recorded))
    return Rebuilt(table.label, state, _record(of_project, table, state, recorded if is_readable else None))


def _recorded(of_project: Opened, table: "SourceTable") -> "tuple[Watermark | None, bool]":
    """Return the watermark in Dagster's storage, and whether it can be read."""
    from pg_bronze.defs import metadata
    from pg_bronze.defs.source_names import SourceNames

    try:
        event = of_project.instance.get_latest_materialization_event(SourceNames(of_project.settings).bronze_key(table))
        return metadata.watermark_of(event), True
    except LakeDamaged:
        return None, False


def _record(of_project: Opened, table: "SourceTable", state: "BucketState", recorded: "Watermark | None") -> int | None:
    """Record a materialization of each day that Dagster's storage lacks; return their number, None if it is current.

    The newest materialization is the one whose watermark the next tick continues.
    """
    import dagster as dg

    from pg_bronze.defs import metadata
    from pg_bronze.defs.source_names import SourceNames

    key = SourceNames(of_project.settings).bronze_key(table)
    days = [day.isoformat() for day in state.days]
    known = of_project.instance.get_materialized_partitions(key)
    missing = [day for day in days if day not in known]
    if state.watermark is None or (recorded == state.watermark and not missing):
        return None
    entries = metadata.of_watermark(state.watermark)
    for day in sorted({*missing, days[-1]}):
        event = dg.AssetMaterialization(key, partition=day, metadata=entries)
        of_project.instance.report_runless_asset_event(event)
    return len(missing)


def _behind(label: str, state: "BucketState", recorded: "Watermark") -> str:
    found = f"number {state.watermark.seq}" if state.watermark else "none"
    name = shell_argument(label)
    return (
        f"{label}: Dagster's storage has object number {recorded.seq} of generation {recorded.generation}, and the "
        f"newest in the bucket is {found}: objects are missing, or this is another bucket. Nothing was recorded. "
        f"Restore them; or `pg-bronze continue {name}` continues without them, and `pg-bronze reset {name}` copies the "
        "table again."
    )
