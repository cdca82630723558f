import psycopg
import pytest

from pg_bronze.refusal import explain, explain_text


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
    """Which of them is heard is chance; a table left to an operator for it would wait for somebody every restart.

    Seen red with a statement that the server ended left to an operator.
    """
    explained = explain(error, "movie")

    assert (explained.cure, str(explained).partition(":")[0]) == ("next tick", "movie")
