import psycopg
import pytest

from pg_bronze.errors import DataError, SourceDamaged, SourceUnavailable
from pg_bronze.postgres.error_mapping import (
    canceled,
    explain,
    explain_marker,
    explain_sqlstate,
    interrupted,
    shown_cause,
    undecodable,
)
from pg_bronze.postgres.login_errors import explain_connection

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
    error = explain_sqlstate(psycopg.errors.InsufficientPrivilege("permiso denegado a la tabla x"), label)

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
    "error, kind, words",
    [
        (psycopg.errors.DataCorrupted, SourceDamaged, "the table is corrupted on disk: "),
        (psycopg.errors.IndexCorrupted, SourceDamaged, "the table is corrupted on disk: "),
        (psycopg.errors.UndefinedFile, SourceDamaged, "the table is corrupted on disk: "),
        (psycopg.errors.IoError, SourceDamaged, "the table is corrupted on disk: "),
        (psycopg.errors.OutOfMemory, SourceUnavailable, "the server has too little memory or disk space for the read"),
        (psycopg.errors.DiskFull, SourceUnavailable, "the server has too little memory or disk space for the read"),
        (
            psycopg.errors.ConfigurationLimitExceeded,
            SourceUnavailable,
            "the server has too little memory or disk space for the read",
        ),
        (psycopg.errors.DivisionByZero, DataError, "an expression fails for a row (SQLSTATE 22012)"),
        (psycopg.errors.InvalidTextRepresentation, DataError, "an expression fails for a row (SQLSTATE 22P02)"),
        (psycopg.errors.StatementTooComplex, DataError, "an expression fails for a row (SQLSTATE 54001)"),
        (psycopg.errors.RaiseException, DataError, "an expression fails for a row (SQLSTATE P0001)"),
        (psycopg.errors.InternalError_, SourceUnavailable, "PostgreSQL ended the read with an error (SQLSTATE XX000)"),
    ],
)
def test_a_failed_read_is_explained_by_its_sqlstate(error, kind, words):
    """The words of a message are in the language of the server, and may be those of another error."""
    explained = explain_sqlstate(error("statement timeout: permission denied, row-level security"), "movie")

    assert type(explained) is kind
    assert str(explained).startswith(f"movie: {words}")


@pytest.mark.parametrize("text", ["older than horizon", "pg_bronze: larger than a slice"])
def test_a_text_of_pg_bronze_counts_only_where_a_query_cast_it(text):
    """A value of a row with these words would make a table be read in ever smaller ranges."""
    explained = explain_sqlstate(psycopg.errors.RaiseException(text), "movie")

    assert type(explained) is DataError
    assert explain_marker(RuntimeError("db error: FEHLER: anything"), "movie") is None


@pytest.mark.parametrize(
    "error",
    [
        explain_connection(psycopg.OperationalError("FATAL:  no hay tal base"), "x@here:5432", "3D000"),
        explain_connection(psycopg.OperationalError("FATAL:  se apaga"), "x@here:5432", "57P03"),
        explain_connection(psycopg.OperationalError("FATAL:  over {quota}"), "x@here:5432"),
        explain_connection(psycopg.OperationalError("failed: Connection refused"), "x@here:5432"),
        explain(psycopg.errors.InsufficientPrivilege("permission denied for table movie"), "movie"),
        explain(psycopg.errors.QueryCanceled("canceling statement due to user request"), "movie"),
        explain_sqlstate(psycopg.errors.UndefinedColumn('column "b" does not exist'), "movie"),
        explain_sqlstate(psycopg.errors.DivisionByZero("división entre cero"), "movie"),
        explain_sqlstate(psycopg.errors.CharacterNotInRepertoire("Bytefolge"), "movie"),
        canceled("movie"),
        interrupted("movie"),
        undecodable("movie"),
    ],
    ids=str,
)
def test_every_message_ends_with_whether_it_is_retried(error):
    """An operator at night has to know at once whether to get up."""
    assert str(error).endswith(f" {RETRIES[error.retry]}")


@pytest.mark.parametrize(
    "error, shown",
    [
        (psycopg.errors.InvalidTextRepresentation('invalid input syntax for type integer: "pl4nted"'), False),
        (psycopg.errors.RaiseException("invalid code pl4nted"), False),
        (psycopg.errors.UntranslatableCharacter("character with byte sequence 0x70 has no equivalent"), False),
        (RuntimeError("db error: FEHLER: ungültig: pl4nted"), False),
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), True),
        (psycopg.errors.UndefinedColumn('column "title" does not exist'), True),
        (psycopg.OperationalError("the connection is closed"), True),
        (RuntimeError("error communicating with the server: connection reset"), True),
    ],
)
def test_a_cause_is_shown_unless_it_may_quote_the_value_of_a_row(error, shown):
    """Dagster stores the text of the cause with the failed step, for everybody who may open the UI."""
    assert shown_cause(error) is (error if shown else None)
