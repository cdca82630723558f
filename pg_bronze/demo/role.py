"""The role that pg_bronze connects as in the demo, with the rights of docs/operations.md and those that are optional.

The demo does not copy as the superuser, so that what a role needs, and what a revoked right does, can be seen.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pg_bronze.demo.sample import Connection

ROLE = "bronze"
# The rights to create the control table, and to see which session holds the horizon, are optional.
_RIGHTS = """
grant usage, create on schema public to bronze;
grant select on all tables in schema public to bronze;
alter default privileges in schema public grant select on tables to bronze;
grant pg_read_all_stats to bronze;
"""


def create_role(connection: "Connection", password: str) -> None:
    """Create the role with its rights in the database of the connection, in autocommit mode, unless it exists.

    Rights that were revoked since an earlier start are not granted again.
    """
    from psycopg import sql

    if connection.execute("select 1 from pg_roles where rolname = %s", [ROLE]).fetchone():
        return
    with connection.transaction():
        connection.execute(sql.SQL("create role bronze login password {}").format(sql.Literal(password)))
        connection.execute(_RIGHTS)
        # A demo of an earlier version created it as the superuser.
        connection.execute("alter table if exists etl_control owner to bronze")
