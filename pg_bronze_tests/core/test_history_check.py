import dataclasses

import pytest

from pg_bronze.core.history_check import check_origin
from pg_bronze.errors import HistoryChanged, StaleSnapshot
from pg_bronze_tests.harness.literals import ORIGIN, mark

CHANGES = {
    "bucket": ("other", "MINIO_BUCKET", "'bronze'.*'other'"),
    "system_id": ("8", "pg-bronze continue movie", "cluster 7.*8"),
    "database": (6, "PG_DB", "oid 5; this one has oid 6"),
    "timeline": (2, "pg-bronze continue movie", "timeline 1 to 2"),
    "lsn": ("0/FE", "pg-bronze continue movie", "position 0/FE, before 0/FF"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_origin_stops_the_table_with_the_reason_and_the_remedy(name):
    value, remedy, found = CHANGES[name]
    with pytest.raises(HistoryChanged, match=f"(?s)movie: .*{found}") as raised:
        check_origin(mark(), dataclasses.replace(ORIGIN, **{name: value}), "movie")
    assert remedy in str(raised.value)
    assert "pg-bronze reset movie" in str(raised.value)


@pytest.mark.parametrize("lsn", ["0/FF", "0/100", "1/0"])
def test_the_same_origin_at_a_later_log_position_is_accepted(lsn):
    check_origin(mark(), dataclasses.replace(ORIGIN, lsn=lsn), "movie")


def test_log_positions_are_compared_as_numbers():
    later = dataclasses.replace(mark(), origin=dataclasses.replace(ORIGIN, lsn="9/FFFFFFFF"))
    check_origin(later, dataclasses.replace(ORIGIN, lsn="10/0"), "movie")
    with pytest.raises(HistoryChanged):
        check_origin(later, dataclasses.replace(ORIGIN, lsn="9/FFFFFFFE"), "movie")


@pytest.mark.parametrize(
    "before, after", [("A/0", "B/0"), ("9/A", "9/1A"), ("0/FFFFFFFF", "1/0"), ("1/FFFFFFFF", "2/0")]
)
def test_both_parts_of_a_log_position_are_hexadecimal(before, after):
    first, second = (dataclasses.replace(ORIGIN, lsn=lsn) for lsn in (before, after))
    check_origin(dataclasses.replace(mark(), origin=first), second, "movie")
    with pytest.raises(HistoryChanged, match="an older state was restored"):
        check_origin(dataclasses.replace(mark(), origin=second), first, "movie")


def test_a_standby_behind_the_watermark_is_retried():
    with pytest.raises(StaleSnapshot, match="0/FE"):
        check_origin(mark(), dataclasses.replace(ORIGIN, lsn="0/FE"), "movie", standby=True)


def test_a_standby_on_another_timeline_stops_the_table():
    with pytest.raises(HistoryChanged):
        check_origin(mark(), dataclasses.replace(ORIGIN, lsn="0/FE", timeline=2), "movie", standby=True)


def test_another_cluster_is_reported_before_another_database():
    """Oids of databases are comparable within one cluster only: PG_DB cannot correct another cluster."""
    with pytest.raises(HistoryChanged, match=r"cluster 7.*8"):
        check_origin(mark(), dataclasses.replace(ORIGIN, system_id="8", database=6), "movie")
