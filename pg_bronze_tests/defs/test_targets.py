"""Targets: what is acceptable for a table is that of its options, or of all tables."""

import json

from pg_bronze.core import band_notes
from pg_bronze.defs.due_tables import targets, targets_of
from pg_bronze.settings.load import load_settings

MINIMUM = {
    "PG_HOST": "db", "PG_DB": "cine", "PG_USER": "reader", "PG_PASS": "secret",
    "MINIO_ENDPOINT": "http://s3:9000", "MINIO_ACCESS_KEY": "key", "MINIO_SECRET_KEY": "secret",
    "MINIO_BUCKET": "bronze",
}  # fmt: skip


def test_a_table_without_options_of_its_own_has_the_common_targets() -> None:
    tables = json.dumps({"archive": {"severity": "warn", "sweep_target_s": 86400}})
    settings = load_settings(MINIMUM | {"PG_BRONZE_TABLES": tables}, None)
    plain = load_settings(MINIMUM, None)

    assert targets_of(settings, "movie") == targets(settings) == targets_of(plain, "movie")
    archive = targets_of(settings, "archive")
    assert (archive.worst, archive.sweep_s, archive.lag_s) == ("warn", 86400, targets(settings).lag_s)


def test_a_target_of_a_table_is_at_least_three_intervals() -> None:
    """A lag below it is that of a table in which nothing is late."""
    tables = json.dumps({"movie": {"lag_target_s": 10}, "big": {"lag_target_s": 3600}})
    settings = load_settings(MINIMUM | {"PG_BRONZE_TABLES": tables, "PG_BRONZE_INTERVAL_S": "20"}, None)
    assert targets_of(settings, "movie").lag_s == 60
    assert targets_of(settings, "big").lag_s == 3600


def test_a_sweep_is_overdue_above_the_target_of_its_table() -> None:
    assert band_notes.overdue("movie", 500, 200) is not None
    assert band_notes.overdue("movie", 500, 200, target_s=600) is None
    assert band_notes.overdue("movie", 300, 200, target_s=250) is not None
