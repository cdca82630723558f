"""The IO manager: it writes what the asset yields, with its own bucket."""

from datetime import UTC, date, datetime

import dagster as dg

from pg_bronze.defs import asset_keys, assets, bronze_specs, catalog_state
from pg_bronze.defs.io_managers import S3ParquetIOManager
from pg_bronze.defs.resources import Bucket, SourceDatabase, resource_of
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.object_store import Store
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import FIRST_DAY, Project


def recording(keys: list[str]) -> type[Bucket]:
    """A bucket with a client of its own, which adds the key of each created object to ``keys``."""

    class RecordingStore(Store):
        def create(self, key: str, body: bytes) -> bool:
            keys.append(key)
            return super().create(key, body)

    class RecordingBucket(Bucket):
        def open(self) -> Store:
            return RecordingStore(self.get_client(), self.bucket, self.prefix)

    return RecordingBucket


def test_data_objects_and_claims_are_created_through_the_bucket_of_the_io_manager(cinema: Project):
    """An IO manager that used the copier's store could not be replaced or tested without the copier."""
    written: list[str] = []
    by_copier: list[str] = []
    settings = load_settings()
    (movie,) = (table for table in catalog_state.live(settings).tables if table.label == "movie")
    days = asset_keys.daily(date.fromisoformat(FIRST_DAY))
    asset = assets.build_bronze(movie, bronze_specs.of_table(movie, settings, None), SourceNames(settings), days)
    resources = {
        assets.IO_MANAGER: S3ParquetIOManager(
            bucket=recording(written).from_settings(settings), settings=resource_of(settings)
        ),
        "source_database": SourceDatabase.from_settings(settings, recording(by_copier).from_settings(settings)),
    }

    result = dg.materialize(
        [asset], resources=resources, instance=cinema.instance, partition_key=datetime.now(UTC).date().isoformat()
    )

    assert result.success
    assert written == [Layout("", "public", "movie").claim(1), *lake.keys(cinema.bucket, "movie")]
    assert not set(written) & set(by_copier)
    assert not any(name.startswith("movie/") for name in by_copier)
