import psycopg
import pytest

from pg_bronze.errors import PgBronzeError, SourceDamaged, SourceUnavailable
from pg_bronze.postgres.error_mapping import explain, explain_connection, explain_connectorx, explain_sqlstate

RETRIES = {
    "automatic": "It is retried at the next tick.",
    "after_fix": "It is retried after the fix.",
    "never": "A retry fails until then.",
}


@pytest.mark.parametrize(
    "label, named",
    [
        ("movie", '"public"."movie"'),
        ("order", '"public"."order"'),
        ("sales.movie", '"sales"."movie"'),
        ("two words", '"public"."two words"'),
        ("Movie", '"public"."Movie"'),
        ('sales."movie.old"', '"sales"."movie.old"'),
    ],
)
def test_the_grant_in_the_message_names_the_table_as_sql(label, named):
    """Without quotes PostgreSQL finds another table, or none, or a syntax error."""
    error = explain_connectorx(RuntimeError("db error: ERROR: permission denied for table x"), label)

    assert f"Run: grant select on {named} to the role." in str(error)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
        psycopg.errors.CrashShutdown("terminating connection because of crash of another server process"),
        psycopg.OperationalError("the connection is lost"),
    ],
    ids=["stopped", "crashed", "lost"],
)
def test_a_session_that_ended_is_retried_at_the_next_tick(error):
    """Which of these errors arrives is chance; waiting for a person after every restart of the server is wrong."""
    explained = explain(error, "movie")

    assert (explained.retry, str(explained).partition(":")[0]) == ("automatic", "movie")


@pytest.mark.parametrize(
    "error, words",
    [
        (psycopg.errors.DataCorrupted, "missing chunk number 0 for toast value 16400 in pg_toast_16385"),
        (psycopg.errors.DataCorrupted, "unexpected chunk number 2 (expected 0) for toast value 16400"),
        (psycopg.errors.DataCorrupted, "compressed pglz data is corrupt"),
        (psycopg.errors.DataCorrupted, 'could not read blocks 3..3 in file "base/5/16385": read only 0 of 8192'),
        (psycopg.errors.UndefinedFile, "could not access status of transaction 4294967295"),
        (psycopg.errors.IoError, 'could not read block 7 in file "base/5/16385": Input/output error'),
    ],
)
def test_a_corrupted_table_is_reported_alike_by_both_readers(error, words):
    """The texts are from PostgreSQL 18's source: `bufmgr.c`, `md.c`, `slru.c`, `toast_internals.c`, `detoast.c`."""
    found: list[PgBronzeError] = [
        explain_sqlstate(error(words), "movie"),
        explain_connectorx(RuntimeError(f"db error: ERROR: {words}"), "movie"),
    ]

    assert {type(each) for each in found} == {SourceDamaged}
    assert {each.retry for each in found} == {"after_fix"}
    assert len(set(map(str, found))) == 1
    assert str(found[0]).startswith("movie: the table is corrupted on disk: ")


@pytest.mark.parametrize(
    "error, words",
    [
        (psycopg.errors.OutOfMemory, "out of memory"),
        (psycopg.errors.DiskFull, 'could not write to file "base/pgsql_tmp/t": No space left on device'),
        (psycopg.errors.ConfigurationLimitExceeded, 'temporary file size exceeds "temp_file_limit" (1024kB)'),
    ],
)
def test_a_server_without_memory_or_disk_space_is_reported_alike_by_both_readers(error, words):
    found = [
        explain_sqlstate(error(words), "movie"),
        explain_connectorx(RuntimeError(f"db error: ERROR: {words}"), "movie"),
    ]

    assert {type(each) for each in found} == {SourceUnavailable}
    assert {str(each).partition(". ")[0] for each in found} == {
        "movie: the server has too little memory or disk space for the read"
    }


@pytest.mark.parametrize(
    "error",
    [
        explain_connection(psycopg.OperationalError('FATAL:  database "x" does not exist'), "x@here:5432"),
        explain_connection(psycopg.OperationalError("FATAL:  the database system is starting up"), "x@here:5432"),
        explain_connection(psycopg.OperationalError("FATAL:  over {quota}"), "x@here:5432"),
        explain(psycopg.errors.InsufficientPrivilege("permission denied for table movie"), "movie"),
        explain(psycopg.errors.QueryCanceled("canceling statement due to user request"), "movie"),
        explain_sqlstate(psycopg.errors.UndefinedColumn('column "b" does not exist'), "movie"),
        explain_connectorx(RuntimeError("db error: ERROR: division by zero"), "movie"),
        explain_connectorx(RuntimeError('db error: ERROR: invalid byte sequence for encoding "UTF8": 0xff'), "movie"),
    ],
    ids=str,
)
def test_every_message_ends_with_whether_it_is_retried(error):
    """An operator at night has to know at once whether to get up."""
    assert str(error).endswith(f" {RETRIES[error.retry]}")
