"""Everything a first look needs: embedded servers, a living sample database, and `dagster dev` over both."""
