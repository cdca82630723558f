"""The project of the Dagster tests, for commands that run in this process."""

from pg_bronze_tests.defs.conftest import cinema, project

__all__ = ["cinema", "project"]
