"""Tables of any name through the assets, all in one bucket."""

import pytest

from pg_bronze.core.table import SourceTable, quote
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.project import Project
from pg_bronze_tests.harness.repetitions import also

# Neighbors differ only in characters that an asset key, an op, a folder or a URL cannot contain or distinguish.
SOME_NAMES = [
    "public:movie", "public:Movie", "sales:movie", "public:sales.movie", "public:sales_movie", "a b:c", "a:b c",
    "public:a_b", "public:a b", "public:x/y", "public:x%2Fy", "public:..", "public:date=2026-01-01",
    "public:_pg_bronze", "public:größe 日本", "public:*", "." * 63 + ":" + "/" * 63, "." * 63 + ":" + "/" * 62 + "x",
]  # fmt: skip
NAMES = [
    "public:movie", "public:Movie", "public:MOVIE", "sales:movie", "public:sales.movie", "public:sales_movie",
    "public:sales__movie", "sales.x:y", "sales:x.y", "a b:c", "a:b c", "public:A-b", "public:a_b", "public:a b",
    "public:a  b", "public: a b", "public:a b ", "public:x/y", "public:x//y", "public:/", "public:x\\y", "public:100%",
    "public:%2F", "public:x%2Fy", "public:.", "public:..", "public:...", "public:date=2026-01-01", "public:_pg_bronze",
    "public:_pg_bronzed", "_pg_bronze:movie", "public:select", "public:it's", 'public:say "hi"', "public:a?b&c=d#e",
    "public:a+b", "public:a\tb\nc", "public:größe 日本", "public:é", "public:e\N{COMBINING ACUTE ACCENT}",
    "public:movie_20260102000010.parquet", "public:movie_x0_20_0", "public:*", "public:~", "public:$1 {x} %s",
    "public:" + "n" * 63, "public:" + "🎬" * 15, "." * 63 + ":" + "/" * 63, "." * 63 + ":" + "/" * 62 + "x",
]  # fmt: skip
COLUMNS = [
    "id",
    "Id",
    "ID",
    "_pg_xid",
    "_pg_xid_1",
    "select",
    "a.b",
    "a b",
    'a"b',
    "ñ",
    "_pg_width",
    "_pg_total",
]


@pytest.mark.slow
@pytest.mark.parametrize("names", [SOME_NAMES, *also(NAMES)], ids=["some", "all"])
def test_tables_of_any_name_are_copied_into_separate_folders(project: Project, names: list[str]):
    """Two tables in one folder would adopt each other's objects."""
    columns = ", ".join(f"{quote(name)} int" for name in COLUMNS)
    tables = [tuple(name.split(":", 1)) for name in names]
    statements = [f"create schema {quote(schema)}" for schema in {schema for schema, _ in tables} - {"public"}]
    for number, (schema, name) in enumerate(tables):
        table = f"{quote(schema)}.{quote(name)}"
        values = ", ".join(str(number * 100 + n) for n in range(len(COLUMNS)))
        statements += [f"create table {table} ({columns})", f"insert into {table} values ({values})"]
    project.database.execute("; ".join(statements))
    project.reload()

    assert project.copy().success

    lake = Lake(project.database, project.bucket.store())
    folders = {key.split("/")[0] for key in lake.all_keys() if key.endswith(".parquet")}
    assert len(folders) == len(names)
    assert [name for name in names if len(lake.keys(name)) != 1] == []
    for name in names:
        (row,) = project.database.execute(f"select * from {_table(name).sql}")
        assert lake.rows(name).columns == [*COLUMNS, "_pg_xid_2"]
        assert lake.rows(name).drop("_pg_xid_2").rows() == [row]
    again = project.copy()
    assert again.success
    assert not again.get_asset_materialization_events(), "each table finds its own watermark"


def _table(name: str) -> SourceTable:
    schema, _, table = name.partition(":")
    return SourceTable(1, schema, table, False, None, (), (), (), 0.0, None, "")
