import dataclasses

import pytest

from pg_bronze.core.history_check import check_control, check_origin
from pg_bronze.core.watermark import ControlVersion
from pg_bronze.errors import HistoryChanged, StaleSnapshot, StateRestored
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
    # Two databases in one Dagster storage find each other's watermark under the same table name.
    assert ("PG_BRONZE_NAME" in str(raised.value)) == (name in {"bucket", "database"})


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


RUNNING = dataclasses.replace(ORIGIN, started="Monday", checkpoint="0/50")
# After a regular restart the last checkpoint is at or after every position that was flushed before.
CONTINUED = [("Monday", "0/50"), ("Monday", "0/99"), ("Tuesday", "0/FF"), ("Tuesday", "0/100"), (None, None)]
RESTORED = [("Tuesday", "0/50", "started from a state at log position 0/50"), ("Tuesday", "0/FE", "before 0/FF")]
GONE_BACK = [(day, "0/4F", "last checkpoint of the database is at log position 0/4F") for day in ("Monday", "Tuesday")]


@pytest.mark.parametrize("started, checkpoint", CONTINUED)
def test_a_server_that_continues_its_log_is_accepted(started, checkpoint):
    now = dataclasses.replace(ORIGIN, lsn="1/0", started=started, checkpoint=checkpoint)
    check_origin(dataclasses.replace(mark(), origin=RUNNING), now, "movie")
    check_origin(mark(), now, "movie")  # a watermark from before these entries


@pytest.mark.parametrize("started, checkpoint, found", RESTORED + GONE_BACK)
def test_a_restored_state_stops_the_table_although_the_log_has_passed_the_watermark(started, checkpoint, found):
    now = dataclasses.replace(ORIGIN, lsn="1/0", started=started, checkpoint=checkpoint)
    with pytest.raises(StateRestored, match=f"movie: .*{found}.*pg-bronze reconcile movie"):
        check_origin(dataclasses.replace(mark(), origin=RUNNING), now, "movie")


@pytest.mark.parametrize("written", [100, 2**32 + 100, 7 * 2**32 + 3])
def test_only_an_older_version_of_the_same_control_row_is_a_restore(written):
    def found(xid, database=5, table=9):
        origin = dataclasses.replace(ORIGIN, control=ControlVersion(5, 9, written))
        check_control(dataclasses.replace(mark(), origin=origin), ControlVersion(database, table, xid % 2**32), "movie")

    for xid in (written, written + 1, written + 2**31 - 1):
        found(xid)
    found(written - 1, database=6)
    found(written - 1, table=8)
    check_control(mark(), ControlVersion(5, 9, 1), "movie")
    check_control(mark(), None, "movie")
    for xid in (written - 1, written - 2**31 + 1):
        with pytest.raises(StateRestored, match="row of the table in etl_control is older"):
            found(xid)
