"""Partitioned and inheriting tables: when they are due, and which rows are copied."""

import pytest

from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, requested, settle
from pg_bronze_tests.harness.replicas import until

SALE = """create table sale (id int, sold_on date, amount int) partition by range (sold_on);
create table sale_1 partition of sale for values from ('2026-01-01') to ('2026-02-01');
create table sale_2 partition of sale for values from ('2026-02-01') to ('2026-03-01') partition by list (amount);
create table sale_2_a partition of sale_2 for values in (1);
create table sale_2_b partition of sale_2 default;
insert into sale select i, '2026-01-03', i from generate_series(1, 3) i;
insert into sale select i, '2026-02-03', i % 2 from generate_series(4, 7) i"""
MARCH = "for values from ('2026-03-01') to ('2026-04-01')"


@pytest.fixture
def sale(project: Project) -> Project:
    """A table with partitions on two levels, copied and unchanged."""
    project.database.execute(SALE)
    project.reload()
    settle(project)
    assert requested(project.evaluate()) == []
    return project


def write(project: Project, leaf: str, sql: str) -> None:
    """Write to one leaf, and wait until its counters have changed."""
    counted = f"select pg_stat_get_tuples_inserted('{leaf}'::regclass) + pg_stat_get_tuples_updated('{leaf}'::regclass)"
    before = project.database.execute(counted)[0][0]
    project.database.execute(sql)
    until(project.database.server, project.database.name, f"select ({counted}) > {before}")


def assert_sale_is_copied(project: Project) -> None:
    """Only the table is due, and after a run its rows are in the lake."""
    assert requested(project.evaluate()) == [{"sale"}]
    settle(project)
    assert lake.compare(project.database, project.bucket, "sale") == lake.SAME


@pytest.mark.parametrize("leaf, row", [("sale_1", "'2026-01-09', 5"), ("sale_2_a", "'2026-02-09', 1")])
def test_a_row_in_one_leaf_makes_its_table_due(sale: Project, leaf, row):
    """PostgreSQL counts writes for the leaf partitions, not for the partitioned table."""
    write(sale, leaf, f"insert into sale values (10, {row})")

    assert_sale_is_copied(sale)


def test_attaching_a_filled_partition_makes_its_table_due(sale: Project):
    """The rows of the partition are older than the watermark of the table."""
    sale.database.execute("create table sale_3 (like sale); insert into sale_3 values (11, '2026-03-09', 1)")
    settle(sale)

    sale.database.execute(f"alter table sale attach partition sale_3 {MARCH}")

    assert_sale_is_copied(sale)


def test_rows_written_to_a_detached_leaf_are_copied_after_it_is_attached_again(sale: Project):
    """Rows that were copied before are not copied again."""
    sale.database.execute("alter table sale detach partition sale_1")
    settle(sale)
    write(sale, "sale_1", "insert into sale_1 values (10, '2026-01-09', 1); update sale_1 set amount = 9 where id = 1")
    settle(sale)
    assert 10 not in lake.ids(sale.bucket, "sale")

    sale.database.execute("alter table sale attach partition sale_1 for values from ('2026-01-01') to ('2026-02-01')")

    assert_sale_is_copied(sale)
    assert lake.ids(sale.bucket, "sale") == [1, *range(1, 8), 10]


def test_a_table_and_its_child_are_due_for_their_own_rows(project: Project):
    """A SELECT from the parent returns rows of the child too, so they could be copied twice."""
    project.database.execute(
        "create table being (id int primary key, name text); create table cat (lives int) inherits (being);"
        "insert into being values (1, 'somebody'); insert into cat values (2, 'Tom', 9)"
    )
    project.reload()
    settle(project)
    assert requested(project.evaluate()) == []

    write(project, "cat", "insert into cat values (3, 'Kit', 8)")

    assert requested(project.evaluate()) == [{"cat"}]
    settle(project)
    write(project, "being", "insert into being values (4, 'another')")
    assert requested(project.evaluate()) == [{"being"}]
    settle(project)
    assert lake.ids(project.bucket, "being") == [1, 4]
    assert lake.compare(project.database, project.bucket, "cat") == lake.SAME
