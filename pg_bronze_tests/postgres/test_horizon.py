"""The horizon of a tick."""

from pg_bronze.postgres.connection import Source


def test_all_tables_of_a_tick_share_a_horizon_unless_a_claim_goes_beyond_it(database):
    """Below the horizon of such a claim, the database would seem to have been restored."""
    with Source(database.conninfo, database.url, 30) as source:
        first = source.horizon()
        database.execute("select pg_current_xact_id()")

        assert source.horizon(at_least=first) == first
        assert source.horizon(at_least=first + 1) > first
