"""A function that somebody revoked from everybody is named once, with the statement that mends it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from pg_bronze.errors import AccessDenied
from pg_bronze.postgres import catalog_query
from pg_bronze.postgres.catalog import read_catalog
from pg_bronze_tests.harness.lake import MOVIE, READERS, Lake, fill
from pg_bronze_tests.harness.repetitions import also
from pg_bronze_tests.harness.servers import Database

# One by each statement that needs them: the settings of a session, the probe, the history, the catalog, the lock, the
# rows; and further ones.
FUNCTIONS = (
    *("set_config(text, text, boolean)", "pg_stat_get_tuples_inserted(oid)", "pg_control_system()"),
    *("array_to_string(anyarray, text)", "pg_try_advisory_lock(integer, integer)", "xidout(xid)"),
    *also("current_setting(text, boolean)", "pg_backend_pid()", "pg_current_snapshot()", "pg_current_wal_flush_lsn()"),
    *also("pg_get_expr(pg_node_tree, oid)", "pg_relation_size(regclass)", "row_security_active(oid)"),
    *also("format_type(oid, integer)", "age(xid)", "version()"),
)


@dataclass
class AsRole(Database):
    """A database that a role without further rights reads."""

    role: str = ""

    @property
    def conninfo(self) -> dict[str, Any]:
        return {**super().conninfo, "user": self.role, "password": "reader"}

    @property
    def url(self) -> str:
        return f"postgresql://{self.role}:reader@{self.server.host}:{self.server.port}/{self.name}"


@pytest.fixture
def guest(database: Database) -> Iterator[AsRole]:
    role = f"reader_{database.name}"
    database.execute(f"{MOVIE}; {fill(1, 3)}; alter table movie add twice int generated always as (movie_id) stored")
    database.execute(f"create role {role} login password 'reader'; grant select on movie to {role}")
    yield AsRole(database.server, database.name, role)
    database.execute(f"drop owned by {role}; drop role {role}")


def copy(lake: Lake) -> None:
    """Do what a tick does."""
    with lake.source() as source:
        source.activity()
        try:
            read_catalog(source.connection)
        except psycopg.Error as error:
            raise source.explain(error, catalog_query.everything(), source.name) from error
    lake.tick()


def refusal(lake: Lake) -> str:
    with pytest.raises(AccessDenied) as caught:
        copy(lake)
    return str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_revoked_function_is_named_with_the_statement_that_mends_it(database, guest, bucket, function):
    """One line of a hardening guide would otherwise stop every table, each with an error that names its rows."""
    lake = Lake(guest, bucket.store(), reader=READERS[0])
    database.execute(f"revoke execute on function pg_catalog.{function} from public")

    message = refusal(lake)

    grant = f"grant execute on function pg_catalog.{function} to {guest.role}"
    assert message.startswith(f"{guest.name}@")
    assert grant in message
    assert "movie" not in message
    database.execute(grant)
    copy(lake)
    assert lake.rows().height == 3


@pytest.mark.parametrize("reader", READERS)
def test_all_revoked_functions_are_named_at_once(database, guest, bucket, reader):
    """Otherwise each tick would name the next one."""
    lake = Lake(guest, bucket.store(), reader=reader)
    for function in ("age(xid)", "xidout(xid)"):
        database.execute(f"revoke execute on function pg_catalog.{function} from public")

    message = refusal(lake)

    assert all(f"pg_catalog.{name} to" in message for name in ("age(xid)", "xidout(xid)")), message


@pytest.mark.parametrize("function", ["obj_description(oid, name)", "col_description(oid, integer)"])
def test_comments_are_read_without_a_function(database, guest, bucket, function):
    database.execute("comment on table movie is 'films'; comment on column movie.title is 'as on the poster'")
    database.execute(f"revoke execute on function pg_catalog.{function} from public")
    lake = Lake(guest, bucket.store())

    copy(lake)

    footer = lake.footers()[0]
    assert footer.table["comment"] == "films"
    assert [column.get("comment") for column in footer.columns][1] == "as on the poster"


def test_another_missing_right_is_not_blamed_on_a_function(database, guest):
    database.execute(f"revoke select on movie from {guest.role}")
    with Lake(guest, None).source() as source, pytest.raises(AccessDenied, match="may not read the table"):
        source.read("select movie_id from only public.movie t", "movie")
