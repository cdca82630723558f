"""Partitioned tables, whose partitions come and go, and tables that inherit."""

import json

import pytest

from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import SAME, Lake

SALE = """create table sale (sale_id int, sold_on date, amount int) partition by range (sold_on);
create table sale_1 partition of sale for values from ('2026-01-01') to ('2026-02-01');
create table sale_2 partition of sale for values from ('2026-02-01') to ('2026-03-01');"""


def sales(first: int, last: int, month: int, into: str = "sale") -> str:
    rows = f"select i, '2026-{month:02}-03', i from generate_series({first}, {last}) i"
    return f"insert into {into} (sale_id, sold_on, amount) {rows}"


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(SALE)
    return Lake(database, bucket.store())


def same(lake: Lake) -> bool:
    return lake.compare("sale", key="sale_id") == SAME


def test_the_partitions_of_a_table_are_one_table(lake, database):
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.tick("sale")
    database.execute(f"{sales(9, 9, 1)}; {sales(10, 10, 2)}; update sale set amount = 0 where sale_id in (1, 6)")

    second = lake.tick("sale")

    assert second.row_counts == [4]  # partitions of equal state are read in one slice
    assert same(lake)
    assert {key.split("/")[0] for key in lake.all_keys()} == {"sale"}


def test_a_row_that_moves_to_another_partition_is_copied_there(lake, database):
    """It is deleted from the one and inserted into the other."""
    database.execute(sales(1, 5, 1))
    lake.drain("sale")
    database.execute("update sale set sold_on = '2026-02-07' where sale_id = 3")

    lake.drain("sale")

    assert same(lake)


def test_a_table_without_partitions_waits_for_one(database, bucket):
    lake = Lake(database, bucket.store())
    database.execute("create table sale (sale_id int, sold_on date, amount int) partition by range (sold_on)")
    assert lake.tick("sale").quiet

    database.execute("create table sale_1 partition of sale default")
    database.execute(sales(1, 3, 1))

    lake.drain("sale")
    assert same(lake)


def test_a_filled_table_that_is_attached_is_copied_whole(lake, database):
    """Its rows are older than the watermark of all other partitions."""
    database.execute("create table sale_3 (like sale)")
    database.execute(sales(100, 120, 3, "sale_3"))
    database.execute(sales(1, 5, 1))
    lake.drain("sale")
    database.execute("alter table sale attach partition sale_3 for values from ('2026-03-01') to ('2026-04-01')")
    database.execute(sales(121, 122, 3))

    lake.drain("sale")

    assert same(lake)


def test_a_partition_with_its_columns_in_another_order_is_read_by_name(lake, database):
    database.execute(
        "create table sale_3 (gone int, amount int, sold_on date, sale_id int); alter table sale_3 drop gone"
    )
    database.execute("insert into sale_3 values (7, '2026-03-03', 100)")
    database.execute(sales(1, 1, 1))
    lake.drain("sale")
    database.execute("alter table sale attach partition sale_3 for values from ('2026-03-01') to ('2026-04-01')")
    lake.drain("sale")
    database.execute("insert into sale values (101, '2026-03-04', 8)")
    lake.drain("sale")

    assert same(lake)
    assert lake.rows("sale").sort("sale_id").select("sale_id", "amount").rows() == [(1, 1), (100, 7), (101, 8)]


def test_a_detached_partition_keeps_its_place_and_goes_on_when_it_returns(lake, database):
    """Taken for unknown it would be copied again; taken for copied, what was written meanwhile would be lost."""
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute("alter table sale detach partition sale_2")
    database.execute(sales(20, 22, 2, "sale_2"))
    database.execute("update sale_2 set amount = -1 where sale_id = 6")
    database.execute(sales(9, 9, 1))
    lake.drain("sale")
    assert lake.column("sale_id", "sale") == [1, 2, 3, 4, 5, 6, 7, 8, 9]

    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")
    lake.forget("sale")
    lake.drain("sale")

    assert same(lake)


def test_a_partition_detached_while_it_is_read_loses_and_doubles_nothing(lake, database):
    """It returns half read."""
    database.execute(f"{sales(1, 3_000, 1)}; {sales(3_001, 6_000, 2)}")
    done = []

    def detach(step: str) -> None:
        if step == "put" and not done and sum(footer.row_count for footer in lake.footers("sale")) > 3_500:
            done.append(step)
            database.execute("alter table sale detach partition sale_2")

    lake.tick("sale", slice_rows=1_000, crash_at=detach)
    database.execute(sales(6_001, 6_001, 1))
    lake.drain("sale", slice_rows=1_000)
    assert done
    assert same(lake)
    assert lake.rows("sale").height < 6_000, "half of it was read"

    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")
    lake.drain("sale", slice_rows=1_000)
    assert same(lake)


def test_a_partition_detached_just_before_its_rows_are_read_loses_nothing(lake, database, monkeypatch):
    """A read through the root does without them, and its slice would say that they were copied."""
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute(f"{sales(9, 9, 1)}; {sales(10, 10, 2)}")
    original, left = Source.read, ["alter table sale detach partition sale_2"]

    def read(self, query, label):
        if left:
            database.execute(left.pop())
        return original(self, query, label)

    monkeypatch.setattr(Source, "read", read)
    lake.drain("sale")
    assert not left
    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")

    lake.drain("sale")

    assert same(lake)


