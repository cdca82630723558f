"""`pg-bronze doctor`: asks the database, the bucket and Dagster's storage, and prints what to mend. Changes nothing.

The probe of create-only writes creates one object in the bucket, and deletes it.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pg_bronze.cli import findings
from pg_bronze.cli.findings import Finding
from pg_bronze.cli.opened import Opened, copied, opened
from pg_bronze.cli.tables import print_table
from pg_bronze.cli.terminal import of_a_command, terminal
from pg_bronze.core import band_notes, band_rules, risky_values, table_costs
from pg_bronze.core.band_rules import UPDATED_NAMES
from pg_bronze.core.load_progress import duration
from pg_bronze.core.table import SourceTable, shell_argument
from pg_bronze.core.table_costs import TableCosts
from pg_bronze.core.value_policies import Policies
from pg_bronze.errors import PgBronzeError, StoreNotFit

if TYPE_CHECKING:
    from pg_bronze.defs.catalog_state import CatalogState
    from pg_bronze.postgres.connection import Source
    from pg_bronze.scheduling.due import Facts

_TIMES = {"date", "timestamp", "timestamptz"}


@dataclass(frozen=True)
class TableReport:
    """What one table is expected to cost.

    Attributes:
        order: What divides its rows into bands and why; None if it is read completely.
        scheduled: It is too large to be read completely in every tick.
        missing_index: The statement that creates a better index; None if there is one.
        risks: Columns with values that would stop it, as ``column (setting)``.
    """

    table: SourceTable
    order: str | None
    scheduled: bool
    costs: TableCosts
    missing_index: str | None
    risks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "table": self.table.label,
            "order": self.order,
            "large": self.scheduled,
            "rows": round(self.table.row_estimate),
            "bytes": self.costs.first_load.size_bytes,
            "fresh_read": self.costs.fresh.to_json(),
            "sweep": self.costs.sweep.to_json() | {"every_s": round(self.costs.sweep_every_s)},
            "first_load": self.costs.first_load.to_json(),
            "missing_index": self.missing_index,
            "values_at_risk": list(self.risks),
        }


def run_doctor(as_json: bool) -> int:
    """Print all findings and the expected cost of each table; return the exit code."""
    tables: list[TableReport] = []
    with opened() as of_project:
        found = [*_of_bucket(of_project), *_of_database(of_project, tables)]
    found.sort(key=lambda finding: findings.SEVERITIES.index(finding.severity))
    code = findings.exit_code(found)
    if as_json:
        terminal.document(
            {"ok": code == 0, "findings": [vars(item) for item in found], "tables": [item.to_json() for item in tables]}
        )
        return code
    for finding in found:
        for line in finding.lines:
            terminal.print(line)
    if tables:
        _print_costs(tables)
    terminal.print(findings.summary(found))
    return code


def _of_bucket(of_project: Opened) -> Iterator[Finding]:
    store = of_project.store
    name = f"s3://{store.place} at {store.endpoint}"
    try:
        before = datetime.now(UTC)
        clock = store.check()
        if clock is not None:
            # The date of a response has no fractions of a second.
            ahead_s = (before - clock).total_seconds()
            yield findings.of_clock("bucket", 0.0 if 0 <= ahead_s < 1 else ahead_s)
        next(store.list(f"{store.prefix}/" if store.prefix else "", "~"), None)  # the right to list
        store.verify_create_only()
    except StoreNotFit as error:
        yield findings.of_bucket_error(str(error), name, of_project.settings.unfenced)
    except PgBronzeError as error:
        yield Finding("error", "bucket", of_a_command(str(error)))
    else:
        yield Finding("ok", "bucket", f"{name} answers, and of simultaneous writers one creates an object")


def _of_database(of_project: Opened, tables: list[TableReport]) -> Iterator[Finding]:
    """Yield the findings about the database, and add the report of each table to ``tables``."""
    from pg_bronze.defs import catalog_state
    from pg_bronze.defs.connections import open_source

    settings = of_project.settings
    state = catalog_state.read(settings, datetime.now(UTC), of_project.store)
    if state.catalog is None or state.remembered:
        yield Finding("error", "database", of_a_command(state.error or "its catalog cannot be read"))
        return
    try:
        with open_source(settings, "pg_bronze doctor", "short") as source:
            yield from _of_server(source)
            chosen, skipped = copied(list(state.catalog.tables), settings)
            yield from _of_former(state, skipped)
            yield from _of_tables(of_project, source, chosen, tables)
    except PgBronzeError as error:
        yield Finding("error", "database", of_a_command(str(error)))


def _of_former(state: "CatalogState", skipped: dict[str, str]) -> Iterator[Finding]:
    """Yield the findings about tables that are not copied."""
    forbidden = {table.label for table in state.catalog.tables if table.forbidden} if state.catalog else set()
    former = {item.table.label: item.reason for item in state.former}
    for label, reason in skipped.items():
        yield findings.of_skipped(label, reason, label in forbidden, label in former)
    for label, reason in former.items():
        if label not in skipped:
            yield Finding("warn", label, reason, f"pg-bronze forget {shell_argument(label)}")


def _of_server(source: "Source") -> Iterator[Finding]:
    from pg_bronze.postgres import activity, diagnosis

    before = datetime.now(UTC)
    clock = diagnosis.clock(source)
    after = datetime.now(UTC)
    version = source.server_version
    yield Finding("ok", "database", f"{source.name} answers, PostgreSQL {version // 10_000}.{version % 10_000}")
    yield findings.of_clock("database", (before + (after - before) / 2 - clock).total_seconds())
    probe = source.activity()
    yield findings.of_transaction(activity.oldest_transaction(source), probe.next_xid - probe.horizon)
    encoding = str(source.database().get("encoding"))
    yield from findings.of_place(probe.standby, source.pooled, bool(probe.counted_since), encoding)


def _of_tables(
    of_project: Opened, source: "Source", chosen: list[SourceTable], tables: list[TableReport]
) -> Iterator[Finding]:
    from pg_bronze.defs import table_choices, table_facts
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.postgres import diagnosis

    settings = of_project.settings
    process = Process(settings)
    collected = table_facts.collect(of_project.instance, chosen, source.activity(), process, settings)
    exceptional: set[tuple[str, str, str]] = set()
    with suppress(PgBronzeError):  # pg_stats may not be readable
        exceptional = set(diagnosis.exceptional(source))
    at_risk: list[tuple[SourceTable, risky_values.RiskyColumn]] = []
    orders: dict[str, str | None] = {}
    for of_catalog, facts in collected:
        table = table_choices.as_copied(of_catalog, settings)
        options = settings.table_options(table.label)
        risks = risky_values.of_table(table, Policies(options.infinity, options.late_dates, options.nan))
        at_risk += [(table, risk) for risk in risks]
        report, column = _report(table, facts, settings.cursor_names, options.cursor_column, risks)
        tables.append(report)
        if report.scheduled:
            orders[table.label] = column
            index = findings.of_index(table.label, report.missing_index, report.order)
            yield from [index] if index else []
        columns = {name for schema, of_table, name in exceptional if (schema, of_table) == (table.schema, table.name)}
        yield from findings.of_values(table.label, risks, columns)
    small = [facts.rules or band_rules.BandRules() for _, facts in collected if not facts.scheduled]
    of_small = findings.of_small(len(small), len(collected), max((rules.one_band_s for rules in small), default=0.0))
    yield from [of_small] if of_small else []
    if collected:
        yield findings.of_risks(at_risk)
    yield from _of_triggers(source, chosen, orders)


def _report(
    table: SourceTable,
    facts: "Facts",
    names: tuple[str, ...],
    configured: str | None,
    risks: list[risky_values.RiskyColumn],
) -> tuple[TableReport, str | None]:
    """Return the report of a table, and the column that divides its rows into bands."""
    watermark = facts.watermark
    rules = facts.rules or band_rules.BandRules()
    leaves = [leaf.order for leaf in watermark.leaves.values() if leaf.order] if watermark else []
    order = next(iter(leaves), None) or next(iter(band_rules.orders(table, names, configured)), None)
    costs = table_costs.of_table(table, watermark.sweeps if watermark else None, rules, order is not None)
    large = facts.scheduled
    return TableReport(
        table,
        band_notes.describe_order(table, order) if large and order else None,
        large,
        costs,
        band_notes.missing_index(table, order) if large else None,
        tuple(f"{risk.column.name} ({risky_values.SETTINGS[risk.kind]})" for risk in risks),
    ), table.names_by_attnum.get(order.attnum) if large and order and order.attnum else None


def _of_triggers(source: "Source", chosen: list[SourceTable], orders: dict[str, str | None]) -> Iterator[Finding]:
    from pg_bronze.postgres import diagnosis

    columns = {
        (table.oid, column.name): table.label
        for table in chosen
        for column in table.columns
        if column.name in UPDATED_NAMES and column.base in _TIMES and column.generated is None
    }
    missing = diagnosis.untriggered(source, list(columns))
    names = [f"{label}.{name}" for (oid, name), label in columns.items() if (oid, name) in missing]
    large = [f"{label}.{column}" for label, column in orders.items() if column]
    yield from findings.of_untriggered(names, large)


def _print_costs(tables: list[TableReport]) -> None:
    rows = [
        [
            item.table.label,
            f"{item.table.row_estimate:,.0f}",
            _size(item.costs.first_load.size_bytes),
            (item.order or "").partition(":")[0] or "-",
            _cost(item.costs.fresh),
            _cost(item.costs.sweep),
            duration(item.costs.sweep_every_s) if item.scheduled else "each tick",
            _cost(item.costs.first_load),
        ]
        for item in tables
    ]
    titles = ["table", "rows", "size", "order", "fresh read", "sweep", "every", "first load"]
    print_table(titles, rows, numbers={1, 2, 4, 5, 6, 7})


def _cost(cost: table_costs.Cost) -> str:
    seconds = duration(cost.seconds) if cost.seconds >= 10 else f"{cost.seconds:.3f} s"
    return f"{seconds}, {_size(cost.size_bytes)}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
