import psycopg
import pytest

from pg_bronze.errors import PgBronzeError, SourceDamaged, SourceUnavailable
from pg_bronze.postgres.error_mapping import explain, explain_state, explain_text


@pytest.mark.parametrize(
    "label, named",
    [
        ("movie", "movie"),
        ("sales.movie", "sales.movie"),
        ("two words", '"public"."two words"'),
        ("Movie", '"public"."Movie"'),
        ('sales."movie.old"', '"sales"."movie.old"'),
    ],
)
def test_the_grant_that_is_named_can_be_run_as_it_stands(label, named):
    """Unquoted, PostgreSQL looks for another table, or for none."""
    error = explain_text(RuntimeError("db error: ERROR: permission denied for table x"), label)

    assert str(error).endswith(f"Run: grant select on {named} to the role.")


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
        psycopg.errors.CrashShutdown("terminating connection because of crash of another server process"),
        psycopg.OperationalError("the connection is lost"),
    ],
    ids=["stopped", "crashed", "gone"],
)
def test_whatever_word_a_session_ends_with_the_next_tick_may_cure_it(error):
    """Which of them is heard is chance; a table left to an operator for it would wait for somebody every restart."""
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
def test_damage_is_told_by_both_readers_to_an_operator(error, words):
    """The texts are those of PostgreSQL 18's source: `bufmgr.c`, `md.c`, `slru.c`, `toast_internals.c`, `detoast.c`."""
    found: list[PgBronzeError] = [
        explain_state(error(words), "movie"),
        explain_text(RuntimeError(f"db error: ERROR: {words}"), "movie"),
    ]

    assert {type(each) for each in found} == {SourceDamaged}
    assert {each.retry for each in found} == {"after_fix"}
    assert len(set(map(str, found))) == 1


@pytest.mark.parametrize(
    "error, words",
    [
        (psycopg.errors.OutOfMemory, "out of memory"),
        (psycopg.errors.DiskFull, 'could not write to file "base/pgsql_tmp/t": No space left on device'),
        (psycopg.errors.ConfigurationLimitExceeded, 'temporary file size exceeds "temp_file_limit" (1024kB)'),
    ],
)
def test_a_server_without_memory_or_disk_is_told_by_both_readers_and_tried_again(error, words):
    found = [explain_state(error(words), "movie"), explain_text(RuntimeError(f"db error: ERROR: {words}"), "movie")]

    assert {type(each) for each in found} == {SourceUnavailable}
    assert {str(each).partition(";")[0] for each in found} == {
        "movie: the server has too little memory or disk for the read"
    }
