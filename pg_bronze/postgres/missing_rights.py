"""Missing rights: functions of PostgreSQL that this role may not execute, and the statements that grant them.

Every role may execute them unless somebody has revoked that, as guides for hardening a server advise. A table cannot be
copied without them, and the server's error names neither the arguments nor the statement that mends it.
"""

import psycopg

from pg_bronze.errors import AccessDenied

FORBIDDEN = "42501"  # also the SQLSTATE of other missing rights
# Qualified, because the settings of the session may not be in force. Overloads that may be executed are not listed.
_REVOKED = r"""select pg_catalog.concat('grant execute on function pg_catalog.', pg_catalog.quote_ident(p.proname), '(',
  pg_catalog.oidvectortypes(p.proargtypes), ') to ', pg_catalog.quote_ident(current_user))
from pg_catalog.pg_proc p
where p.proacl is not null
  and p.pronamespace operator(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
  and %s operator(pg_catalog.~) pg_catalog.concat('\m', p.proname, '\M')
  and not pg_catalog.has_function_privilege(p.oid, 'execute')
order by 1"""


def error_of(connection: psycopg.Connection, query: str, name: str) -> AccessDenied | None:
    """Return our error for a forbidden statement if there are functions that the role may not execute, else None.

    Args:
        connection: A connection of the same role on which a statement can be run.
        query: The statement, or all that may have failed; functions whose name does not occur in it are not named.
        name: The server; the message begins with it.
    """
    try:
        found = [grant for (grant,) in connection.execute(_REVOKED.encode(), (query,)).fetchall()]
    except psycopg.Error:
        return None  # one of those that this statement needs; the server's message is repeated instead
    if not found:
        return None
    return AccessDenied(
        f"{name}: this role may not execute functions of PostgreSQL that every table needs. Run in this database: "
        f"{'; '.join(found)}. It is retried after the fix."
    )
