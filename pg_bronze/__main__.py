"""Run the command line: ``python -m pg_bronze`` is ``pg-bronze``."""

from pg_bronze.cli.app import app

app()