def test_a_claimed_slice_of_a_partition_detached_since_loses_nothing(lake, database):
    """Read again without it, the partition would count as copied when it returns."""
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute(f"{sales(9, 9, 1)}; {sales(10, 10, 2)}")
    assert lake.crash("claim", "sale")
    database.execute("alter table sale detach partition sale_2")

    lake.drain("sale")

    assert same(lake)
    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")
    lake.drain("sale")
    assert same(lake)


def test_a_claimed_slice_of_a_partition_renamed_since_holds_that_partition_s_rows(lake, database):
    """Two partitions swap their names: by the old name it would be the rows of the other."""
    database.execute(f"{sales(1, 3_000, 1)}; {sales(3_001, 6_000, 2)}")
    assert lake.crash("claim", "sale", slice_rows=1_000)
    for old, new in (("sale_1", "sale_0"), ("sale_2", "sale_1"), ("sale_0", "sale_2")):
        database.execute(f"alter table {old} rename to {new}")

    lake.drain("sale", slice_rows=1_000)

    assert same(lake)
    assert lake.recorded["sale"].generation == 0


def test_partitions_of_partitions_are_copied(lake, database):
    database.execute(
        """create table sale_3 partition of sale for values from ('2026-03-01') to ('2026-04-01')
          partition by list (amount);
        create table sale_3_odd partition of sale_3 for values in (1, 3, 5);
        create table sale_3_rest partition of sale_3 default"""
    )
    database.execute(f"{sales(1, 6, 3)}; {sales(7, 9, 1)}")
    lake.drain("sale")
    database.execute(f"{sales(10, 12, 3)}; update sale set amount = 3 where sale_id = 4")
    lake.drain("sale")

    assert same(lake)
    assert len(lake.recorded["sale"].leaves) == 4


def test_a_dropped_and_remade_partition_is_copied_again(lake, database):
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute("drop table sale_2; create table sale_2 partition of sale default")
    database.execute(sales(20, 25, 2))

    lake.drain("sale")

    assert same(lake)


@pytest.mark.parametrize("step", ["read", "claim", "put", "unclaim"])
def test_a_crash_in_a_large_partition_loses_and_doubles_nothing(lake, database, step):
    """Its block ranges go on, and the other partitions are no further than they were."""
    database.execute(f"{sales(1, 100, 1)}; {sales(101, 4_000, 2)}")
    lake.crash(step, "sale", slice_rows=1_000)
    lake.forget("sale")
    database.execute(f"{sales(5_001, 5_003, 1)}; {sales(5_004, 5_006, 2)}")

    lake.drain("sale", slice_rows=1_000)

    assert same(lake)


def test_a_table_and_its_heir_are_two_tables_with_their_own_rows(database, bucket):
    """``select * from parent`` would bring the child's rows a second time."""
    lake = Lake(database, bucket.store())
    database.execute(
        "create table person (person_id int, name text); create table actor (award text) inherits (person)"
    )
    database.execute("insert into person values (1, 'p'); insert into actor values (2, 'a', 'x')")
    for table in ("person", "actor"):
        lake.drain(table)
    database.execute(
        "insert into person values (3, 'p'); insert into actor values (4, 'a', 'y'); update person set name = 'q'"
    )
    for table in ("person", "actor"):
        lake.drain(table)

    assert set(lake.column("person_id", "person")) == {1, 3}
    assert set(lake.column("person_id", "actor")) == {2, 4}
    assert lake.compare("person", key="person_id") == lake.compare("actor", key="person_id") == SAME


def test_the_state_of_five_hundred_partitions_stays_small(database, bucket):
    """It stands in every event, footer and claim."""
    database.execute("create table many (id int, part int) partition by list (part)")
    leaves = "".join(f"create table many_{i} partition of many for values in ({i});" for i in range(500))
    database.execute(leaves + "insert into many select i, i % 500 from generate_series(1, 2000) i")
    lake = Lake(database, bucket.store())
    lake.drain("many")
    database.execute("insert into many select 5000 + i, i from generate_series(0, 499, 7) i")

    second = lake.tick("many")

    assert second.row_counts == [72]
    assert len(json.dumps(lake.recorded["many"].to_json())) < 2_000
    lake.drain("many")
    assert lake.compare("many", key="id") == SAME


def test_two_levels_of_partitions_come_and_go_with_their_rows(lake, database):
    """ATTACH of a filled branch, DETACH, rows inserted while it stood alone, ATTACH again."""
    database.execute(
        f"""create table branch (sale_id int, sold_on date, amount int) partition by range (sold_on);
            create table branch_1 partition of branch for values from ('2026-03-01') to ('2026-03-15');
            create table branch_2 partition of branch for values from ('2026-03-15') to ('2026-04-01');
            {sales(1, 5, 1)}; {sales(100, 104, 3, "branch")}"""
    )
    lake.drain("sale")
    attach = "alter table sale attach partition branch for values from ('2026-03-01') to ('2026-04-01')"
    database.execute(attach)
    lake.drain("sale")
    assert same(lake)
    database.execute("alter table sale detach partition branch")
    database.execute(sales(105, 107, 3, "branch"))
    database.execute(sales(6, 7, 1))
    lake.drain("sale")
    assert lake.rows("sale")["sale_id"].max() == 104
    database.execute(attach)

    lake.drain("sale")

    assert same(lake)
    assert lake.rows("sale").height == lake.rows("sale").unique().height
