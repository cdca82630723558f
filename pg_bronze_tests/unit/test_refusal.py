import pytest

from pg_bronze.refusal import explain_text


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
