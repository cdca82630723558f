"""Names in Dagster: of the assets, pools, jobs, sensors and resources of one source database.

One source without a name has the short ones: ``bronze/movie``, ``bronze_tick``. With ``PG_BRONZE_NAME`` or a component
they contain the name, so several sources can be in one code location or on one Dagster instance: ``bronze/shop/movie``,
``bronze_tick_shop``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs.asset_keys import encode
from pg_bronze.settings.model import Settings

# The first part of the key of every source table, bronze asset and silver asset, and the name of its group.
SOURCE, BRONZE, SILVER = "postgres", "bronze", "silver"
# On each run of a source with a name.
SOURCE_TAG = "pg_bronze/source"
# Dagster's name of the job that materializes assets without a job of their own.
_ASSET_JOB = "__ASSET_JOB"


@dataclass(frozen=True)
class SourceNames:
    """The names of one source.

    Attributes:
        settings: Have the name of the source, and the options of tables; None if they are not valid.
    """

    settings: Settings | None = None

    @property
    def source(self) -> str | None:
        """The name of the source; None for the only source without a name."""
        return self.settings.name if self.settings else None

    def of(self, name: str) -> str:
        """Return the name of something that each source has, such as ``bronze_tick``, for this source."""
        return f"{name}_{self.source}" if self.source else name

    def bronze_key(self, table: SourceTable) -> dg.AssetKey:
        """Return ``bronze/movie``, or ``bronze/sales/movie`` for a table outside ``public``."""
        if self.settings is not None and self.settings.names_assets:
            options = self.settings.table_options(table.label)
            if options.asset_key:
                return dg.AssetKey(options.asset_key.split("/"))
            if options.key_prefix:
                return dg.AssetKey([*options.key_prefix.split("/"), *_path(table)])
        return dg.AssetKey([*self._first(BRONZE), *_path(table)])

    def bronze_keys(self, tables: Iterable[SourceTable]) -> list[dg.AssetKey]:
        """Return the key of each bronze asset."""
        return [self.bronze_key(table) for table in tables]

    def latest_key(self, table: SourceTable) -> dg.AssetKey:
        """Return ``silver/movie_latest``, the asset with the newest row versions of a table."""
        *schema, name = _path(table)
        return dg.AssetKey([*self._first(SILVER), *schema, f"{name}_latest"])

    def source_key(self, table: SourceTable, database: str) -> dg.AssetKey:
        """Return ``postgres/cine/movie``, the source table of a bronze asset."""
        return dg.AssetKey([SOURCE, encode(self.source or database), *_path(table)])

    def pool(self, table: SourceTable) -> str:
        """Return the pool that allows one run of a table at a time."""
        # Two underscores, which no part contains: sales.movie and sales_movie have different pools.
        return "__".join(["pg_bronze", *self._name(), *_path(table)])

    def has_bronze_key(self, key: dg.AssetKey) -> bool:
        """Return whether a key is one of the bronze assets without a key of their own, also of a former table."""
        first = self._first(BRONZE)
        return key.path[: len(first)] == first

    @property
    def copy_jobs(self) -> set[str]:
        """The jobs that copy all tables when they are launched without a selection."""
        return {self.of("bronze"), _ASSET_JOB}

    @property
    def jobs(self) -> set[str]:
        """The jobs of the source."""
        return {self.of(name) for name in ("bronze", "bronze_verify", "bronze_new_tables", "bronze_checks")}

    @property
    def sensors(self) -> set[str]:
        """The sensors of the source."""
        return {self.of(name) for name in ("bronze_tick", "bronze_catalog", "bronze_retention", "silver_latest")}

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of each run of the source."""
        return {SOURCE_TAG: self.source} if self.source else {}

    def own(self, records: Iterable[dg.RunRecord]) -> list[dg.RunRecord]:
        """Return the runs that are not of another source."""
        return [record for record in records if record.dagster_run.tags.get(SOURCE_TAG) == self.source]

    def _first(self, kind: str) -> list[str]:
        return [kind, *self._name()]

    def _name(self) -> list[str]:
        return [encode(self.source)] if self.source else []


def _path(table: SourceTable) -> list[str]:
    return [encode(table.name)] if table.schema == "public" else [encode(table.schema), encode(table.name)]
