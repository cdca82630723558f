"""Session settings: what every session of pg_bronze sets, so that nothing outside decides what the server returns.

A server, a database and a role can each set a default for a session. Here are the values that replace them, and the
select list that sets them. Which session, and for how long, is decided by the caller.
"""

from collections.abc import Mapping

# The settings that affect how PostgreSQL prints a value, and what the bytes of the text mean. A footer records them.
# ``pg_temp`` is last because it would be first otherwise, and a pooler may leave temporary tables in a session.
PRINTING: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "search_path": "pg_catalog, pg_temp",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "quote_all_identifiers": "off",
    "xmlbinary": "base64",
}
# What a statement means, which rows it returns, and what may end it or its session.
_MEANING: Mapping[str, str] = {
    "row_security": "off",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "xmloption": "content",
    "gin_fuzzy_search_limit": "0",  # with any other value an index returns some of the rows
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "exit_on_error": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
# How a statement is planned: as on a server without settings, and in one process.
_PLANNING: Mapping[str, str] = {
    "plan_cache_mode": "auto",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",  # compiling the catalog query takes longer than running it
    "constraint_exclusion": "partition",
    "from_collapse_limit": "8",  # with less, the joins of the catalog query are planned in the order of the text
    "join_collapse_limit": "8",
    "geqo": "on",
    "geqo_threshold": "12",
    "synchronize_seqscans": "on",
    "enable_partitionwise_aggregate": "off",
    "enable_partitionwise_join": "off",
    **{
        f"enable_{method}": "on"
        for method in (
            *("async_append", "bitmapscan", "gathermerge", "hashagg", "hashjoin", "incremental_sort", "indexonlyscan"),
            *("indexscan", "material", "memoize", "mergejoin", "nestloop", "parallel_append", "parallel_hash"),
            *("partition_pruning", "seqscan", "sort", "tidscan"),
        )
    },
}
# Settings that PostgreSQL 14 does not have.
_NEWER: Mapping[str, str] = {
    "transaction_timeout": "0",
    "enable_presorted_aggregate": "on",
    "enable_group_by_reordering": "on",
    "enable_distinct_reordering": "on",
    "enable_self_join_elimination": "on",
}
# Settings that only a superuser may set. With the second and third, a damaged page is read without its rows.
_SUPERUSER: Mapping[str, str] = {
    "lc_messages": "C",
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
}
# A client whose machine or network is gone ends no session. The server would keep it and the lock of its table for two
# hours, the default of most systems, or for a quarter of an hour if it has sent something; with these for a minute.
_LOSS_S = 60
ANSWERED = (
    "case when pg_catalog.version() operator(pg_catalog.~) '-linux-' "
    f"then pg_catalog.set_config('tcp_user_timeout', '{_LOSS_S}s', {{local}}) end"
)
NOTICE_LOSS = ", ".join(
    [
        *(
            f"pg_catalog.set_config('tcp_keepalives_{name}', '{value}', false)"
            for name, value in {"idle": _LOSS_S // 2, "interval": _LOSS_S // 6, "count": 3}.items()
        ),
        ANSWERED.format(local="false"),
    ]
)
# Where the tables of the role's own search_path are found once it is replaced: the name of a setting of our own.
ROLE_SCHEMAS = "pg_bronze.role_schemas"
_STORED = f"pg_catalog.current_setting('{ROLE_SCHEMAS}', true)"
# Not nullif(), `case x when` or `in`: their equality is looked up in the search_path, and cannot be qualified.
_KNOWN_SCHEMAS = f"case when {_STORED} operator(pg_catalog.<>) '' then {_STORED} end"
_OWN_SCHEMAS = "pg_catalog.textin(pg_catalog.array_out(pg_catalog.current_schemas(false)))"

# The schemas of the role's search_path, for a query in a session with these settings, or without them.
SCHEMAS = f"coalesce(({_KNOWN_SCHEMAS})::pg_catalog.name[], pg_catalog.current_schemas(false))"


def settings_list(statement_timeout_s: float, local: bool, lock_timeout_s: float = 0.0) -> str:
    """Return the select list that sets everything here.

    Its names and operators are qualified, because the role's search_path is in force until it has run. The schemas of
    that path are kept first, unless they are known.

    Args:
        statement_timeout_s: Seconds before the server cancels a statement.
        local: Whether the settings end with the transaction.
        lock_timeout_s: Seconds before the server cancels a statement that waits for a lock; 0 for no such limit.
    """
    limits = {"statement_timeout": f"{max(1, int(statement_timeout_s * 1000))}ms"}
    limits["lock_timeout"] = f"{int(lock_timeout_s * 1000)}ms"
    always = {**PRINTING, **_MEANING, **_PLANNING, **limits}
    kept = f"coalesce({_KNOWN_SCHEMAS}, {_OWN_SCHEMAS})"
    # Not returned: in a database with the encoding SQL_ASCII, the name of a schema may not be valid UTF-8.
    items = [f"pg_catalog.set_config('{ROLE_SCHEMAS}', {kept}, {str(local).lower()}) is null"]
    items += [_set(name, value, local) for name, value in always.items()]
    items += [
        f"case when pg_catalog.current_setting('{name}', true) is not null then {_set(name, value, local)} end"
        for name, value in _NEWER.items()
    ]
    superuser = "pg_catalog.current_setting('is_superuser') operator(pg_catalog.=) 'on'"
    items += [f"case when {superuser} then {_set(name, value, local)} end" for name, value in _SUPERUSER.items()]
    return ", ".join(items)


def _set(name: str, value: str, local: bool) -> str:
    return f"pg_catalog.set_config('{name}', '{value}', {str(local).lower()})"
