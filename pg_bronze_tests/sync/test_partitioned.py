"""Partitioned tables, whose partitions are attached and detached, and tables that inherit."""

import json

import pytest

from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.repetitions import also

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


def is_exact(lake: Lake) -> bool:
    return lake.compare("sale", key="sale_id") == SAME


def test_the_partitions_of_a_table_are_one_table(lake, database):
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.tick("sale")
    database.execute(f"{sales(9, 9, 1)}; {sales(10, 10, 2)}; update sale set amount = 0 where sale_id in (1, 6)")

    second = lake.tick("sale")

    assert second.row_counts == [4]  # partitions with equal state are read in one slice
    assert is_exact(lake)
    assert {key.split("/")[0] for key in lake.all_keys()} == {"sale"}


def test_a_row_that_moves_to_another_partition_is_copied_there(lake, database):
    """PostgreSQL deletes it from one partition and inserts it into the other."""
    database.execute(sales(1, 5, 1))
    lake.drain("sale")
    database.execute("update sale set sold_on = '2026-02-07' where sale_id = 3")

    lake.drain("sale")

    assert is_exact(lake)


def test_a_table_without_partitions_is_copied_once_it_has_one(database, bucket):
    lake = Lake(database, bucket.store())
    database.execute("create table sale (sale_id int, sold_on date, amount int) partition by range (sold_on)")
    assert lake.tick("sale").quiet

    database.execute("create table sale_1 partition of sale default")
    database.execute(sales(1, 3, 1))

    lake.drain("sale")
    assert is_exact(lake)


def test_an_attached_table_that_contains_rows_is_copied_completely(lake, database):
    """Its rows are older than the watermark of all other partitions, and would be lost."""
    database.execute("create table sale_3 (like sale)")
    database.execute(sales(100, 120, 3, "sale_3"))
    database.execute(sales(1, 5, 1))
    lake.drain("sale")
    database.execute("alter table sale attach partition sale_3 for values from ('2026-03-01') to ('2026-04-01')")
    database.execute(sales(121, 122, 3))

    lake.drain("sale")

    assert is_exact(lake)


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

    assert is_exact(lake)
    assert lake.rows("sale").sort("sale_id").select("sale_id", "amount").rows() == [(1, 1), (100, 7), (101, 8)]


def test_a_partition_that_is_detached_and_attached_again_continues_where_it_was(lake, database):
    """As an unknown partition it would be copied twice; as a copied one, rows written in between would be lost."""
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

    assert is_exact(lake)


def test_a_partition_detached_during_its_first_load_loses_and_doubles_nothing(lake, database):
    """It is attached again when only a part of it was read."""
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
    assert is_exact(lake)
    assert lake.rows("sale").height < 6_000, "only a part of it was read"

    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")
    lake.drain("sale", slice_rows=1_000)
    assert is_exact(lake)


def test_a_partition_detached_between_plan_and_read_loses_nothing(lake, database, monkeypatch):
    """A read of the root does not contain its rows, and they would count as copied."""
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute(f"{sales(9, 9, 1)}; {sales(10, 10, 2)}")
    original, left = Source.read_sent, ["alter table sale detach partition sale_2"]

    def read(self, query, label):
        if left:
            database.execute(left.pop())
        return original(self, query, label)

    monkeypatch.setattr(Source, "read_sent", read)
    lake.drain("sale")
    assert not left
    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")

    lake.drain("sale")

    assert is_exact(lake)


def test_a_claimed_slice_with_a_partition_detached_since_loses_nothing(lake, database):
    """If the slice were read again without it, its rows would count as copied."""
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute(f"{sales(9, 9, 1)}; {sales(10, 10, 2)}")
    assert lake.crash("claim", "sale")
    database.execute("alter table sale detach partition sale_2")

    lake.drain("sale")

    assert is_exact(lake)
    database.execute("alter table sale attach partition sale_2 for values from ('2026-02-01') to ('2026-03-01')")
    lake.drain("sale")
    assert is_exact(lake)


def test_a_claimed_slice_of_a_partition_renamed_since_has_the_rows_of_that_partition(lake, database):
    """Two partitions swap their names. Under the old name, the rows of the other would be read."""
    database.execute(f"{sales(1, 3_000, 1)}; {sales(3_001, 6_000, 2)}")
    assert lake.crash("claim", "sale", slice_rows=1_000)
    for old, new in (("sale_1", "sale_0"), ("sale_2", "sale_1"), ("sale_0", "sale_2")):
        database.execute(f"alter table {old} rename to {new}")

    lake.drain("sale", slice_rows=1_000)

    assert is_exact(lake)
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

    assert is_exact(lake)
    assert len(lake.recorded["sale"].leaves) == 4


def test_a_partition_dropped_and_created_again_is_copied_again(lake, database):
    database.execute(f"{sales(1, 5, 1)}; {sales(6, 8, 2)}")
    lake.drain("sale")
    database.execute("drop table sale_2; create table sale_2 partition of sale default")
    database.execute(sales(20, 25, 2))

    lake.drain("sale")

    assert is_exact(lake)


@pytest.mark.parametrize("step", [*also("read"), "claim", "put", *also("unclaim")])
def test_a_crash_in_a_large_partition_loses_and_doubles_nothing(lake, database, step):
    """Its block ranges must continue, and the other partitions must not count as copied."""
    database.execute(f"{sales(1, 100, 1)}; {sales(101, 4_000, 2)}")
    lake.crash(step, "sale", slice_rows=1_000)
    lake.forget("sale")
    database.execute(f"{sales(5_001, 5_003, 1)}; {sales(5_004, 5_006, 2)}")

    lake.drain("sale", slice_rows=1_000)

    assert is_exact(lake)


def test_a_table_and_its_inheritance_child_are_copied_separately(database, bucket):
    """``select * from parent`` contains the rows of the child, too."""
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


def test_the_watermark_of_five_hundred_partitions_is_small(database, bucket):
    """Every event, footer and claim contains it."""
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


def test_a_branch_of_partitions_is_attached_detached_and_attached_again(lake, database):
    """Rows that were inserted while the branch was detached must be copied afterwards."""
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
    assert is_exact(lake)
    database.execute("alter table sale detach partition branch")
    database.execute(sales(105, 107, 3, "branch"))
    database.execute(sales(6, 7, 1))
    lake.drain("sale")
    assert lake.rows("sale")["sale_id"].max() == 104
    database.execute(attach)

    lake.drain("sale")

    assert is_exact(lake)
    assert lake.rows("sale").height == lake.rows("sale").unique().height
